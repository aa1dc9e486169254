//! `volume/secret`: a file with a secret.
//!
//! The file is in memory that is never written to a disk or swap device, belongs to the container's user, has mode 0600, and is gone with
//! the container; only an empty file is left in a sandbox as the place where it was mounted. Rules: Mesos' `docs/secrets.md`.

use std::sync::Arc;

use super::secrets::resolve;
use super::volumes::{Kind, mount, volumes};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};
use crate::volume::VolumeSource;

struct VolumeSecret;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(VolumeSecret))
}

fn prepare(context: &ContainerContext, contribution: &mut Contribution) -> Result<(), IsolatorError> {
    for volume in volumes(context) {
        if let (volume, Kind::Secret(secret)) = volume? {
            let value = resolve(secret, &format!("for the volume at '{}'", volume.container_path))?;
            contribution.volumes.push(mount(volume, VolumeSource::Secret(value), context)?);
        }
    }
    Ok(())
}

impl Isolator for VolumeSecret {
    fn name(&self) -> &str {
        "volume/secret"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(prepare(context, contribution))
    }
}
