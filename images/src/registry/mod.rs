//! Speaks to registries by the OCI distribution specification.
//!
//! [`RegistryClient::resolve`] follows indexes to the manifest and config for this machine;
//! [`RegistryClient::fetch_blob`] (in [`blob`]) streams a layer's bytes to the thread that unpacks it. Each request is
//! repeated after transient failures ([`retry`]); a 401 is answered by the token its challenge asks
//! for ([`auth`]). Documents are read only up to a limit, and believed only when their digest is right.

mod auth;
mod blob;
mod retry;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};

use crate::credentials::Login;
use crate::digest::Digest;
use crate::error::Error;
use crate::http::{self, causes};
use crate::manifest::{ACCEPTED, Descriptor, MAX_DOCUMENT, MAX_INDEX_DEPTH, Manifest, Platform, Resolved};
use crate::reference::{RegistryUrl, RemoteImage, Scheme, Version};

/// How patient pulls from registries are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub read_timeout: Duration,
    /// Attempts for each document and blob; a blob goes on where it broke off.
    pub attempts: u32,
    /// Pause after the first failure; it doubles with each further one.
    pub first_backoff: Duration,
    /// Longest pause between attempts.
    pub max_backoff: Duration,
    /// A directory with one of the name `HOST[:PORT]` for each registry with authorities of its own, as Docker has it: the `*.crt` in it.
    pub certificates: Option<PathBuf>,
    /// Registries (`HOST[:PORT]`) that are spoken to without TLS.
    pub plain: BTreeSet<String>,
    /// Asked for Docker Hub's images before Docker Hub is, in this order.
    pub mirrors: Vec<RegistryUrl>,
}

/// An image of a registry, and as whom it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) image: RemoteImage,
    pub(crate) login: Option<Login>,
}

/// A client for all registries.
pub(crate) struct RegistryClient {
    options: RegistryOptions,
    tokens: auth::Tokens,
    clients: Clients,
}

/// HTTP clients, made when first needed: a machine without certificate authorities can still use plain registries.
#[derive(Default)]
struct Clients {
    tls: OnceLock<reqwest::Client>,
    plain: OnceLock<reqwest::Client>,
    loopback_tls: OnceLock<reqwest::Client>,
    loopback_plain: OnceLock<reqwest::Client>,
    /// Of registries with authorities of their own, by `HOST[:PORT]`.
    own: Mutex<HashMap<String, reqwest::Client>>,
}

// === impl RegistryOptions ===

impl Default for RegistryOptions {
    /// 10 s to connect, 60 s without a byte, 6 attempts with pauses from 250 ms to 10 s.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            attempts: 6,
            first_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(10),
            certificates: None,
            plain: BTreeSet::new(),
            mirrors: Vec::new(),
        }
    }
}

// === impl RegistryClient ===

impl RegistryClient {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        http::install_crypto();
        Self { options, tokens: auth::Tokens::default(), clients: Clients::default() }
    }

    /// Finds the image's config and layers for `platform`, following indexes.
    pub(crate) async fn resolve(
        &self,
        asker: &Asker,
        platform: &Platform,
    ) -> Result<(Resolved, Vec<Descriptor>), Error> {
        let what = asker.image.to_string();
        let mut version = asker.image.version.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            let (bytes, digest) =
                retry::retrying(&self.options, || self.fetch_manifest(asker, &version)).await?;
            match Manifest::parse(&bytes, &what)? {
                Manifest::Index(index) => {
                    version = Version::Digest(index.choose(platform, &what)?.digest.clone())
                }
                Manifest::Image(manifest) => {
                    let config =
                        retry::retrying(&self.options, || self.fetch_config(asker, &manifest.config)).await?;
                    let resolved =
                        Resolved::new(&config, Some(digest), manifest.layers.len(), &what, platform)?;
                    return Ok((resolved, manifest.layers));
                }
            }
        }
        Err(Error::Malformed {
            what,
            reason: format!("more than {MAX_INDEX_DEPTH} indexes lead to one another"),
        })
    }

    async fn fetch_manifest(&self, asker: &Asker, version: &Version) -> Result<(Vec<u8>, Digest), Error> {
        let image = &asker.image;
        let name = match version {
            Version::Tag(tag) => tag.as_str(),
            Version::Digest(digest) => digest.as_str(),
        };
        let url = format!("{}/v2/{}/manifests/{name}", image.registry, image.repository);
        let response = self.get(asker, &url, None, &image.to_string()).await?;
        let bytes = read_document(response, &url, MAX_DOCUMENT).await?;
        let actual = match version {
            Version::Digest(expected) if !expected.matches(&bytes) => {
                let mut hasher = expected.hasher();
                hasher.update(&bytes);
                return Err(Error::WrongDigest {
                    what: format!("the manifest of {image}"),
                    expected: expected.clone(),
                    actual: hasher.finish(),
                });
            }
            Version::Digest(expected) => expected.clone(),
            Version::Tag(_) => Digest::of(&bytes),
        };
        Ok((bytes, actual))
    }

    async fn fetch_config(&self, asker: &Asker, config: &Descriptor) -> Result<Vec<u8>, Error> {
        let image = &asker.image;
        let what = format!("the config of {image}");
        if config.size > MAX_DOCUMENT {
            return Err(Error::Malformed {
                what,
                reason: format!("it has {} bytes; at most {MAX_DOCUMENT} are read", config.size),
            });
        }
        let url = blob_url(image, &config.digest);
        let response = self.get(asker, &url, None, &what).await?;
        let bytes = read_document(response, &url, config.size).await?;
        if (bytes.len() as u64) < config.size {
            return Err(Error::BrokenOff { what, got: bytes.len() as u64, expected: config.size });
        }
        if !config.digest.matches(&bytes) {
            return Err(Error::WrongDigest {
                what,
                expected: config.digest.clone(),
                actual: Digest::of(&bytes),
            });
        }
        Ok(bytes)
    }

    /// One GET, authorized as the registry wanted it last for the repository, or anew if it asks for that.
    async fn get(&self, asker: &Asker, url: &str, from: Option<u64>, what: &str) -> Result<Response, Error> {
        let image = &asker.image;
        let client = self.clients.for_image(image, &self.options)?;
        let scope = auth::Scope::of(asker);
        let send = |authorization: Option<String>| {
            let mut request = client.get(url).header(ACCEPT, ACCEPTED);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            request.send()
        };
        let response = send(self.tokens.get(&scope)).await.map_err(|error| connection(url, &error))?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return check_status(response, image, url, what).await;
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge: Vec<_> = challenges.filter_map(|value| value.to_str().ok()).collect();
        let authorization = self.tokens.obtain(&client, &scope, &challenge.join(", "), image, what).await?;
        let response = send(Some(authorization)).await.map_err(|error| connection(url, &error))?;
        check_status(response, image, url, what).await
    }
}

