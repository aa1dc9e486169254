//! Images on disk: `docker save` archives and OCI layouts.
//!
//! [`files`] makes one thing of all packings (a tar, a compressed tar, a directory): named files that can be read at
//! any time. [`docker`] reads `manifest.json` in it, [`oci`] reads `index.json`; both give a [`LocalImage`]. Newer Docker
//! writes both into one archive; `manifest.json` wins, since it is what `docker load` goes by.

mod docker;
mod files;
mod oci;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Platform, Resolved};
use crate::reference::NamedReference;
use files::{Files, Member};

/// Which image of an archive is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// The only one.
    Only,
    /// One by a name of Docker's grammar; or the only one, if it goes by another.
    Named(&'a NamedReference),
    /// One by the name or tag the archive gives it.
    Called(&'a str),
}

/// An image in an archive, its layers not yet read.
pub(crate) struct LocalImage {
    pub(crate) resolved: Resolved,
    pub(crate) layers: Vec<LocalLayer>,
}

/// A layer in an archive.
#[derive(Clone)]
pub(crate) struct LocalLayer {
    files: Arc<Files>,
    member: Member,
    /// Digest and size of the blob, where the archive promises them.
    pub(crate) blob: Option<(Digest, u64)>,
}

/// Finds the image `wanted` in the archive or layout at `path`. `scratch` takes the plain form of a compressed
/// archive, of at most `max_bytes`; nothing is left there by name. Blocks.
pub(crate) fn open(
    path: &Path,
    wanted: Wanted<'_>,
    platform: &Platform,
    scratch: &Path,
    max_bytes: u64,
) -> Result<LocalImage, Error> {
    let files = Arc::new(Files::open(path, scratch, max_bytes)?);
    let archive = Archive { path, files };
    // Only layouts know digests of manifests.
    let by_digest = matches!(wanted, Wanted::Named(reference) if reference.digest().is_some());
    if !by_digest && let Some(manifest) = archive.document("manifest.json")? {
        return docker::read(&archive, &manifest, wanted, platform);
    }
    if let Some(index) = archive.document("index.json")? {
        return oci::read(&archive, &index, wanted, platform);
    }
    let reason = if archive.files.find("repositories").is_some() {
        "it was written by a Docker older than 1.10 (it has 'repositories' but no 'manifest.json'); load and save it again with a newer one"
    } else if by_digest {
        "only an OCI layout keeps the digests of manifests; name the image by its tag"
    } else {
        "neither manifest.json (docker save) nor index.json (OCI layout) is in it"
    };
    Err(archive.refuse(reason))
}

/// An open archive with its name.
struct Archive<'a> {
    path: &'a Path,
    files: Arc<Files>,
}

impl Archive<'_> {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Archive { path: self.path.to_owned(), reason: reason.into() }
    }

    /// A small file's content, or `None` if there is no such file.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(member) = self.files.find(name) else { return Ok(None) };
        if member.size() > crate::manifest::MAX_DOCUMENT {
            return Err(
                self.refuse(format!("'{name}' in it is larger than {} bytes", crate::manifest::MAX_DOCUMENT))
            );
        }
        let mut bytes = Vec::new();
        let read = self.files.open_member(&member).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| self.refuse(format!("'{name}' in it cannot be read: {error}")))?;
        Ok(Some(bytes))
    }

    fn needed_document(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.document(name)?.ok_or_else(|| self.refuse(format!("'{name}' is missing in it")))
    }

    fn layer(&self, name: &str, blob: Option<(Digest, u64)>) -> Result<LocalLayer, Error> {
        let member = self
            .files
            .find(name)
            .ok_or_else(|| self.refuse(format!("the layer '{name}' is missing in it")))?;
        Ok(LocalLayer { files: self.files.clone(), member, blob })
    }
}

impl LocalLayer {
    /// Bytes of the blob.
    pub(crate) fn size(&self) -> u64 {
        self.member.size()
    }

    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.files.open_member(&self.member)
    }
}

#[cfg(test)]
mod tests;
