//! What is removed from the store, and what is kept because somebody needs it.
//!
//! A container that is made from an image holds it ([`ImageStore::hold`]): `users/<digest>.json` names the image, its layers and the container's directory.
//! A hold lasts until it is released; after a death of the process that took it, for as long as that directory is there. So nothing that died
//! keeps an image, and containers that outlive their agent do.
//!
//! Taking a hold and deciding what goes are under the store's lock. What goes is moved aside under it and deleted after, so that an interrupted removal
//! leaves nothing but a dead session's directory. A pull whose layers were taken from under it sees that when it writes its record, under the same
//! lock, and fetches them again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::layout::{Layout, entries, file_name, remove};
use super::records::{self, ImageRecord, LayerRecord, ReferenceRecord};
use super::{Image, ImageStore};
use crate::digest::Digest;
use crate::error::Error;
use crate::reference::{NamedReference, Reference, RegistryUrl};

/// What a removal has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The names of images that are no more.
    pub names: Vec<String>,
    /// Layers that no image has any more.
    pub layers: usize,
    /// Bytes of what was in those layers.
    pub bytes: u64,
    /// Names that stay, since a container uses their image.
    pub in_use: Vec<String>,
}

/// Somebody who needs an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRecord {
    holder: PathBuf,
    session: String,
    image: Digest,
    diff_ids: Vec<Digest>,
}

impl ImageStore {
    /// Keeps an image for a container until it is released; `holder` is a directory that is there for as long as the container is, whoever dies
    /// meanwhile. False when something of the image is gone already: then it has to be pulled again. Blocks for a short while.
    ///
    /// # Errors
    /// When the store's directory cannot be written to.
    pub fn hold(&self, image: &Image, holder: &Path) -> Result<bool, Error> {
        let layout = &self.inner.layout;
        let _locked = layout.locked()?;
        if !image.layers.iter().all(|layer| layout.has_layer(&layer.diff_id)) {
            return Ok(false);
        }
        let record = UserRecord {
            holder: holder.to_owned(),
            session: layout.session_name(),
            image: image.id.clone(),
            diff_ids: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        };
        // Not synced: a machine that goes down takes all containers along.
        records::write_unsynced(&record, layout.staging(), &layout.user_path(holder, &image.id))?;
        Ok(true)
    }

    /// Lets go of all images that were held for a container.
    ///
    /// # Errors
    /// When the store's directory cannot be read.
    pub fn release(&self, holder: &Path) -> Result<(), Error> {
        self.inner.layout.release(holder)
    }

    /// Removes all images but those that are in use, and those whose name is among `keep`. Blocks.
    ///
    /// # Errors
    /// When the store's directory cannot be read or written to.
    pub fn prune(&self, keep: &[Reference]) -> Result<Pruned, Error> {
        let kept: Vec<&NamedReference> = keep
            .iter()
            .filter_map(|reference| match reference {
                Reference::Named(name) => Some(name),
                Reference::Local(_) => None,
            })
            .collect();
        let paths: Vec<String> = keep
            .iter()
            .filter_map(|reference| match reference {
                Reference::Local(path) => Some(path.display().to_string()),
                Reference::Named(_) => None,
            })
            .collect();
        let names: BTreeSet<String> =
            kept.iter().map(|name| name.resolve(&self.default_registry()).to_string()).collect();
        self.remove_those(|record| !names.contains(&record.name) && !paths.contains(&record.name))
    }

    /// Removes one image by its name, as [`ImageStore::list`] tells it or as a task gives it, and the layers that no other image has. It stays if a
    /// container uses it. `None` when the store has no image of that name. Blocks.
    ///
    /// # Errors
    /// When the store's directory cannot be read or written to.
    pub fn remove(&self, name: &str) -> Result<Option<Pruned>, Error> {
        let full = match Reference::parse(name) {
            Ok(Reference::Named(named)) => named.resolve(&self.default_registry()).to_string(),
            _ => name.to_owned(),
        };
        let wanted = |record: &ReferenceRecord| record.name == name || record.name == full;
        if !self.inner.layout.references()?.iter().any(wanted) {
            return Ok(None);
        }
        self.remove_those(wanted).map(Some)
    }

