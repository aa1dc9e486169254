//! Who this agent is for registries: the logins of a Docker `config.json`.
//!
//! Docker's client writes `auths`, by registry: `auth`, the base64 of `user:password`; or both as they are; or an `identitytoken`, which a token
//! service takes for a token. Programs that keep logins elsewhere (`credHelpers`, `credsStore`) are not run.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::reference::{DOCKER_HUB_NAMES, RegistryUrl};

/// Logins by registry. Their text shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// By `HOST` or `HOST:PORT`; all names of Docker Hub are one.
    logins: BTreeMap<String, Login>,
}

/// How to show who one is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Login {
    /// To the registry, or to the token service that it names.
    Password {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// To a token service that knows what was granted before.
    IdentityToken(String),
}

/// The text is no `config.json`. Says nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No JSON, or not of that form.
    #[error(
        "it must be a Docker config.json, such as {{\"auths\": {{\"HOST:PORT\": {{\"auth\": \"BASE64 OF USER:PASSWORD\"}}}}}}: line {line}, column {column} is not"
    )]
    Json {
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// One registry's `auth` is not what it should be.
    #[error("the 'auth' of '{0}' is not the base64 of USER:PASSWORD")]
    Auth(String),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, alias = "identityToken")]
    identitytoken: String,
}

// === impl Credentials ===

impl Credentials {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(json: &[u8]) -> Result<Self, CredentialsError> {
        let file: File = serde_json::from_slice(json)
            .map_err(|error| CredentialsError::Json { line: error.line(), column: error.column() })?;
        let mut logins = BTreeMap::new();
        for (registry, entry) in file.auths {
            if let Some(login) = login(&registry, entry)? {
                logins.insert(host_of(&registry), login);
            }
        }
        Ok(Self { logins })
    }

    /// The login for a registry, if there is one.
    pub(crate) fn of(&self, registry: &RegistryUrl) -> Option<&Login> {
        self.logins.get(&host_of(&registry.authority))
    }

    /// The user and password for the registry of an image, by the name that Docker gives it.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<&Login> {
        self.logins.get(&host_of(host))
    }
}

fn login(registry: &str, entry: Entry) -> Result<Option<Login>, CredentialsError> {
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Login::IdentityToken(entry.identitytoken)));
    }
    if entry.auth.is_empty() {
        let Entry { username: user, password, .. } = entry;
        return Ok((!user.is_empty()).then_some(Login::Password { user, password }));
    }
    let auth = entry.auth.trim();
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok();
    // Docker's client takes zero bytes at the end for padding.
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = text.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (user, password) = pair.ok_or_else(|| CredentialsError::Auth(registry.to_owned()))?;
    Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }))
}

/// `https://index.docker.io/v1/`, `HOST:PORT`, `HOST/v2`: the part that names the registry.
fn host_of(registry: &str) -> String {
    let rest = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    if DOCKER_HUB_NAMES.contains(&host.as_str()) { DOCKER_HUB_NAMES[0].to_owned() } else { host }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.logins.keys()).finish()
    }
}

// === impl Login ===

impl Login {
    /// The header that shows it, where a password does.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::IdentityToken(_) => None,
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(authority: &str) -> RegistryUrl {
        RegistryUrl { scheme: crate::reference::Scheme::Https, authority: authority.to_owned() }
    }

    #[test]
    fn logins_are_found_as_docker_finds_them() {
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"},
            "Example.com:5000": {"username": "c", "password": "d:e"},
            "http://token.example/v2/": {"identitytoken": "t"},
            "empty.example": {}
        }, "HttpHeaders": {}}"#;
        let all = Credentials::parse(json.as_bytes()).unwrap();
        let password =
            |user: &str, password: &str| Login::Password { user: user.into(), password: password.into() };
        assert_eq!(all.of(&url("registry-1.docker.io")), Some(&password("a", "b")));
        assert_eq!(all.of(&url("example.com:5000")), Some(&password("c", "d:e")));
        assert_eq!(all.of(&url("token.example")), Some(&Login::IdentityToken("t".into())));
        assert_eq!(all.of(&url("empty.example")), None);
        assert_eq!(all.of(&url("example.com")), None);
        assert_eq!(password("a", "b").basic().unwrap(), "Basic YTpi");
        let shown = format!("{all:?} {:?}", all.of(&url("example.com:5000")));
        assert!(!shown.contains("d:e") && !shown.contains("YTpi"), "{shown}");
    }

    #[test]
    fn errors_show_no_secret() {
        for json in [
            r#"{"auths": {"h": {"auth": "s3cret"}}}"#,
            r#"{"auths": {"h": {"auth": "czNjcmV0"}}}"#,
            r#"{"auths": {"h": "s3cret"}}"#,
            "s3cret",
        ] {
            let error = Credentials::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(json in "\\PC{0,60}", host in "\\PC{0,30}") {
            let _ = Credentials::parse(json.as_bytes());
            let _ = host_of(&host);
        }
    }
}
