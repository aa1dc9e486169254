//! Where ZooKeeper is: `zk://[user:password@]host[:port][,host[:port]…]/path`, as Mesos writes it.
//!
//! The password is never shown: neither by `Display` nor by `Debug`, nor in an error.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The scheme with which every URL begins.
const SCHEME: &str = "zk://";
/// What ZooKeeper listens on when nothing else is said.
const PORT: u16 = 2181;

/// An ensemble, a path in it and, perhaps, credentials. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    credentials: Option<String>,
    servers: Vec<(String, u16)>,
    path: String,
}

/// A text that should be a [`Url`], as a flag gives it. It is checked by [`UrlText::url`] rather than when flags are
/// read, since whoever reads flags repeats a wrong value in the error, with the password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlText(String);

/// Why a text is no URL of an ensemble. None repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("a ZooKeeper URL begins with zk://, as in zk://host1:2181,host2:2181/path")]
    Scheme,
    /// No path.
    #[error("a ZooKeeper URL needs a path other than '/', as in zk://host1:2181,host2:2181/mesos")]
    NoPath,
    /// A path that ZooKeeper does not take.
    #[error("'{0}' is no path in ZooKeeper: write names between single slashes, and neither '.' nor '..'")]
    Path(String),
    /// No user, or no password.
    #[error("what stands before '@' in a ZooKeeper URL must be user:password")]
    Credentials,
    /// A server's name is missing or cannot be one.
    #[error("'{0}' in a ZooKeeper URL is no server: write host or host:port, with commas between them")]
    Server(String),
    /// A port out of range.
    #[error("'{port}' is no port of the server {host} in a ZooKeeper URL: use 1 to 65535")]
    Port {
        /// The server.
        host: String,
        /// What stands for its port.
        port: String,
    },
}

// === impl Url ===

impl Url {
    /// The path below which all nodes are: begins with a slash, does not end with one, and is not the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// `user:password`, when they are given.
    #[must_use]
    pub fn credentials(&self) -> Option<&str> {
        self.0.credentials.as_deref()
    }

    /// The servers, as the client library takes them.
    #[must_use]
    pub fn servers(&self) -> String {
        let servers = self.0.servers.iter();
        servers.map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",")
    }
}

impl FromStr for Url {
    type Err = UrlError;

    /// As Mesos reads it: the path begins at the first slash, the servers after the last `@` before it, so that
    /// a password may contain one.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(UrlError::Scheme)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (credentials, servers) = match authority.rsplit_once('@') {
            Some((credentials, servers)) => (Some(check_credentials(credentials)?), servers),
            None => (None, authority),
        };
        let servers = servers.split(',').map(server).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Parts { credentials, servers, path: check_path(path)? })))
    }
}

/// Without the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        if let Some((user, _)) = self.credentials().and_then(|c| c.split_once(':')) {
            write!(f, "{user}:***@")?;
        }
        write!(f, "{}{}", self.servers(), self.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

fn check_credentials(text: &str) -> Result<String, UrlError> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(text.to_owned()),
        _ => Err(UrlError::Credentials),
    }
}

fn server(text: &str) -> Result<(String, u16), UrlError> {
    let text = text.trim();
    let wrong = || UrlError::Server(text.to_owned());
    // An IPv6 address stands in brackets, which stay with it.
    let (host, port) = match text.rsplit_once(']') {
        Some((host, port)) if text.starts_with('[') => {
            let port = match port.strip_prefix(':') {
                Some(port) => Some(port),
                None if port.is_empty() => None,
                None => return Err(wrong()),
            };
            (&text[..=host.len()], port)
        }
        Some(_) => return Err(wrong()),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    if !valid {
        return Err(wrong());
    }
    let port = match port {
        None => PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| UrlError::Port { host: host.to_owned(), port: port.to_owned() })?,
    };
    Ok((host.to_owned(), port))
}

fn check_path(path: &str) -> Result<String, UrlError> {
    let names = path.strip_suffix('/').unwrap_or(path);
    if names.is_empty() {
        return Err(UrlError::NoPath);
    }
    let fits = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(char::is_control);
    if !names.split('/').skip(1).all(fits) {
        return Err(UrlError::Path(path.to_owned()));
    }
    Ok(names.to_owned())
}

// === impl UrlText ===

impl UrlText {
    /// Reads it.
    ///
    /// # Errors
    /// When it is no URL.
    pub fn url(&self) -> Result<Url, UrlError> {
        self.0.parse()
    }
}

impl FromStr for UrlText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// Without a password; of a text that is no URL, only that.
impl fmt::Display for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url() {
            Ok(url) => url.fmt(f),
            Err(_) => f.write_str("zk://?"),
        }
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlText({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_mesos_are_read() {
        for (text, credentials, servers, path) in [
            ("zk://h:2181/mesos", None, "h:2181", "/mesos"),
            ("zk://h/mesos/", None, "h:2181", "/mesos"),
            ("zk://a:1,b,10.0.0.1:3/x/y.z", None, "a:1,b:2181,10.0.0.1:3", "/x/y.z"),
            (" zk://u:p@h:1/x\n", Some("u:p"), "h:1", "/x"),
            ("zk://u:p@:s@h:1/x", Some("u:p@:s"), "h:1", "/x"),
            ("zk://[::1]:5,[fe80::2]/x", None, "[::1]:5,[fe80::2]:2181", "/x"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.credentials(), &*url.servers(), url.path()),
                (credentials, servers, path),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_words() {
        for (text, word) in [
            ("h:2181/mesos", "begins with zk://"),
            ("zk://h:2181", "needs a path"),
            ("zk://h:2181/", "needs a path"),
            ("zk://h:2181//x", "between single slashes"),
            ("zk://h:2181/x/../y", "between single slashes"),
            ("zk://user@h/x", "user:password"),
            ("zk://:p@h/x", "user:password"),
            ("zk://h,,i/x", "'' in a ZooKeeper URL is no server"),
            ("zk:///x", "'' in a ZooKeeper URL is no server"),
            ("zk://h:0/x", "'0' is no port of the server h"),
            ("zk://h:65536/x", "use 1 to 65535"),
            ("zk://h i/x", "is no server"),
            ("zk://[::1/x", "is no server"),
            ("zk://[::1]5/x", "is no server"),
        ] {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let text: UrlText = "zk://user:secret@h:1/x".parse().unwrap();
        let url = text.url().unwrap();
        assert_eq!(url.to_string(), "zk://user:***@h:1/x");
        for shown in [format!("{url:?}"), text.to_string(), format!("{text:?}")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        let wrong: UrlText = "zk://user:secret@/".parse().unwrap();
        let error = wrong.url().unwrap_err();
        for shown in [wrong.to_string(), format!("{wrong:?}"), error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(zk://)?[a-z0-9:@,/\\[\\]. é]{0,24}") {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert!(url.path().starts_with('/') && !url.path().ends_with('/'));
                prop_assert_eq!(url.servers().is_empty(), false);
            }
        }
    }
}
