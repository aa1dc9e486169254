//! Probes by HTTP and HTTPS: the status of the response to a GET, as `curl -L -k` gets it.
//!
//! Redirects are followed, within the container's network, and certificates are not looked at: whoever listens there is
//! who is asked. The whole response is read, so that one that breaks off is no success.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use url::Url;

use super::network::{Host, Network};

/// As many as curl follows.
const REDIRECTS: usize = 50;

/// The status of the last response on the way that begins at this URL.
///
/// # Errors
/// When there is none, in words.
pub(super) async fn status(network: &Network, url: &str) -> Result<u16, String> {
    let mut url = Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
    for _ in 0..=REDIRECTS {
        let response = get(network, &url).await?;
        match response.onward {
            Some(location) => {
                url = url.join(&location).map_err(|error| format!("a redirect to '{location}': {error}"))?;
            }
            None => return Ok(response.status),
        }
    }
    Err(format!("more than {REDIRECTS} redirects"))
}

/// What one server said.
struct Response {
    status: u16,
    /// Where it says to go.
    onward: Option<String>,
}

async fn get(network: &Network, url: &Url) -> Result<Response, String> {
    let host = match url.host() {
        Some(url::Host::Ipv4(address)) => Host::Address(IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => Host::Address(IpAddr::V6(address)),
        Some(url::Host::Domain(name)) => Host::Name(name.to_owned()),
        None => return Err(format!("{url} names no host")),
    };
    let port = url.port_or_known_default().ok_or_else(|| format!("{url} names no port"))?;
    let connect = network.connect(&host, port);
    match url.scheme() {
        "http" => send(connect.await.map_err(|error| error.to_string())?, url).await,
        "https" => {
            let stream = connect.await.map_err(|error| error.to_string())?;
            let name = match host {
                Host::Address(address) => ServerName::IpAddress(address.into()),
                Host::Name(name) => ServerName::try_from(name).map_err(|error| error.to_string())?,
            };
            let connector = TlsConnector::from(TLS.clone()?);
            let stream = connector.connect(name, stream).await;
            send(stream.map_err(|error| format!("no TLS with {url}: {error}"))?, url).await
        }
        other => Err(format!("'{other}' is not followed: only http and https are")),
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &Url,
) -> Result<Response, String> {
    let failed = |error: hyper::Error| format!("no HTTP response from {url}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async {
        let mut response = sender.send_request(request(url)?).await.map_err(failed)?;
        while let Some(frame) = response.frame().await {
            frame.map_err(failed)?;
        }
        Ok(answer(&response))
    };
    // The connection ends with this function, whatever the server thinks of it. How it ended before that, the exchange hears.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = driven => match never {},
    }
}

fn request(url: &Url) -> Result<http::Request<Empty<Bytes>>, String> {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let request = http::Request::get(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("tepui/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*");
    request.body(Empty::new()).map_err(|error| format!("{url}: {error}"))
}

fn answer(response: &http::Response<Incoming>) -> Response {
    let status = response.status().as_u16();
    let redirects = matches!(status, 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| redirects);
    let onward = location.map(|location| String::from_utf8_lossy(location.as_bytes()).into_owned());
    Response { status, onward }
}

// === TLS ===

static TLS: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("no TLS: {error}"))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    Ok(Arc::new(config.with_no_client_auth()))
});

/// Takes every certificate, and what is signed with it: nothing secret is sent, and nothing but a status is believed.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A server that answers the path of each request with this text.
    async fn server(answer: impl Fn(&str) -> String + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default();
                stream.write_all(answer(path).as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}")
    }

    async fn ask(url: &str) -> Result<u16, String> {
        status(&Network::of(Some(std::process::id())).unwrap(), url).await
    }

    #[tokio::test]
    async fn gives_the_status_of_a_whole_response() {
        let url = server(|path| match path {
            "/ok?a=b" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(),
            "/no" => "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into(),
            "/until-the-end" => "HTTP/1.0 204 No\r\n\r\n".into(),
            "/broken-off" => "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi".into(),
            "/" => "HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n".into(),
            _ => "what?\r\n\r\n".into(),
        })
        .await;
        assert_eq!(ask(&format!("{url}/ok?a=b")).await, Ok(200));
        assert_eq!(ask(&format!("{url}/no")).await, Ok(503));
        assert_eq!(ask(&format!("{url}/until-the-end")).await, Ok(204));
        assert_eq!(ask(&url).await, Ok(201));
        assert!(ask(&format!("{url}/broken-off")).await.is_err());
        assert!(ask(&format!("{url}/nonsense")).await.is_err());
        assert!(ask("http://127.0.0.1:70000/").await.is_err());
    }

    #[tokio::test]
    async fn follows_redirects_but_not_for_ever() {
        let url = server(|path| {
            let to = match path {
                "/a/first" => "second",
                "/a/second" => "/third",
                "/third" => "?fourth",
                "/third?fourth" => return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
                "/file" => "file:///etc/passwd",
                "/nowhere" => return "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into(),
                other => other,
            };
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
        })
        .await;
        assert_eq!(ask(&format!("{url}/a/first")).await, Ok(200));
        assert_eq!(ask(&format!("{url}/nowhere")).await, Ok(302));
        assert!(ask(&format!("{url}/loop")).await.unwrap_err().contains("50 redirects"));
        assert!(ask(&format!("{url}/file")).await.is_err());
    }
}
