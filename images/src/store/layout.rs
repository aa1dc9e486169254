//! The store's directory, and what makes it whole at any instant.
//!
//! ```text
//! lock                       held while a process opens the store
//! staging/<session>/         one per process that has the store open; unfinished things only
//!     lock                   held for as long as that process lives
//! layers/<diff id>/root/     an unpacked layer, a lower directory for overlayfs
//!     layer.json, durable
//! l/<short>                  symbolic links to layers, short enough for overlayfs' mount options
//! images/<id>.json           config and layers
//! references/<name>.json     which image a name means
//! users/<digest>.json        who needs an image, and may not lose it ([`super::prune`])
//! empty/                     the lower directory of images without layers
//! ```
//!
//! All is made in the session's staging directory and renamed to its place when complete. A process that dies leaves
//! only its session, which nobody holds the lock of any more; the next to open the store removes it.
//!
//! Layers are not synced before they are used, which would cost every pull the disk's time. Instead each notes the
//! boot it was unpacked in, and gets the mark `durable` once synced. A layer without the mark from an earlier boot may
//! have lost content with the power, and is removed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::records::{self, ImageRecord, LayerRecord, ReferenceRecord, Stamp, create_private};
use crate::digest::Digest;
use crate::error::Error;
use crate::rootfs::LayerPath;
use crate::unpack::{Expected, UnpackLimits, unpack_layer};

/// Shortest name of a link in `l/`: 48 bits of the diff id; two layers that agree in them get longer ones.
const SHORT: usize = 12;

/// The directory of an open store.
pub(super) struct Layout {
    root: PathBuf,
    empty: PathBuf,
    session: Session,
    boot: String,
    /// Held while layers are synced and marked.
    settling: Mutex<()>,
}

/// This process' staging directory.
struct Session {
    directory: PathBuf,
    _lock: Flock<File>,
}

// === impl Layout ===

