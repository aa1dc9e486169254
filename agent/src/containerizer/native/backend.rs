//! How an image becomes a root file system: as a stack of its layers, or as a copy.
//!
//! Without `--image_provisioner_backend` it is a stack, unless the work directory is on a file system on which overlayfs does not work. Mesos
//! tells that by a list of file systems; here a stack is made and written to, which takes some milliseconds once.
//!
//! A copy is made in the container's own directory, while the container is being prepared, by a thread that may block; as many at a time as there
//! are processors, since more would only make each other slow. It ends soon when the container is not wanted any more, or the agent ends. What
//! there is of it then goes with the container's other directories; and so it does when the agent is killed, and finds it at its next start.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tepui_images::{CopyError, ImageStore, RootFs, copy_layers};
use tepui_shim::{OverlayError, remove_tree, try_overlay};
use tokio::sync::Semaphore;

use super::Container;
use super::layout::Layout;
use crate::containerizer::error::{PrepareError, SetupError};
use crate::flags::ImageBackend;

/// A copy that a container needs before it can be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CopyPlan {
    pub layers: RootFs,
    /// There and empty.
    pub target: PathBuf,
}

/// Which backend is used, of those that work here. Blocks for some milliseconds.
pub(super) fn choose(
    wanted: Option<ImageBackend>,
    layout: &Layout,
    images: &ImageStore,
) -> Result<ImageBackend, SetupError> {
    if wanted == Some(ImageBackend::Copy) {
        return Ok(ImageBackend::Copy);
    }
    match (try_stacking(layout, images), wanted) {
        (Ok(()), _) => Ok(ImageBackend::Overlay),
        (Err(SetupError::Overlay(error @ OverlayError::Trial { .. })), _) => {
            tracing::debug!(%error, "it is not known whether images can be mounted as overlays");
            Ok(ImageBackend::Overlay)
        }
        (Err(SetupError::Overlay(error)), None) => {
            tracing::warn!(%error, "images cannot be mounted as overlays: each container gets a copy of its image");
            Ok(ImageBackend::Copy)
        }
        (Err(error), _) => Err(error),
    }
}

fn try_stacking(layout: &Layout, images: &ImageStore) -> Result<(), SetupError> {
    let directory = layout.trial();
    let removed = || {
        remove_tree(&directory).map_err(|error| SetupError::Directory {
            path: directory.clone(),
            source: std::io::Error::other(error),
        })
    };
    // That of an agent that was killed in the middle.
    removed()?;
    let tried = match images.no_layers().lower() {
        [lower, ..] => try_overlay(&directory, lower),
        [] => Ok(()),
    };
    removed()?;
    Ok(tried?)
}

/// Makes a copy for a container. Waits for its turn.
pub(super) async fn copy(
    container: &Arc<Container>,
    turns: &Arc<Semaphore>,
    CopyPlan { layers, target }: CopyPlan,
) -> Result<(), PrepareError> {
    let turn = tokio::select! {
        turn = Arc::clone(turns).acquire_owned() => turn,
        () = container.doom() => return Err(PrepareError::Cancelled),
    };
    let busy = Arc::clone(&container.copying).lock_owned().await;
    let waiting = Waiting::default();
    let (abandoned, of) = (Arc::clone(&waiting.abandoned), Arc::clone(container));
    let work = move || {
        let _until_the_end = (turn, busy);
        let stop = || abandoned.load(Ordering::Relaxed) || *of.doomed.borrow();
        let copied = copy_layers(&layers, &target, &stop).map_err(|error| match error {
            CopyError::GivenUp => PrepareError::Cancelled,
            source => PrepareError::Copy { target: target.clone(), source },
        })?;
        tracing::debug!(
            container = %of.id(), target = %target.display(), entries = copied.entries, bytes = copied.bytes, "an image was copied"
        );
        Ok(())
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| PrepareError::Spec(error.to_string()))?
}

/// Somebody waits for a copy. Dropped with whoever does, as when the agent ends: nothing else would end the copying.
#[derive(Default)]
struct Waiting {
    abandoned: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
