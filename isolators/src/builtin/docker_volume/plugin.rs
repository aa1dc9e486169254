//! Docker's protocol of volume plugins: JSON by HTTP, at a Unix socket.
//!
//! A plugin is found by its name: a socket `NAME.sock` in `/run/docker/plugins` (or in a directory `NAME` there), else a file `NAME.spec` that holds
//! a URL, or `NAME.json` with an `Addr`, in `/etc/docker/plugins` or `/usr/lib/docker/plugins`. Each call is a connection of its own and
//! has a time limit, so that a plugin that hangs holds up nothing but the container that needs it.
//!
//! Rules: Docker's pages "Docker Plugin API" and "Docker volume plugins".

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

const MEDIA: &str = "application/vnd.docker.plugins.v1.2+json";
/// No answer of a sane plugin is as long.
const LONGEST_ANSWER: usize = 1 << 20;

/// The plugins of this host.
#[derive(Debug, Clone)]
pub struct Plugins {
    /// Where sockets are.
    pub sockets: Vec<PathBuf>,
    /// Where files are that name an address.
    pub specs: Vec<PathBuf>,
    /// For each call.
    pub timeout: Duration,
}

/// A plugin does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Not a name that a file could have.
    #[error("'{0}' cannot be the name of a volume driver")]
    Name(String),
    /// There is no such plugin.
    #[error(
        "there is no volume plugin '{driver}' on this agent: neither a socket {driver}.sock in {sockets}, nor a {driver}.spec or {driver}.json in {specs}"
    )]
    NotFound {
        /// Its name.
        driver: String,
        /// Where sockets were looked for.
        sockets: String,
        /// Where files were looked for.
        specs: String,
    },
    /// Its file does not say where it is.
    #[error("{file} does not say where the volume plugin is: {why}")]
    Address {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It cannot be reached, or does not speak HTTP.
    #[error("the volume plugin '{driver}' cannot be asked for {call}: {why}")]
    Connection {
        /// Its name.
        driver: String,
        /// The call.
        call: &'static str,
        /// Why.
        why: String,
    },
    /// It takes too long.
    #[error("the volume plugin '{driver}' did not answer {call} within {limit:?}")]
    TimedOut {
        /// Its name.
        driver: String,
        /// The call.
        call: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It said no.
    #[error("the volume plugin '{driver}' failed to {call}: {why}")]
    Failed {
        /// Its name.
        driver: String,
        /// The call.
        call: &'static str,
        /// In its own words.
        why: String,
    },
    /// It answered what cannot be used.
    #[error("the volume plugin '{driver}' answered {call} with what cannot be used: {why}")]
    Garbage {
        /// Its name.
        driver: String,
        /// The call.
        call: &'static str,
        /// What.
        why: String,
    },
}

impl PluginError {
    /// Whether the plugin heard the call and refused it, so that it knows better than we whether there is anything to undo.
    pub fn is_refusal(&self) -> bool {
        matches!(self, PluginError::Failed { .. })
    }
}

#[derive(Debug, PartialEq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonSpec {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<Value>,
}

/// An answer of any call.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Reply {
    err: Option<String>,
    implements: Vec<String>,
    mountpoint: Option<String>,
}

impl Plugins {
    /// Makes sure that there is a volume, and mounts it. `id` is who mounts it. Gives the place on the host.
    ///
    /// # Errors
    /// When the plugin is not there, fails, or answers what cannot be.
    pub async fn mount(
        &self,
        driver: &str,
        name: &str,
        options: &[(String, String)],
        id: &str,
    ) -> Result<PathBuf, PluginError> {
        let activated = self.call(driver, "Plugin.Activate", json!({})).await?;
        if !activated.implements.iter().any(|what| what == "VolumeDriver") {
            let why = format!("it is a plugin for {:?}, not for volumes", activated.implements);
            return Err(PluginError::Garbage { driver: driver.to_owned(), call: "Plugin.Activate", why });
        }
        if self.call(driver, "VolumeDriver.Get", json!({ "Name": name })).await.is_err() {
            let options: serde_json::Map<String, Value> =
                options.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
            self.call(driver, "VolumeDriver.Create", json!({ "Name": name, "Opts": options })).await?;
        }
        let call = "VolumeDriver.Mount";
        let mounted = self.call(driver, call, json!({ "Name": name, "ID": id })).await?;
        let place = PathBuf::from(mounted.mountpoint.unwrap_or_default());
        if !place.is_absolute() || !place.exists() {
            let why = format!("its mount point '{}' is no path of this host", place.display());
            return Err(PluginError::Garbage { driver: driver.to_owned(), call, why });
        }
        Ok(place)
    }

    /// Takes a volume away that `id` has mounted.
    ///
    /// # Errors
    /// When the plugin is not there or fails.
    pub async fn unmount(&self, driver: &str, name: &str, id: &str) -> Result<(), PluginError> {
        self.call(driver, "VolumeDriver.Unmount", json!({ "Name": name, "ID": id })).await.map(drop)
    }

