//! From an image's name to its configuration and the layers to stack.

use std::sync::Arc;

use tepui_api::v1::{Image, image};
use tepui_images::{Credentials, PullOptions, Reference, RootFs};

use super::Inner;
use crate::containerizer::error::{PrepareError, Unsupported};

/// An image that is in the store.
pub(super) struct Provisioned {
    pub image: Arc<tepui_images::Image>,
    pub root: RootFs,
}

impl Inner {
    /// Pulls an image, unless it is in the store and the task is content with that.
    pub(super) async fn provision(&self, wanted: &Image) -> Result<Provisioned, PrepareError> {
        let docker = match (wanted.r#type(), &wanted.docker) {
            (image::Type::Docker, Some(docker)) => docker,
            _ => return Err(Unsupported("an image of type APPC").into()),
        };
        if docker.credential.is_some() {
            // Mesos has it in its messages only.
            return Err(Unsupported("a Mesos credential for an image's registry (use 'config')").into());
        }
        let credentials = match &docker.config {
            Some(secret) => {
                let config = tepui_isolators::resolve_secret(secret, "of the image's 'config'")?;
                Some(Arc::new(Credentials::parse(config.expose())?))
            }
            None => None,
        };
        let reference = Reference::parse(&docker.name)?;
        let listed = self.pulls.begin(&docker.name);
        let options = PullOptions { cached: wanted.cached(), credentials, progress: Some(listed.hear()) };
        let image = self.images.pull(&reference, options).await?;
        let root = self.images.provision(&image)?;
        Ok(Provisioned { image, root })
    }
}
