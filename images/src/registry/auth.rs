//! What registries want to see: a password, or a token, even of strangers, as Docker Hub does.
//!
//! A 401 carries challenges. A bearer's says where to get a token, and for what; the service that gives it is shown the
//! login, if there is one. What was obtained is kept, for each repository and login, until the registry refuses it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http_auth::ChallengeRef;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;

use super::{Asker, check_status, connection, read_document};
use crate::credentials::Login;
use crate::error::Error;
use crate::reference::RemoteImage;

/// Tokens are a few kilobytes; more is not one.
const MAX_TOKEN_ANSWER: u64 = 256 << 10;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    registry: String,
    repository: String,
    login: Option<Login>,
}

/// The values of `Authorization` that were good so far.
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
    pub(super) fn of(asker: &Asker) -> Self {
        let Asker { image, login } = asker;
        Self {
            registry: image.registry.to_string(),
            repository: image.repository.clone(),
            login: login.clone(),
        }
    }
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn get(&self, scope: &Scope) -> Option<String> {
        self.lock().get(scope).cloned()
    }

    /// Answers a challenge with a new authorization, which takes the place of the refused one.
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
        let Some(bearer) = parse_challenge(challenge) else {
            let basic = scope.login.as_ref().and_then(Login::basic).filter(|_| wants_password(challenge));
            // The same again would be refused again.
            let basic = basic.filter(|basic| self.get(scope).as_ref() != Some(basic));
            let basic = basic.ok_or_else(|| refused(words(challenge, scope.login.is_some())))?;
            self.lock().insert(scope.clone(), basic.clone());
            return Ok(basic);
        };
        let mut url = Url::parse(&bearer.realm)
            .map_err(|error| refused(format!("its token service '{}' is no URL: {error}", bearer.realm)))?;
        let wanted = bearer.scope.unwrap_or_else(|| format!("repository:{}:pull", scope.repository));
        let request = match &scope.login {
            // Docker's way to use what a login has left: OAuth2's refresh of a token.
            Some(Login::IdentityToken(token)) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
                form.append_pair("client_id", "tepui").append_pair("scope", &wanted);
                if let Some(service) = &bearer.service {
                    form.append_pair("service", service);
                }
                let kind = "application/x-www-form-urlencoded";
                client.post(url.clone()).header(CONTENT_TYPE, kind).body(form.finish())
            }
            login => {
                url.query_pairs_mut().append_pair("scope", &wanted);
                if let Some(service) = &bearer.service {
                    url.query_pairs_mut().append_pair("service", service);
                }
                let request = client.get(url.clone());
                match login.as_ref().and_then(Login::basic) {
                    Some(basic) => request.header(AUTHORIZATION, basic),
                    None => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| connection(url.as_str(), &error))?;
        let response = check_status(response, image, url.as_str(), what).await?;
        let answer = read_document(response, url.as_str(), MAX_TOKEN_ANSWER).await?;
        let answer: TokenAnswer = serde_json::from_slice(&answer)
            .map_err(|error| refused(format!("its token service gave no token: {error}")))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| refused("its token service gave no token".to_owned()))?;
        let bearer = format!("Bearer {token}");
        self.lock().insert(scope.clone(), bearer.clone());
        Ok(bearer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a password is what a challenge wants.
fn wants_password(header: &str) -> bool {
    let challenges = http_auth::parse_challenges(header).unwrap_or_default();
    challenges.iter().any(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"))
}

/// Why there is nothing to answer a challenge with.
fn words(challenge: &str, has_login: bool) -> String {
    match (wants_password(challenge), has_login) {
        (true, true) => "it does not take the password that this agent has for it".to_owned(),
        (true, false) => "it wants a password, and this agent has none for it (--docker_config)".to_owned(),
        (false, _) => format!("it asks for '{challenge}'"),
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
