//! The flags of registries of images: as whom they are asked, and how far they are trusted.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use tepui_images::{Credentials, RegistryUrl};

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

    /// The logins that are given.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
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
