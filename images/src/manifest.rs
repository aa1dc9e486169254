//! Manifests and indexes, Docker's (schema 2) and OCI's, and the choice of a platform.
//!
//! All functions here are pure: [`crate::registry`] and [`crate::archive`] fetch the documents.

use std::fmt;

use serde::Deserialize;

use crate::config::{ConfigDocument, ImageConfig, null_as_default};
use crate::digest::Digest;
use crate::error::Error;

/// Media types asked for, best first.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest, index or config that is read, in bytes. Docker's registries refuse manifests over 4 MiB.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// How many indexes may lead to one another. One is usual; two occur.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;

/// More layers than any builder makes (Docker stops at 127) and than overlayfs stacks (500).
const MAX_LAYERS: usize = 500;

/// What kind of machine an image is for, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
}

/// A pointer to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<DescriptorPlatform>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DescriptorPlatform {
    #[serde(default, deserialize_with = "null_as_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    variant: String,
}

/// What a manifest's bytes turned out to be.
#[derive(Debug)]
pub(crate) enum Manifest {
    Image(ImageManifest),
    Index(Index),
}

#[derive(Debug)]
pub(crate) struct ImageManifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

/// An image resolved to its config and its layers' diff ids, lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The digest of the config: what Docker calls the image id.
    pub(crate) id: Digest,
    /// The digest of the manifest, where there is one.
    pub(crate) manifest: Option<Digest>,
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    media_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde_json::Value>,
}

// === impl Manifest ===

impl Manifest {
    /// Reads a manifest or an index; `what` names it in errors.
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Malformed { what: format!("the manifest of {what}"), reason };
        let document: Document = serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if document.schema_version == 1 || document.fs_layers.is_some() {
            return Err(Error::SchemaOne { what: what.to_owned() });
        }
        if document.schema_version != 2 {
            return Err(refuse(format!(
                "it has schema version {} where 2 is expected",
                document.schema_version
            )));
        }
        match document {
            Document { manifests: Some(_), layers: Some(_), .. } => {
                Err(refuse("it is both an index and an image's manifest".to_owned()))
            }
            Document { manifests: Some(manifests), .. } => Ok(Self::Index(Index { manifests })),
            Document { config: Some(config), layers, media_type, .. } => {
                check_is_image(&media_type, &config).map_err(refuse)?;
                let layers = layers.unwrap_or_default();
                if layers.len() > MAX_LAYERS {
                    return Err(refuse(format!(
                        "it has {} layers; at most {MAX_LAYERS} can be stacked",
                        layers.len()
                    )));
                }
                Ok(Self::Image(ImageManifest { config, layers }))
            }
            _ => Err(refuse("it has neither a config nor manifests".to_owned())),
        }
    }
}

/// Charts, signatures and the like are stored as manifests too, but cannot be run.
fn check_is_image(media_type: &str, config: &Descriptor) -> Result<(), String> {
    let known_manifest = [
        "",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ];
    let known_config = [
        "",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        "application/octet-stream",
    ];
    if !known_manifest.contains(&media_type) {
        return Err(format!("its media type {media_type} is not an image's"));
    }
    if !known_config.contains(&config.media_type.as_str()) {
        return Err(format!("it is an artifact of type {} and not a container image", config.media_type));
    }
    Ok(())
}

// === impl Index ===

impl Index {
    /// The entry for `platform`: an exact one, or the only one that names no platform.
    pub(crate) fn choose(&self, platform: &Platform, what: &str) -> Result<&Descriptor, Error> {
        let exact = self
            .manifests
            .iter()
            .find(|entry| entry.platform.as_ref().is_some_and(|found| found.suits(platform)));
        if let Some(entry) = exact {
            return Ok(entry);
        }
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let found: Vec<_> = self
            .manifests
            .iter()
            .map(|entry| {
                entry.platform.as_ref().map_or("one of no named platform".to_owned(), ToString::to_string)
            })
            .collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        Err(Error::NoPlatform { what: what.to_owned(), wanted: platform.to_string(), found })
    }
}

impl DescriptorPlatform {
    fn suits(&self, platform: &Platform) -> bool {
        self.os == platform.os && self.architecture == platform.architecture
    }
}

impl fmt::Display for DescriptorPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

