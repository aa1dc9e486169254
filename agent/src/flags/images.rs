//! The flags of registries of images: as whom they are asked, and how far they are trusted; and when images are removed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tepui_api::v1::{Image, image};
use tepui_images::{Credentials, RegistryOptions, RegistryUrl};

/// The flags of registries.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Images")]
pub struct RegistryFlags {
    /// Logins of registries: a Docker config.json, or the absolute path or file:// URL of one
    #[arg(long = "docker_config", value_name = "JSON|PATH")]
    pub docker_config: Option<DockerConfig>,

    /// Directory with one of the name HOST[:PORT] for each registry whose certificate is not signed by an authority that this machine trusts; the *.crt in
    /// it are the authorities for that registry. Not a flag of Mesos
    #[arg(long = "docker_certs_dir", value_name = "DIR", default_value = "/etc/docker/certs.d")]
    pub docker_certs_dir: PathBuf,

    /// Registries, as HOST[:PORT], that are spoken to without TLS. Those on this machine's loopback are anyway. Not a flag of Mesos
    #[arg(long = "docker_insecure_registries", value_name = "HOSTS", value_delimiter = ',')]
    pub docker_insecure_registries: Vec<String>,

    /// URLs of registries that are asked for Docker Hub's images first, in this order. Not a flag of Mesos
    #[arg(long = "docker_registry_mirrors", value_name = "URLS", value_delimiter = ',')]
    pub docker_registry_mirrors: Vec<RegistryUrl>,
}

/// When images that no container uses are removed: Mesos' `ImageGcConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageGc {
    text: String,
    /// When less than this share of the store's disk is free.
    pub headroom: f64,
    /// How often that is looked at.
    pub interval: Duration,
    /// What is kept all the same.
    pub excluded: Vec<Image>,
}

/// Why that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ImageGcError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error(
        "it must be JSON such as {{\"image_disk_headroom\": 0.1, \"image_disk_watch_interval\": {{\"nanoseconds\": 3600000000000}}, \"excluded_images\": []}}: {0}"
    )]
    Json(#[from] serde_json::Error),
    /// Nonsense.
    #[error("{0}")]
    Range(&'static str),
}

#[derive(Deserialize)]
struct ImageGcText {
    #[serde(default = "tenth")]
    image_disk_headroom: f64,
    #[serde(default = "hour")]
    image_disk_watch_interval: Nanoseconds,
    #[serde(default)]
    excluded_images: Vec<Excluded>,
}

#[derive(Deserialize)]
struct Nanoseconds {
    nanoseconds: i64,
}

#[derive(Deserialize)]
struct Excluded {
    docker: ExcludedDocker,
}

#[derive(Deserialize)]
struct ExcludedDocker {
    name: String,
}

/// Mesos' defaults.
fn tenth() -> f64 {
    0.1
}

fn hour() -> Nanoseconds {
    Nanoseconds { nanoseconds: 3_600_000_000_000 }
}

/// A Docker config.json; shown as the path that it was read from, and otherwise not at all.
#[derive(Clone, PartialEq, Eq)]
pub struct DockerConfig {
    path: Option<String>,
    credentials: Arc<Credentials>,
}

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error(transparent)]
    Config(#[from] tepui_images::CredentialsError),
}

// === impl RegistryFlags ===

impl RegistryFlags {
    /// Each flag that has a value, with that value as text, sorted by name.
    pub(super) fn table(&self) -> [(&'static str, Option<String>); 4] {
        let mirrors: Vec<_> = self.docker_registry_mirrors.iter().map(ToString::to_string).collect();
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
        [
            ("docker_certs_dir", Some(self.docker_certs_dir.display().to_string())),
            ("docker_config", self.docker_config.as_ref().map(ToString::to_string)),
            ("docker_insecure_registries", list(&self.docker_insecure_registries)),
            ("docker_registry_mirrors", list(&mirrors)),
        ]
    }

    /// How registries are spoken to.
    #[must_use]
    pub fn options(&self) -> RegistryOptions {
        RegistryOptions {
            certificates: Some(self.docker_certs_dir.clone()),
            plain: self.docker_insecure_registries.iter().cloned().collect(),
            mirrors: self.docker_registry_mirrors.clone(),
            ..RegistryOptions::default()
        }
    }

    /// The logins that are given.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        self.docker_config.as_ref().map(|config| Arc::clone(&config.credentials)).unwrap_or_default()
    }
}

// === impl DockerConfig ===

impl FromStr for DockerConfig {
    type Err = DockerConfigError;

    fn from_str(text: &str) -> Result<Self, DockerConfigError> {
        let path = text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text));
        let Some(path) = path else {
            return Ok(Self { path: None, credentials: Arc::new(Credentials::parse(text.as_bytes())?) });
        };
        let json = std::fs::read(path)
            .map_err(|source| DockerConfigError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: Some(path.to_owned()), credentials: Arc::new(Credentials::parse(&json)?) })
    }
}

impl fmt::Display for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.path.as_deref().unwrap_or("(given)"))
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "DockerConfig({self})")
    }
}

// === impl ImageGc ===

impl FromStr for ImageGc {
    type Err = ImageGcError;

    fn from_str(text: &str) -> Result<Self, ImageGcError> {
        let path = text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text));
        let json = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ImageGcError::Read { path: path.to_owned(), source })?,
            None => text.to_owned(),
        };
        let given: ImageGcText = serde_json::from_str(&json)?;
        if !(0.0..=1.0).contains(&given.image_disk_headroom) {
            return Err(ImageGcError::Range("image_disk_headroom must be a number between 0 and 1"));
        }
        let interval = u64::try_from(given.image_disk_watch_interval.nanoseconds).ok().filter(|ns| *ns > 0);
        let interval =
            interval.ok_or(ImageGcError::Range("image_disk_watch_interval must be longer than nothing"))?;
        let image = |excluded: Excluded| Image {
            r#type: image::Type::Docker as i32,
            docker: Some(image::Docker { name: excluded.docker.name, ..image::Docker::default() }),
            ..Image::default()
        };
        Ok(Self {
            text: text.to_owned(),
            headroom: given.image_disk_headroom,
            interval: Duration::from_nanos(interval),
            excluded: given.excluded_images.into_iter().map(image).collect(),
        })
    }
}

impl fmt::Display for ImageGc {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gc_s_config_is_mesos() {
        let gc: ImageGc = "{}".parse().unwrap();
        assert_eq!((gc.headroom, gc.interval, gc.excluded.len()), (0.1, Duration::from_secs(3600), 0));
        let text = r#"{"image_disk_headroom": 1, "image_disk_watch_interval": {"nanoseconds": 5},
                       "excluded_images": [{"type": "DOCKER", "docker": {"name": "a:1"}}]}"#;
        let gc: ImageGc = text.parse().unwrap();
        assert_eq!((gc.headroom, gc.interval.as_nanos()), (1.0, 5));
        assert_eq!(gc.excluded[0].docker.as_ref().unwrap().name, "a:1");
        for (text, words) in [
            ("x", "must be JSON"),
            (r#"{"image_disk_headroom": 2}"#, "between 0 and 1"),
            (r#"{"image_disk_watch_interval": {"nanoseconds": 0}}"#, "longer"),
            ("/no/such/file", "cannot be read"),
        ] {
            let error = text.parse::<ImageGc>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