// === impl Clients ===

impl Clients {
    fn for_image(&self, image: &RemoteImage, options: &RegistryOptions) -> Result<reqwest::Client, Error> {
        let (scheme, is_loopback) = (image.registry.scheme, image.registry.is_loopback());
        let authority = &image.registry.authority;
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = own.get(authority) {
            return Ok(client.clone());
        }
        let authorities = match (scheme, &options.certificates) {
            (Scheme::Https, Some(directory)) => authorities(&directory.join(authority))?,
            _ => Vec::new(),
        };
        if !authorities.is_empty() {
            let builder = builder(scheme, is_loopback, options).tls_certs_merge(authorities);
            let client = builder.build().map_err(|error| Error::Tls { reason: causes(&error) })?;
            own.insert(authority.clone(), client.clone());
            return Ok(client);
        }
        drop(own);
        let cell = match (scheme, is_loopback) {
            (Scheme::Https, false) => &self.tls,
            (Scheme::Http, false) => &self.plain,
            (Scheme::Https, true) => &self.loopback_tls,
            (Scheme::Http, true) => &self.loopback_plain,
        };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let client = builder(scheme, is_loopback, options).build();
        let client = client.map_err(|error| Error::Tls { reason: causes(&error) })?;
        Ok(cell.get_or_init(|| client).clone())
    }
}

fn builder(scheme: Scheme, is_loopback: bool, options: &RegistryOptions) -> reqwest::ClientBuilder {
    let builder = http::builder(is_loopback, options.connect_timeout, options.read_timeout);
    match scheme {
        // No certificate is ever checked by this client, and loading those of the system may fail.
        Scheme::Http => builder.tls_certs_only([]),
        Scheme::Https => builder,
    }
}

/// The authorities of one registry: none without its directory.
fn authorities(directory: &Path) -> Result<Vec<reqwest::Certificate>, Error> {
    let read = match std::fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the directory", directory)(error)),
    };
    let mut all = Vec::new();
    for entry in read {
        let path = entry.map_err(Error::io("read the directory", directory))?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            let pem = std::fs::read(&path).map_err(Error::io("read", &path))?;
            let bundle = reqwest::Certificate::from_pem_bundle(&pem);
            all.extend(
                bundle.map_err(|error| Error::Tls {
                    reason: format!("{}: {}", path.display(), causes(&error)),
                })?,
            );
        }
    }
    Ok(all)
}

fn blob_url(image: &RemoteImage, digest: &Digest) -> String {
    format!("{}/v2/{}/blobs/{digest}", image.registry, image.repository)
}

/// Turns a status that is no success into the error it means.
async fn check_status(
    response: Response,
    image: &RemoteImage,
    url: &str,
    what: &str,
) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let registry = image.registry.to_string();
    let body = read_start(response).await;
    Err(match status {
        StatusCode::NOT_FOUND => Error::NotFound { what: what.to_owned(), registry },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::Unauthorized { what: what.to_owned(), registry, reason: format!("{status}: {body}") }
        }
        _ => Error::Status { url: url.to_owned(), status: status.as_u16(), message: body, retry_after },
    })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The beginning of an error's body, for a person to read.
async fn read_start(mut response: Response) -> String {
    let mut start = Vec::new();
    while start.len() < 500
        && let Ok(Some(piece)) = response.chunk().await
    {
        start.extend_from_slice(&piece);
    }
    start.truncate(500);
    String::from_utf8_lossy(&start).trim().to_owned()
}

/// A whole body of at most `limit` bytes.
async fn read_document(mut response: Response, url: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| connection(url, &error))? {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(Error::Malformed {
                what: url.to_owned(),
                reason: format!("it has more than the {limit} bytes it may have"),
            });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn connection(url: &str, error: &reqwest::Error) -> Error {
    Error::Connection { url: url.to_owned(), reason: causes(error) }
}