// === impl Platform ===

impl Platform {
    /// Linux on the architecture this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            same => same,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

// === impl Resolved ===

impl Resolved {
    /// Reads the config and checks that it speaks of as many layers as there are.
    pub(crate) fn new(
        config: &[u8],
        manifest: Option<Digest>,
        layers: usize,
        what: &str,
        platform: &Platform,
    ) -> Result<Self, Error> {
        let document = ConfigDocument::parse(config, what)?;
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() != layers {
            return Err(Error::Malformed {
                what: what.to_owned(),
                reason: format!("its config has {} diff ids for {layers} layers", diff_ids.len()),
            });
        }
        if !document.os.is_empty() && document.os != platform.os {
            return Err(Error::NoPlatform {
                what: what.to_owned(),
                wanted: platform.to_string(),
                found: format!("{}/{}", document.os, document.architecture),
            });
        }
        if !document.architecture.is_empty() && document.architecture != platform.architecture {
            tracing::warn!(
                image = what,
                architecture = document.architecture,
                "The image is made for another architecture than this machine's."
            );
        }
        Ok(Self { id: Digest::of(config), manifest, config: document.config, diff_ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":3}}"#, Digest::of(b"abc"))
    }

    fn entry(os: &str, architecture: &str, content: &str) -> String {
        format!(
            r#"{{"digest":"{}","size":3,"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
            Digest::of(content.as_bytes())
        )
    }

    fn index(entries: &[String]) -> Index {
        match Manifest::parse(
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).as_bytes(),
            "x",
        )
        .unwrap()
        {
            Manifest::Index(index) => index,
            Manifest::Image(_) => panic!("an index is expected"),
        }
    }

    #[test]
    fn docker_and_oci_manifests_are_read() {
        for config in
            ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"]
        {
            let json = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                descriptor(config),
                descriptor("")
            );
            assert!(
                matches!(Manifest::parse(json.as_bytes(), "x").unwrap(), Manifest::Image(image) if image.layers.len() == 1)
            );
        }
    }

    #[test]
    fn the_hosts_platform_is_chosen() {
        let all = index(&[
            entry("linux", "arm64", "a"),
            entry("linux", "amd64", "b"),
            entry("unknown", "unknown", "c"),
        ]);
        let platform = Platform { os: "linux".into(), architecture: "amd64".into() };
        assert_eq!(all.choose(&platform, "x").unwrap().digest, Digest::of(b"b"));
        let other = Platform { os: "linux".into(), architecture: "s390x".into() };
        let error = all.choose(&other, "x").unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && error.contains("linux/arm64"), "{error}");
        assert!(index(&[descriptor("")]).choose(&other, "x").is_ok());
        assert!(index(&[]).choose(&other, "x").unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_words() {
        let schema_one = br#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#;
        assert!(matches!(Manifest::parse(schema_one, "x"), Err(Error::SchemaOne { .. })));
        let chart = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
            descriptor("application/vnd.cncf.helm.config.v1+json")
        );
        assert!(Manifest::parse(chart.as_bytes(), "x").unwrap_err().to_string().contains("helm"));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":3}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"config":{"digest":"sha256:zz","size":1}}"#,
        ] {
            assert!(matches!(Manifest::parse(bad.as_bytes(), "x"), Err(Error::Malformed { .. })), "{bad}");
        }
        let negative =
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":-1}}}}"#, Digest::of(b""));
        assert!(Manifest::parse(negative.as_bytes(), "x").is_err());
    }

    #[test]
    fn diff_ids_and_layers_must_be_as_many() {
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, Digest::of(b"a"));
        let platform = Platform::host();
        assert!(Resolved::new(config.as_bytes(), None, 1, "x", &platform).is_ok());
        assert!(
            Resolved::new(config.as_bytes(), None, 2, "x", &platform)
                .unwrap_err()
                .to_string()
                .contains("1 diff ids for 2 layers")
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[\\[\\]{}\":,a-zA-Z0-9]{0,200}") {
            let _ = Manifest::parse(&bytes, "x");
            let _ = Manifest::parse(text.as_bytes(), "x");
            let _ = Resolved::new(text.as_bytes(), None, 0, "x", &Platform::host());
        }
    }
}
