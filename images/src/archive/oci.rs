//! `index.json` of an OCI layout: descriptors of manifests, and every document and layer under `blobs/` by its digest.

use super::{Archive, LocalImage, Wanted};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Index, MAX_INDEX_DEPTH, Manifest, Platform, Resolved};

/// The names that tools give images in an index: the specification's (often only a tag), and containerd's.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

pub(super) fn read(
    archive: &Archive<'_>,
    index: &[u8],
    wanted: Wanted<'_>,
    platform: &Platform,
) -> Result<LocalImage, Error> {
    let what = archive.path.display().to_string();
    let Manifest::Index(index) = Manifest::parse(index, &what)? else {
        return Err(archive.refuse("its index.json is not an index"));
    };
    let mut descriptor = choose(archive, &index, wanted, platform)?.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        let bytes = blob(archive, &descriptor)?;
        match Manifest::parse(&bytes, &what)? {
            Manifest::Index(index) => descriptor = index.choose(platform, &what)?.clone(),
            Manifest::Image(manifest) => {
                let config = blob(archive, &manifest.config)?;
                let resolved =
                    Resolved::new(&config, Some(descriptor.digest), manifest.layers.len(), &what, platform)?;
                let layer = |layer: &Descriptor| {
                    archive.layer(&blob_name(&layer.digest), Some((layer.digest.clone(), layer.size)))
                };
                let layers = manifest.layers.iter().map(layer).collect::<Result<_, _>>()?;
                return Ok(LocalImage { resolved, layers });
            }
        }
    }
    Err(archive.refuse(format!("more than {MAX_INDEX_DEPTH} indexes lead to one another")))
}

fn choose<'a>(
    archive: &Archive<'_>,
    index: &'a Index,
    wanted: Wanted<'_>,
    platform: &Platform,
) -> Result<&'a Descriptor, Error> {
    let names = |descriptor: &'a Descriptor| {
        NAMES.iter().filter_map(|key| descriptor.annotations.get(*key)).map(String::as_str)
    };
    let with =
        |is_it: &dyn Fn(&str) -> bool| index.manifests.iter().find(|descriptor| names(descriptor).any(is_it));
    // Several entries can be one image for several platforms.
    let only = || match index.manifests.as_slice() {
        [only] => Some(only),
        several if several.iter().all(|entry| names(entry).eq(names(&several[0]))) => {
            index.choose(platform, "the layout").ok()
        }
        _ => None,
    };
    let found = match wanted {
        Wanted::Only => only(),
        Wanted::Called(name) => with(&|found| found == name),
        Wanted::Named(reference) if reference.digest().is_some() => {
            index.manifests.iter().find(|descriptor| Some(&descriptor.digest) == reference.digest())
        }
        Wanted::Named(reference) => with(&|found| reference.is_called(found)).or_else(only),
    };
    found.ok_or_else(|| {
        let names: Vec<_> = index.manifests.iter().flat_map(names).collect();
        archive.refuse(format!(
            "the image wanted is not in it; it has {} manifests: {}",
            index.manifests.len(),
            names.join(", ")
        ))
    })
}

/// A document's bytes, size and digest checked.
fn blob(archive: &Archive<'_>, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let bytes = archive.needed_document(&blob_name(&descriptor.digest))?;
    let what = || format!("the document {} in {}", descriptor.digest, archive.path.display());
    if bytes.len() as u64 != descriptor.size {
        return Err(Error::WrongSize { what: what(), expected: descriptor.size, actual: bytes.len() as u64 });
    }
    if !descriptor.digest.matches(&bytes) {
        return Err(Error::WrongDigest {
            what: what(),
            expected: descriptor.digest.clone(),
            actual: Digest::of(&bytes),
        });
    }
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}