    async fn call(&self, driver: &str, call: &'static str, body: Value) -> Result<Reply, PluginError> {
        let address = self.find(driver)?;
        let connection = |error: &dyn std::fmt::Display| PluginError::Connection {
            driver: driver.to_owned(),
            call,
            why: error.to_string(),
        };
        let exchange = async {
            match &address {
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|error| connection(&error))?;
                    post(stream, call, &body).await.map_err(|error| connection(&error))
                }
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.map_err(|error| connection(&error))?;
                    post(stream, call, &body).await.map_err(|error| connection(&error))
                }
            }
        };
        let timed = tokio::time::timeout(self.timeout, exchange).await;
        let (status, answer) = timed.map_err(|_| PluginError::TimedOut {
            driver: driver.to_owned(),
            call,
            limit: self.timeout,
        })??;
        read(driver, call, status, &answer)
    }

    /// Where a plugin is.
    fn find(&self, driver: &str) -> Result<Address, PluginError> {
        let is_name = !driver.is_empty() && !driver.starts_with('.') && !driver.contains(['/', '\0']);
        if !is_name {
            return Err(PluginError::Name(driver.to_owned()));
        }
        let places = |dirs: &[PathBuf], ending: &str| -> Vec<PathBuf> {
            let file = format!("{driver}.{ending}");
            dirs.iter().flat_map(|dir| [dir.join(&file), dir.join(driver).join(&file)]).collect()
        };
        if let Some(socket) = places(&self.sockets, "sock").into_iter().find(|socket| socket.exists()) {
            return Ok(Address::Unix(socket));
        }
        for file in places(&self.specs, "spec").into_iter().chain(places(&self.specs, "json")) {
            match std::fs::read_to_string(&file) {
                Ok(text) => {
                    let is_json = file.extension().is_some_and(|ending| ending == "json");
                    return address(&text, is_json).map_err(|why| PluginError::Address { file, why });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(PluginError::Address { file, why: error.to_string() }),
            }
        }
        let list = |dirs: &[PathBuf]| {
            dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        Err(PluginError::NotFound {
            driver: driver.to_owned(),
            sockets: list(&self.sockets),
            specs: list(&self.specs),
        })
    }
}

fn address(text: &str, is_json: bool) -> Result<Address, String> {
    let url = if is_json {
        let spec: JsonSpec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if spec.tls.is_some_and(|tls| !tls.is_null()) {
            return Err("plugins behind TLS are not supported".to_owned());
        }
        spec.addr
    } else {
        text.trim().to_owned()
    };
    match url.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Address::Unix(PathBuf::from(path))),
        Some(("tcp" | "http", host)) => Ok(Address::Tcp(host.trim_end_matches('/').to_owned())),
        _ => Err(format!("'{url}' is neither unix:///PATH nor tcp://HOST:PORT")),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    call: &str,
    body: &Value,
) -> Result<(StatusCode, Bytes), Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this call, whichever way that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::post(format!("/{call}"))
        .header(header::HOST, "plugin")
        .header(header::CONTENT_TYPE, MEDIA)
        .header(header::ACCEPT, MEDIA)
        .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await?;
    Ok((status, body.to_bytes()))
}

fn read(driver: &str, call: &'static str, status: StatusCode, answer: &[u8]) -> Result<Reply, PluginError> {
    let reply = serde_json::from_slice::<Reply>(answer);
    let failed = |why: String| PluginError::Failed { driver: driver.to_owned(), call, why };
    match reply {
        Ok(Reply { err: Some(why), .. }) if !why.is_empty() => Err(failed(why)),
        _ if !status.is_success() => {
            let text = String::from_utf8_lossy(answer);
            Err(failed(format!("{status} {}", text.chars().take(200).collect::<String>())))
        }
        Ok(reply) => Ok(reply),
        Err(error) => Err(PluginError::Garbage { driver: driver.to_owned(), call, why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_files() {
        let unix = || Ok(Address::Unix("/a/b.sock".into()));
        assert_eq!(address("unix:///a/b.sock\n", false), unix());
        assert_eq!(address(r#"{"Name":"x","Addr":"unix:///a/b.sock"}"#, true), unix());
        assert_eq!(address("tcp://localhost:80/", false), Ok(Address::Tcp("localhost:80".into())));
        assert!(address("/a/b.sock", false).is_err());
        assert!(address("unix://a", false).is_err());
        assert!(
            address(r#"{"Addr":"https://h:1","TLSConfig":{"CAFile":"/ca"}}"#, true)
                .unwrap_err()
                .contains("TLS")
        );
    }

    #[test]
    fn plugins_are_found_by_name() {
        let (run, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugins = Plugins {
            sockets: vec![run.path().to_owned()],
            specs: vec![etc.path().to_owned()],
            timeout: Duration::from_secs(1),
        };
        let error = plugins.find("x").unwrap_err().to_string();
        assert!(error.contains("x.sock") && error.contains(etc.path().to_str().unwrap()), "{error}");
        std::fs::write(etc.path().join("x.spec"), "unix:///spec.sock").unwrap();
        assert_eq!(plugins.find("x").unwrap(), Address::Unix("/spec.sock".into()));
        std::fs::create_dir(run.path().join("x")).unwrap();
        std::fs::write(run.path().join("x/x.sock"), "").unwrap();
        assert_eq!(plugins.find("x").unwrap(), Address::Unix(run.path().join("x/x.sock")));
        for name in ["", ".", "..", "a/b", "../x", "a\0"] {
            assert!(matches!(plugins.find(name), Err(PluginError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn errors_are_told_in_the_plugins_words() {
        let read = |status: u16, text: &str| {
            read("d", "VolumeDriver.Mount", StatusCode::from_u16(status).unwrap(), text.as_bytes())
        };
        let mounted = read(200, r#"{"Mountpoint":"/m","Err":""}"#).unwrap();
        assert_eq!(mounted.mountpoint.as_deref(), Some("/m"));
        assert!(
            read(200, r#"{"Mountpoint":"/m","Err":"no space"}"#)
                .unwrap_err()
                .to_string()
                .contains("no space")
        );
        assert!(read(500, r#"{"Err":"broken"}"#).unwrap_err().to_string().contains("broken"));
        assert!(read(404, "not here").unwrap_err().to_string().contains("404"));
        assert!(matches!(read(200, "<html>"), Err(PluginError::Garbage { .. })));
    }
}
