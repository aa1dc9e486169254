//! `docker/runtime`: the entrypoint, command, environment and working directory of a Docker or OCI image apply.
//!
//! Merging them with the task's command needs the image's configuration, so the containerizer does it, with
//! `tepui_images`; the name in `--isolation` says that it shall. Rules: Mesos' `docs/isolators/docker-runtime.md`.

use std::sync::Arc;

use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::Isolator;

struct DockerRuntime;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(DockerRuntime))
}

impl Isolator for DockerRuntime {
    fn name(&self) -> &str {
        "docker/runtime"
    }
}
