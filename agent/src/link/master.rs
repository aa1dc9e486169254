//! Where the coordinator is: the value of `--master`.

use std::path::PathBuf;
use std::str::FromStr;

use tepui_zookeeper::{Url, UrlError};

/// A way to find the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Master {
    /// At this `host:port`.
    Address(String),
    /// At what the file says, which is read anew for each connection.
    File(PathBuf),
    /// Whichever leads, by this ensemble.
    ZooKeeper(Url),
}

/// Why a coordinator cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// Not one of the forms.
    #[error(
        "--master must be HOST:PORT, zk://HOST:PORT,.../PATH, or file:///PATH of a file that holds one of them, but it is '{0}'"
    )]
    Form(String),
    /// An ensemble that cannot be one.
    #[error("--master: {0}")]
    ZooKeeper(#[from] UrlError),
    /// An ensemble is followed, not looked up.
    #[error("{0} holds the URL of an ensemble, and did not when the agent started: restart the agent")]
    Ensemble(PathBuf),
    /// The file is not there.
    #[error("cannot read the coordinator's address from {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

// === impl Master ===

impl Master {
    /// The `host:port` to connect to, where it is not an ensemble that tells.
    ///
    /// # Errors
    /// When it stands in a file that cannot be read, or holds something else.
    pub fn resolve(&self) -> Result<String, MasterError> {
        match self {
            Master::Address(address) => Ok(address.clone()),
            Master::ZooKeeper(url) => Err(MasterError::Form(url.to_string())),
            Master::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| MasterError::File { path: path.clone(), source })?;
                match text.trim().parse()? {
                    Master::Address(address) => Ok(address),
                    Master::ZooKeeper(_) => Err(MasterError::Ensemble(path.clone())),
                    Master::File(_) => Err(MasterError::Form(text.trim().to_owned())),
                }
            }
        }
    }
}

impl FromStr for Master {
    type Err = MasterError;

    fn from_str(text: &str) -> Result<Self, MasterError> {
        let text = text.trim();
        if text.starts_with("zk://") {
            return Ok(Master::ZooKeeper(text.parse()?));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Master::File(PathBuf::from(path)));
        }
        // libprocess' own form has a name before the address.
        let address = text.rsplit_once('@').map_or(text, |(_, address)| address);
        let form = || MasterError::Form(text.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
        let plain = !host.is_empty() && !host.contains(['/', ' ']);
        if !plain || port.parse::<u16>().is_err() {
            return Err(form());
        }
        Ok(Master::Address(address.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn addresses_are_read_and_other_texts_refused() {
        for (text, address) in [
            ("a.b:5050", "a.b:5050"),
            ("[::1]:5050", "[::1]:5050"),
            ("master@10.0.0.1:5050", "10.0.0.1:5050"),
        ] {
            assert_eq!(text.parse::<Master>().unwrap(), Master::Address(address.into()));
        }
        for text in ["", "host", ":5050", "host:port", "http://h:5050", "h:70000"] {
            assert!(matches!(text.parse::<Master>(), Err(MasterError::Form(_))), "{text}");
        }
        let ensemble: Master = "zk://u:p@h:2181/mesos".parse().unwrap();
        assert_eq!(ensemble, Master::ZooKeeper("zk://u:p@h:2181/mesos".parse().unwrap()));
        let error = "zk://user:secret@h:2181".parse::<Master>().unwrap_err().to_string();
        assert!(error.contains("needs a path") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_file_is_read_each_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let master: Master = format!("file://{}", file.path().display()).parse().unwrap();
        assert!(matches!(master.resolve(), Err(MasterError::Form(_))));
        writeln!(file, "h:1").unwrap();
        assert_eq!(master.resolve().unwrap(), "h:1");
    }
}
