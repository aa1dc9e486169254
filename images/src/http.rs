//! HTTP and HTTPS as a client: what the registry's client has in common with [`HttpClient`], which gets any file.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Response, redirect};

use crate::pieces::PieceSender;

/// Gets files by HTTP and HTTPS, through a proxy if the environment names one (`http_proxy`, `https_proxy`, `no_proxy`).
#[derive(Debug)]
pub struct HttpClient {
    /// Longest time without a byte.
    stall: Duration,
    /// Made when first needed.
    any: OnceLock<reqwest::Client>,
    /// For this machine, which no proxy is asked for.
    loopback: OnceLock<reqwest::Client>,
}

/// A file on its way. Nothing of it has been read.
#[derive(Debug)]
pub struct Download {
    response: Response,
    stall: Duration,
}

/// Why a file could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not a URL.
    #[error("it is no URL: {0}")]
    Url(String),
    /// No client can be made, as when no certificate authorities are installed.
    #[error("no HTTPS client can be set up: {0}; is the package ca-certificates installed?")]
    Tls(String),
    /// The server answered with something other than 200.
    #[error("the server answered {0}")]
    Status(String),
    /// The server cannot be reached, or the connection broke.
    #[error("{0}")]
    Connection(String),
    /// The server fell silent.
    #[error("no byte came for {} s", .0.as_secs_f64())]
    Stalled(Duration),
}

// === impl HttpClient ===

impl HttpClient {
    /// A client that gives up when no byte comes for so long.
    #[must_use]
    pub fn new(stall: Duration) -> Self {
        install_crypto();
        Self { stall, any: OnceLock::new(), loopback: OnceLock::new() }
    }

    /// Asks for a file, and waits for the beginning of the answer. Up to ten redirects are followed, but none from HTTPS to HTTP.
    ///
    /// # Errors
    /// When the server cannot be reached, or answers with something other than 200.
    pub async fn get(&self, url: &str) -> Result<Download, HttpError> {
        let parsed = reqwest::Url::parse(url).map_err(|error| HttpError::Url(error.to_string()))?;
        let client = self.client(is_loopback(&parsed))?;
        let response = client.get(parsed).send().await.map_err(|error| self.failed(error))?;
        // As Mesos: nothing but 200 is a file.
        if response.status() != reqwest::StatusCode::OK {
            return Err(HttpError::Status(response.status().to_string()));
        }
        Ok(Download { response, stall: self.stall })
    }

    fn client(&self, is_loopback: bool) -> Result<reqwest::Client, HttpError> {
        let cell = if is_loopback { &self.loopback } else { &self.any };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let made = builder(is_loopback, self.stall, self.stall).build();
        // Without any authority, plain HTTP goes on working.
        let made = made.or_else(|error| {
            let plain = builder(is_loopback, self.stall, self.stall).tls_certs_only([]).build();
            plain.map_err(|_| HttpError::Tls(causes(&error)))
        })?;
        Ok(cell.get_or_init(|| made).clone())
    }

    fn failed(&self, error: reqwest::Error) -> HttpError {
        failed(error, self.stall)
    }
}

// === impl Download ===

impl Download {
    /// How many bytes it has, if the server says so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or no byte comes for too long.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.response.chunk().await.map_err(|error| failed(error, self.stall))
    }

    /// Sends all of it. Returns without an error when the reader hangs up, since it knows why it did.
    ///
    /// # Errors
    /// As [`Download::chunk`].
    pub async fn send(mut self, pieces: PieceSender) -> Result<(), HttpError> {
        while let Some(piece) = self.chunk().await? {
            if !pieces.send(piece).await {
                return Ok(());
            }
        }
        pieces.end().await;
        Ok(())
    }
}

fn failed(error: reqwest::Error, stall: Duration) -> HttpError {
    if error.is_timeout() {
        return HttpError::Stalled(stall);
    }
    // The URL is said by who asked, and may hold a password.
    HttpError::Connection(causes(&error.without_url()))
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What all clients have in common.
pub(crate) fn builder(is_loopback: bool, connect: Duration, read: Duration) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("tepui/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect)
        .read_timeout(read)
        .redirect(redirect::Policy::custom(follow));
    if is_loopback { builder.no_proxy() } else { builder }
}

pub(crate) fn install_crypto() {
    // Another part of the program may have installed it already; then that one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Follows up to ten redirects, but never from TLS to plain HTTP.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if was_tls && attempt.url().scheme() != "https" {
        return attempt.error("a redirect leads from HTTPS to HTTP");
    }
    if attempt.previous().len() > 10 {
        return attempt.error("more than ten redirects");
    }
    attempt.follow()
}

/// All causes of an error, outermost first: reqwest keeps what matters (refused, unknown host, bad certificate) innermost.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_all_its_names() {
        for (url, expected) in [
            ("http://127.0.0.1:80/x", true),
            ("http://[::1]/x", true),
            ("http://localhost/x", true),
            ("http://10.0.0.1/x", false),
            ("https://localhost.example/x", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
