//! `filesystem/posix`: containers see the host's files as they are; one with a root file system of its own is refused.
//!
//! Added when `--isolation` names no file system isolator, as in Mesos.

use std::sync::Arc;

use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct FilesystemPosix;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(FilesystemPosix))
}

impl Isolator for FilesystemPosix {
    fn name(&self) -> &str {
        "filesystem/posix"
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(match context.has_rootfs {
            false => Ok(()),
            true => Err(IsolatorError::Refused(
                "a container with an image needs an agent with 'filesystem/linux' in --isolation".to_owned(),
            )),
        })
    }
}
