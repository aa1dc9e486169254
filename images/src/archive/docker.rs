//! `manifest.json` of `docker save`: for each image its config, names and layers, as files of the archive.

use serde::Deserialize;

use super::{Archive, LocalImage, Wanted};
use crate::config::null_as_default;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Platform, Resolved};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "null_as_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    layers: Vec<String>,
}

pub(super) fn read(
    archive: &Archive<'_>,
    manifest: &[u8],
    wanted: Wanted<'_>,
    platform: &Platform,
) -> Result<LocalImage, Error> {
    let images: Vec<Saved> = serde_json::from_slice(manifest)
        .map_err(|error| archive.refuse(format!("its manifest.json is not usable: {error}")))?;
    let image = choose(archive, &images, wanted)?;
    let config = archive.needed_document(&image.config)?;
    let what = archive.path.display().to_string();
    let resolved = Resolved::new(&config, None, image.layers.len(), &what, platform)?;
    // The config's file is named by its digest, in one way by Docker up to 24 and in another since 25.
    if let Some(expected) = digest_in_name(&image.config)
        && expected != resolved.id
    {
        return Err(Error::WrongDigest {
            what: format!("the config of {what}"),
            expected,
            actual: resolved.id,
        });
    }
    let layers = image.layers.iter().map(|name| archive.layer(name, None)).collect::<Result<_, _>>()?;
    Ok(LocalImage { resolved, layers })
}

fn choose<'a>(archive: &Archive<'_>, images: &'a [Saved], wanted: Wanted<'_>) -> Result<&'a Saved, Error> {
    let called = |name: &str| {
        images.iter().find(|image| {
            image
                .repo_tags
                .iter()
                .any(|tag| tag == name || tag.rsplit_once(':').is_some_and(|(_, tag)| tag == name))
        })
    };
    let only = || match images {
        [only] => Some(only),
        _ => None,
    };
    let found = match wanted {
        Wanted::Only => only(),
        Wanted::Called(name) => called(name),
        // The tag alone does not make it the image, unless there is no other.
        Wanted::Named(reference) => images
            .iter()
            .find(|image| image.repo_tags.iter().any(|tag| reference.is_called(tag)))
            .or_else(only),
    };
    found.ok_or_else(|| {
        let names: Vec<_> =
            images.iter().flat_map(|image| image.repo_tags.iter().map(String::as_str)).collect();
        archive.refuse(format!(
            "the image wanted is not in it; it has {} images: {}",
            images.len(),
            names.join(", ")
        ))
    })
}

fn digest_in_name(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix("blobs/sha256/").or_else(|| name.strip_suffix(".json"))?;
    format!("sha256:{hex}").parse().ok()
}
