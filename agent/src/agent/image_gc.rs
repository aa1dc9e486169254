//! `--image_gc_config`: images that no container uses go when the store's disk fills.

use std::sync::Arc;

use crate::flags::{ImageGc, Settings};
use crate::sandbox::gc::disk_in_use;
use crate::shell::backend::Backend;

/// Until the agent stops.
pub(super) async fn watch(config: ImageGc, settings: Settings, backend: Arc<dyn Backend>) {
    loop {
        tokio::time::sleep(config.interval).await;
        let store = settings.docker_store_dir.clone();
        let in_use = tokio::task::spawn_blocking(move || disk_in_use(&store)).await;
        let in_use = match in_use.map_err(std::io::Error::other).flatten() {
            Ok(in_use) => in_use,
            Err(error) => {
                tracing::warn!(%error, "cannot find out how full the disk of the image store is");
                continue;
            }
        };
        if in_use > 1.0 - config.headroom {
            tracing::info!(in_use, "removing images, as the disk of their store fills");
            if let Err(error) = backend.prune_images(config.excluded.clone()).await {
                tracing::warn!(error, "images are not removed");
            }
        }
    }
}