    fn default_registry(&self) -> RegistryUrl {
        match &self.inner.options.registry {
            crate::reference::RegistryLocation::Remote(url) => url.clone(),
            crate::reference::RegistryLocation::Directory(_) => RegistryUrl::docker_hub(),
        }
    }

    fn remove_those(&self, unwanted: impl Fn(&ReferenceRecord) -> bool) -> Result<Pruned, Error> {
        let layout = &self.inner.layout;
        let locked = layout.locked()?;
        let (aside, pruned) = layout.take_aside(unwanted)?;
        drop(locked);
        remove(&aside.keep())?;
        Ok(pruned)
    }
}

impl Layout {
    fn user_path(&self, holder: &Path, image: &Digest) -> PathBuf {
        let whose = Digest::of(holder.as_os_str().as_encoded_bytes());
        self.users().join(format!("{}-{}.json", &whose.hex()[..32], &image.hex()[..32]))
    }

    fn release(&self, holder: &Path) -> Result<(), Error> {
        let whose = Digest::of(holder.as_os_str().as_encoded_bytes());
        for path in entries(&self.users())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&whose.hex()[..32]) {
                ignore_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Those who need an image; forgets those who are no more.
    fn live_users(&self) -> Result<Vec<UserRecord>, Error> {
        let mut live = Vec::new();
        for path in entries(&self.users())? {
            match records::read::<UserRecord>(&path) {
                Some(user) if user.holder.exists() || self.is_session_alive(&user.session) => live.push(user),
                _ => ignore_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?,
            }
        }
        Ok(live)
    }

    /// Takes out of the store what nobody needs, into a directory that is to be deleted. The store's lock is held.
    fn take_aside(&self, unwanted: impl Fn(&ReferenceRecord) -> bool) -> Result<(TempDir, Pruned), Error> {
        let aside =
            TempDir::new_in(self.staging()).map_err(Error::io("create a directory in", self.staging()))?;
        let users = self.live_users()?;
        let used: BTreeSet<&Digest> = users.iter().map(|user| &user.image).collect();
        let mut pruned = Pruned::default();
        let mut named = BTreeSet::new();
        for reference in self.references()? {
            if !unwanted(&reference) {
                named.insert(reference.image);
            } else if used.contains(&reference.image) {
                named.insert(reference.image);
                pruned.in_use.push(reference.name);
            } else {
                let path = self.reference_path(&reference.name);
                ignore_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?;
                pruned.names.push(reference.name);
            }
        }
        pruned.names.sort();
        pruned.in_use.sort();
        let mut needed: BTreeSet<String> =
            users.iter().flat_map(|user| &user.diff_ids).map(file_name).collect();
        for path in entries(&self.images())? {
            let record: Option<ImageRecord> = records::read(&path);
            match record.filter(|image| named.contains(&image.id) || used.contains(&image.id)) {
                Some(image) => needed.extend(image.diff_ids.iter().map(file_name)),
                None => ignore_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?,
            }
        }
        for layer in entries(&self.layers())? {
            let name = layer.file_name().unwrap_or_default().to_owned();
            if name.to_str().is_some_and(|name| needed.contains(name)) {
                continue;
            }
            let record: Option<LayerRecord> = records::read(&layer.join("layer.json"));
            fs::rename(&layer, aside.path().join(&name)).map_err(Error::io("move aside", &layer))?;
            pruned.layers += 1;
            pruned.bytes += record.map_or(0, |record| record.bytes);
        }
        for link in entries(&self.links())? {
            if !link.exists() {
                ignore_missing(fs::remove_file(&link)).map_err(Error::io("remove", &link))?;
            }
        }
        Ok((aside, pruned))
    }
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