impl Layout {
    /// Opens the store, and removes what dead processes and lost power left behind.
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("create the directory", root))?;
        let root = root.canonicalize().map_err(Error::io("find the directory", root))?;
        for directory in ["staging", "layers", "l", "images", "references", "users"] {
            create_private(&root.join(directory))?;
        }
        let empty = root.join("empty");
        fs::create_dir_all(&empty).map_err(Error::io("create the directory", &empty))?;
        let boot_file = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_file).map_err(Error::io("read", boot_file))?.trim().to_owned();

        let opening = lock(&root.join("lock"), FlockArg::LockExclusive)?;
        let session = Session::create(&root.join("staging"))?;
        let layout = Self { root, empty, session, boot, settling: Mutex::new(()) };
        layout.remove_dead_sessions()?;
        layout.remove_doubtful_layers()?;
        drop(opening);
        Ok(layout)
    }

    /// The store's lock, for as long as what is returned lives. Blocks.
    pub(super) fn locked(&self) -> Result<Flock<File>, Error> {
        lock(&self.root.join("lock"), FlockArg::LockExclusive)
    }

    pub(super) fn users(&self) -> PathBuf {
        self.root.join("users")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("l")
    }

    /// By which other processes know this one.
    pub(super) fn session_name(&self) -> String {
        self.session.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether the process of a session lives.
    pub(super) fn is_session_alive(&self, name: &str) -> bool {
        name == self.session_name() || is_alive(&self.root.join("staging").join(name))
    }

    /// Where unfinished things go.
    pub(super) fn staging(&self) -> &Path {
        &self.session.directory
    }

    /// An empty directory.
    pub(super) fn empty(&self) -> &Path {
        &self.empty
    }

    // --- layers ---

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_directory(diff_id).join("layer.json").exists()
    }

    /// Unpacks a layer from its blob, checks it, and puts it in its place. Nothing remains of it on an error. Blocks.
    pub(super) fn install_layer(
        &self,
        blob: impl Read,
        expected: &Expected,
        limits: &UnpackLimits,
    ) -> Result<(), Error> {
        let diff_id = &expected.diff_id;
        let staging =
            TempDir::new_in(self.staging()).map_err(Error::io("create a directory in", self.staging()))?;
        let root = staging.path().join("root");
        fs::create_dir(&root).map_err(Error::io("create the directory", &root))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("set the mode of", &root))?;
        let unpacked = unpack_layer(blob, &root, expected, limits)
            .map_err(|source| Error::Layer { layer: diff_id.clone(), source })?;
        let record = LayerRecord {
            diff_id: diff_id.clone(),
            entries: unpacked.entries,
            bytes: unpacked.bytes,
            boot: self.boot.clone(),
        };
        let record_path = staging.path().join("layer.json");
        let json = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&record_path, json));
        json.map_err(Error::io("write", &record_path))?;

        let place = self.layer_directory(diff_id);
        match fs::rename(staging.path(), &place) {
            Ok(()) => {
                // The staging directory is the layer now.
                let _ = staging.keep();
                tracing::info!(layer = %diff_id, entries = record.entries, bytes = record.bytes, "A layer was unpacked.");
                Ok(())
            }
            // Another process was faster; its layer is as good.
            Err(_) if self.has_layer(diff_id) => Ok(()),
            Err(error) => Err(Error::io("move the layer to", &place)(error)),
        }
    }

    /// The layer's path for a mount: a link with a short name, made if it is missing.
    pub(super) fn layer_path(&self, diff_id: &Digest) -> Result<LayerPath, Error> {
        let target = PathBuf::from("../layers").join(file_name(diff_id)).join("root");
        let hex = diff_id.hex();
        for length in [SHORT, 2 * SHORT, hex.len()] {
            let link = self.root.join("l").join(&hex[..length]);
            match std::os::unix::fs::symlink(&target, &link) {
                Ok(()) => return Ok(LayerPath { diff_id: diff_id.clone(), path: link }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create the link", &link)(error)),
            }
            if fs::read_link(&link).map_err(Error::io("read the link", &link))? == target {
                return Ok(LayerPath { diff_id: diff_id.clone(), path: link });
            }
        }
        // Links of other layers in all places: then the layer's own path must do.
        Ok(LayerPath { diff_id: diff_id.clone(), path: self.layer_directory(diff_id).join("root") })
    }

    /// Syncs the layers that were not yet, and marks them. Blocks for as long as the disk takes.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let _one_at_a_time = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = self.root.join("layers");
        let unmarked: Vec<_> =
            entries(&layers)?.into_iter().filter(|layer| !layer.join("durable").exists()).collect();
        if unmarked.is_empty() {
            return Ok(());
        }
        let directory = File::open(&layers).map_err(Error::io("open", &layers))?;
        nix::unistd::syncfs(&directory).map_err(|errno| Error::io("sync", &layers)(errno.into()))?;
        for layer in unmarked {
            File::create(layer.join("durable")).map_err(Error::io("mark the layer", &layer))?;
        }
        Ok(())
    }

    fn layer_directory(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(file_name(diff_id))
    }

    // --- records ---

    /// Remembers the image, and that `reference` means it. False when a layer was removed since it was fetched.
    pub(super) fn write_image(
        &self,
        image: &ImageRecord,
        reference: &ReferenceRecord,
    ) -> Result<bool, Error> {
        let _locked = self.locked()?;
        if !image.diff_ids.iter().all(|diff_id| self.has_layer(diff_id)) {
            return Ok(false);
        }
        records::write(image, self.staging(), &self.image_path(&image.id))?;
        records::write(reference, self.staging(), &self.reference_path(&reference.name))?;
        Ok(true)
    }

    /// The image that a name meant when it looked like `stamp`, if all of it is here.
    pub(super) fn read_image(
        &self,
        name: &str,
        stamp: Option<&Stamp>,
    ) -> Option<(ReferenceRecord, ImageRecord)> {
        let reference: ReferenceRecord = records::read(&self.reference_path(name))?;
        if reference.name != name || reference.stamp.as_ref() != stamp {
            return None;
        }
        let image: ImageRecord = records::read(&self.image_path(&reference.image))?;
        let whole = image.diff_ids.iter().all(|diff_id| self.has_layer(diff_id));
        whole.then_some((reference, image))
    }

    pub(super) fn references(&self) -> Result<Vec<ReferenceRecord>, Error> {
        let paths = entries(&self.root.join("references"))?;
        Ok(paths.iter().filter_map(|path| records::read(path)).collect())
    }

    fn image_path(&self, id: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", file_name(id)))
    }

    pub(super) fn reference_path(&self, name: &str) -> PathBuf {
        self.root.join("references").join(format!("{}.json", file_name(&Digest::of(name.as_bytes()))))
    }

    // --- recovery ---

    fn remove_dead_sessions(&self) -> Result<(), Error> {
        for session in entries(&self.root.join("staging"))? {
            if session == self.session.directory {
                continue;
            }
            if !is_alive(&session) {
                tracing::info!(session = %session.display(), "Removing what an interrupted process left in the image store.");
                match remove(&session) {
                    // One that is ending removes its own at the same time.
                    Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    removed => removed?,
                }
            }
        }
        Ok(())
    }

    fn remove_doubtful_layers(&self) -> Result<(), Error> {
        for layer in entries(&self.root.join("layers"))? {
            if layer.join("durable").exists() {
                continue;
            }
            let record: Option<LayerRecord> = records::read(&layer.join("layer.json"));
            if record.is_some_and(|record| record.boot == self.boot) {
                continue;
            }
            tracing::warn!(layer = %layer.display(), "Removing a layer that was not on disk for certain when the machine went down.");
            // First out of sight, so that a removal that is interrupted leaves no part of a layer in its place.
            let aside = TempDir::new_in(self.staging())
                .map_err(Error::io("create a directory in", self.staging()))?;
            fs::rename(&layer, aside.path().join("layer")).map_err(Error::io("move aside", &layer))?;
            remove(aside.path())?;
        }
        Ok(())
    }
}

// === impl Session ===

impl Session {
    fn create(staging: &Path) -> Result<Self, Error> {
        let prefix = format!("{}-", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(staging)
            .map_err(Error::io("create a directory in", staging))?;
        let lock = lock(&directory.path().join("lock"), FlockArg::LockExclusiveNonblock)?;
        Ok(Self { directory: directory.keep(), _lock: lock })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

// === impl Stamp ===

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            bytes: metadata.len(),
            modified_seconds: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
            inode: metadata.ino(),
        })
    }
}

// === helpers ===

/// Whether a process has this session. Without a lock file it died while it was made, which happens under the store's lock.
fn is_alive(session: &Path) -> bool {
    let path = session.join("lock");
    path.exists() && lock(&path, FlockArg::LockExclusiveNonblock).is_err()
}

/// A digest as a file name: overlayfs gives colons a meaning.
pub(super) fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || {
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    };
    read().map_err(Error::io("read the directory", directory))
}

fn lock(path: &Path, how: FlockArg) -> Result<Flock<File>, Error> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io("open", path))?;
    Flock::lock(file, how).map_err(|(_, errno)| Error::io("lock", path)(errno.into()))
}

pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    fs::remove_dir_all(directory).map_err(Error::io("remove", directory))
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
