//! From an image's name to its configuration and the layers to stack.

use std::path::Path;
use std::sync::Arc;

use tepui_api::v1::{Image, image};
use tepui_images::{Credentials, Durations, PullOptions, Reference, RootFs};

use super::{Inner, NativeContainerizer};
use crate::containerizer::error::{PrepareError, Unsupported};

/// An image that is in the store.
pub(super) struct Provisioned {
    pub image: Arc<tepui_images::Image>,
    pub root: RootFs,
}

impl Inner {
    /// Pulls an image, unless it is in the store and the task is content with that, and keeps it for the container.
    pub(super) async fn provision(&self, wanted: &Image, holder: &Path) -> Result<Provisioned, PrepareError> {
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
        let image = loop {
            let image = self.images.pull(&reference, options.clone()).await?;
            if self.hold(&image, holder).await? {
                break image;
            }
            // It was pruned meanwhile.
        };
        let root = self.images.provision(&image)?;
        Ok(Provisioned { image, root })
    }

    async fn hold(&self, image: &Arc<tepui_images::Image>, holder: &Path) -> Result<bool, PrepareError> {
        let (images, image, holder) = (self.images.clone(), Arc::clone(image), holder.to_owned());
        let held = tokio::task::spawn_blocking(move || images.hold(&image, &holder)).await;
        let held = held.map_err(|error| PrepareError::Spec(error.to_string()))?;
        held.map_err(|error| PrepareError::Image(Arc::new(error)))
    }
}

impl NativeContainerizer {
    /// How long pulls of images took.
    pub(in crate::containerizer) fn image_pulls(&self) -> Durations {
        self.inner.images.pulls()
    }

    /// Removes all images that no container uses, but for those in the list.
    ///
    /// # Errors
    /// When one of the list has no name that can be, or the store cannot be written to.
    pub async fn prune_images(&self, keep: &[Image]) -> Result<(), String> {
        let names = keep.iter().filter_map(|image| image.docker.as_ref());
        let keep = names.map(|docker| {
            Reference::parse(&docker.name)
                .map_err(|error| format!("'excluded_images' has '{}': {error}", docker.name))
        });
        let keep = keep.collect::<Result<Vec<_>, _>>()?;
        let images = self.inner.images.clone();
        let pruned = tokio::task::spawn_blocking(move || images.prune(&keep)).await;
        let pruned = pruned.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tracing::info!(
            removed = ?pruned.names, in_use = ?pruned.in_use, layers = pruned.layers, bytes = pruned.bytes,
            "images that nobody uses were removed"
        );
        Ok(())
    }
}
