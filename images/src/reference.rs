//! Names of images and places of registries, as users write them.
//!
//! [`Reference`] is what a task names: `[REGISTRY[:PORT]/]REPOSITORY[:TAG|@DIGEST]` by the grammar of
//! Docker's distribution project, or an absolute path on this machine. [`RegistryLocation`] is what
//! the agent's `--docker_registry` names: a registry's URL, or a directory of archives.
//! [`NamedReference::resolve`] puts the two together into a [`RemoteImage`], whose key names the image
//! in the store.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::digest::Digest;

/// Docker Hub's registry, which goes by several names.
const DOCKER_HUB: &str = "registry-1.docker.io";
pub(crate) const DOCKER_HUB_NAMES: [&str; 4] =
    ["docker.io", "index.docker.io", "registry.docker.io", DOCKER_HUB];

/// The longest name Docker accepts, in bytes.
const MAX_NAME: usize = 255;

/// An image, as a task names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By name, to be found in a registry or in a directory of archives.
    Named(NamedReference),
    /// An absolute path: a `docker save` archive, an OCI layout's tarball, or an OCI layout directory.
    /// If nothing is at the whole path, what follows its last `:` chooses an image in the archive.
    Local(PathBuf),
}

/// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, each part checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedReference {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text names no image, or no registry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

/// Where images without a registry of their own come from: `--docker_registry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryLocation {
    /// A registry's URL.
    Remote(RegistryUrl),
    /// A directory with archives named `NAME:TAG.tar`, as Mesos' local puller has it, or OCI layouts.
    Directory(PathBuf),
}

/// A registry's scheme and authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryUrl {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// `HOST` or `HOST:PORT`.
    pub authority: String,
}

/// Plain or encrypted HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Not encrypted.
    Http,
    /// Over TLS.
    Https,
}

/// An image in a particular registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RemoteImage {
    pub(crate) registry: RegistryUrl,
    pub(crate) repository: String,
    pub(crate) version: Version,
}

/// Which of a repository's images is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    Tag(String),
    Digest(Digest),
}

// === impl Reference ===

impl Reference {
    /// Reads an absolute path, or a name by Docker's grammar.
    ///
    /// # Errors
    /// When the text is neither; the error says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.starts_with('/') {
            return match text.contains('\0') {
                true => Err(refuse(text, "is not a path: it contains a NUL byte")),
                false => Ok(Self::Local(PathBuf::from(text))),
            };
        }
        NamedReference::parse(text).map(Self::Named)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Local(path) => path.display().fmt(f),
        }
    }
}

// === impl NamedReference ===

impl NamedReference {
    fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(refuse(text, "names no image: it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    refuse(
                        text,
                        "has no valid digest after '@': sha256: and 64 hexadecimal digits are expected",
                    )
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to a registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse(
                text,
                "has no valid tag after ':': up to 128 letters, digits, '_', '.' and '-' are expected",
            ));
        }
        if name.len() > MAX_NAME {
            return Err(refuse(text, "is longer than the 255 characters a name may have"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, repository)) if is_registry_like(first) => (Some(first), repository),
            _ => (None, name),
        };
        if registry.is_some_and(|registry| !is_authority(registry)) {
            return Err(refuse(
                text,
                "has no valid registry before its first '/': HOST or HOST:PORT is expected",
            ));
        }
        if !repository.split('/').all(is_path_component) {
            return Err(refuse(
                text,
                "has no valid repository name: lower-case letters and digits, separated by '/', '.', '_' or '-', are expected",
            ));
        }
        if registry.is_none()
            && digest.is_none()
            && repository.len() == 64
            && repository.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(refuse(text, "is an image id; name the image by repository and tag or digest"));
        }
        Ok(Self {
            registry: registry.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry named, if one is.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The repository as written: without the `library/` that Docker Hub wants.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag named, or `latest`.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// The digest named, if one is. It says more than a tag beside it.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The registry and version that are meant when `default` is the registry of images that name none.
    ///
    /// Mesos' rule for the scheme: port 80 and registries on the loopback are spoken to in plain HTTP, all others
    /// over TLS. A registry that `default` names has `default`'s scheme.
    pub(crate) fn resolve(&self, default: &RegistryUrl) -> RemoteImage {
        let registry = match &self.registry {
            None => default.clone(),
            Some(authority) if *authority == default.authority => default.clone(),
            Some(authority) => {
                let plain =
                    authority.ends_with(":80") || (is_loopback(authority) && !authority.ends_with(":443"));
                RegistryUrl {
                    scheme: if plain { Scheme::Http } else { Scheme::Https },
                    authority: authority.clone(),
                }
            }
        };
        let is_hub = DOCKER_HUB_NAMES.contains(&registry.authority.as_str());
        let registry =
            if is_hub { RegistryUrl { authority: DOCKER_HUB.to_owned(), ..registry } } else { registry };
        // Docker Hub keeps the official images under library/.
        let repository = if is_hub && !self.repository.contains('/') {
            format!("library/{}", self.repository)
        } else {
            self.repository.clone()
        };
        let version = match &self.digest {
            Some(digest) => Version::Digest(digest.clone()),
            None => Version::Tag(self.tag().to_owned()),
        };
        RemoteImage { registry, repository, version }
    }

    /// Whether an archive's own name for an image (`busybox:1.36`, `docker.io/library/busybox:1.36`, or just a tag) is this one's.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        if name == self.tag() {
            return true;
        }
        Self::parse(name).is_ok_and(|other| {
            let hub = RegistryUrl::docker_hub();
            let (mine, other) = (self.resolve(&hub), other.resolve(&hub));
            mine.version == other.version
                && mine.repository.trim_start_matches("library/")
                    == other.repository.trim_start_matches("library/")
        })
    }
}

