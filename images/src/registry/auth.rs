//! Tokens for registries that want one even from strangers, as Docker Hub does.
//!
//! A 401 carries a challenge: where to get a token, and for what. The token is kept until the registry
//! refuses it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http_auth::ChallengeRef;
use reqwest::Url;
use serde::Deserialize;

use super::{check_status, connection, read_document};
use crate::error::Error;
use crate::reference::RemoteImage;

/// Tokens are a few kilobytes; more is not one.
const MAX_TOKEN_ANSWER: u64 = 256 << 10;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    registry: String,
    repository: String,
}

/// The tokens obtained so far.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<HashMap<Scope, String>>,
}

/// What a bearer challenge says.
#[derive(Debug, PartialEq, Eq)]
struct Bearer {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

// === impl Scope ===

impl Scope {
    pub(super) fn of(image: &RemoteImage) -> Self {
        Self { registry: image.registry.to_string(), repository: image.repository.clone() }
    }
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn get(&self, scope: &Scope) -> Option<String> {
        self.lock().get(scope).cloned()
    }

    /// Answers a challenge with a new token, which takes the place of the refused one.
    pub(super) async fn obtain(
        &self,
        client: &reqwest::Client,
        scope: &Scope,
        challenge: &str,
        image: &RemoteImage,
        what: &str,
    ) -> Result<String, Error> {
        let refused = |reason: String| Error::Unauthorized {
            what: what.to_owned(),
            registry: scope.registry.clone(),
            reason,
        };
        let bearer =
            parse_challenge(challenge).ok_or_else(|| refused(format!("it asks for '{challenge}'")))?;
        let mut url = Url::parse(&bearer.realm)
            .map_err(|error| refused(format!("its token service '{}' is no URL: {error}", bearer.realm)))?;
        let wanted = bearer.scope.unwrap_or_else(|| format!("repository:{}:pull", scope.repository));
        url.query_pairs_mut().append_pair("scope", &wanted);
        if let Some(service) = &bearer.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let response =
            client.get(url.clone()).send().await.map_err(|error| connection(url.as_str(), &error))?;
        let response = check_status(response, image, url.as_str(), what).await?;
        let answer = read_document(response, url.as_str(), MAX_TOKEN_ANSWER).await?;
        let answer: TokenAnswer = serde_json::from_slice(&answer)
            .map_err(|error| refused(format!("its token service gave no token: {error}")))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| refused("its token service gave no token".to_owned()))?;
        self.lock().insert(scope.clone(), token.clone());
        Ok(token)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse_challenge(header: &str) -> Option<Bearer> {
    http_auth::parse_challenges(header)
        .ok()?
        .iter()
        .filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"))
        .find_map(|challenge| {
            let parameter = |name| parameter(challenge, name);
            Some(Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
                scope: parameter("scope"),
            })
        })
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    challenge
        .params
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_unescaped())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bearer_challenges_are_read() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#;
        let expected = Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:library/busybox:pull".into()),
        };
        assert_eq!(parse_challenge(header), Some(expected));
        assert_eq!(parse_challenge("Basic realm=\"x\""), None);
        assert_eq!(parse_challenge(""), None);
        assert!(parse_challenge(r#"Basic realm="x", Bearer realm="http://y""#).is_some());
    }

    proptest! {
        #[test]
        fn challenges_never_panic(header in "\\PC{0,200}") {
            let _ = parse_challenge(&header);
        }
    }
}
