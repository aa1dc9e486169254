//! `volume/image`: the content of an image as a volume.
//!
//! The agent provisions the image as it does a root file system; this isolator says where it is mounted. A read-only volume is the layers
//! themselves; what a container writes to one that is not goes to a directory of the container's own, and is gone with it.
//! Always there with `filesystem/linux`. Rules: Mesos' `docs/container-volume.md`.

use std::sync::Arc;

use super::volumes::{Kind, mount, volumes};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};
use crate::volume::VolumeSource;

struct VolumeImage;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(VolumeImage))
}

fn prepare(context: &ContainerContext, contribution: &mut Contribution) -> Result<(), IsolatorError> {
    for volume in volumes(context) {
        if let (volume, Kind::Image(image)) = volume? {
            let source = VolumeSource::Image(Box::new(image.clone()));
            contribution.volumes.push(mount(volume, source, context)?);
        }
    }
    Ok(())
}

impl Isolator for VolumeImage {
    fn name(&self) -> &str {
        "volume/image"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(prepare(context, contribution))
    }
}