impl fmt::Display for NamedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

// === impl RegistryLocation ===

impl RegistryLocation {
    /// Reads the value of `--docker_registry`: `https://HOST[:PORT]`, `http://HOST[:PORT]`, or an absolute directory.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.starts_with('/') {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        if text.starts_with("hdfs://") {
            return Err(refuse(
                text,
                "is in HDFS, which is not implemented; name a registry's URL or a directory",
            ));
        }
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else {
            return Err(refuse(
                text,
                "is no registry: https://HOST[:PORT], http://HOST[:PORT] or an absolute directory is expected",
            ));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if !is_authority(authority) {
            return Err(refuse(text, "is no registry: only HOST or HOST:PORT may follow the scheme"));
        }
        Ok(Self::Remote(RegistryUrl { scheme, authority: authority.to_owned() }))
    }

    /// The directory, if this is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Remote(_) => None,
        }
    }
}

impl Default for RegistryLocation {
    /// Mesos' default, `https://registry-1.docker.io`.
    fn default() -> Self {
        Self::Remote(RegistryUrl::docker_hub())
    }
}

// === impl RegistryUrl ===

impl RegistryUrl {
    pub(crate) fn docker_hub() -> Self {
        Self { scheme: Scheme::Https, authority: DOCKER_HUB.to_owned() }
    }

    /// Whether it is on this machine's loopback, so that no proxy can be meant.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.authority)
    }
}

/// `https://HOST[:PORT]` or `http://HOST[:PORT]`.
impl FromStr for RegistryUrl {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match RegistryLocation::parse(text)? {
            RegistryLocation::Remote(url) => Ok(url),
            RegistryLocation::Directory(_) => {
                Err(refuse(text, "is a directory; https://HOST[:PORT] or http://HOST[:PORT] is expected"))
            }
        }
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

// === impl RemoteImage ===

impl RemoteImage {
    /// The name under which the store keeps the image. The same for all spellings of one image.
    pub(crate) fn key(&self) -> String {
        let Self { registry, repository, version } = self;
        match version {
            Version::Tag(tag) => format!("{registry}/{repository}:{tag}"),
            Version::Digest(digest) => format!("{registry}/{repository}@{digest}"),
        }
    }
}

impl fmt::Display for RemoteImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())
    }
}

// === the grammar ===

fn refuse(text: &str, reason: &'static str) -> ReferenceError {
    ReferenceError { text: text.chars().take(300).collect(), reason }
}

/// Docker's way to tell a registry from the first part of a repository.
fn is_registry_like(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_authority(text: &str) -> bool {
    let (host, port) = split_port(text);
    if port
        .is_some_and(|port| port.parse::<u16>().is_err() || !port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_loopback(authority: &str) -> bool {
    let (host, _) = split_port(authority);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// Runs of lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.chunk_by(|a, b| alphanumeric(*a) == alphanumeric(*b)).all(|run| match run {
            [first, ..] if alphanumeric(*first) => true,
            b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|byte| *byte == b'-'),
        })
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
