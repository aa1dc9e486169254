//! Debian's `docker-registry`, on a port of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A running registry; dropped, it is stopped.
pub struct Registry {
    process: Child,
    _directory: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Over TLS, with a certificate for 127.0.0.1.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        ))
    }

    /// `http` is added to the configuration's section of that name.
    fn start_with(http: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{http}",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run docker-registry ({error}); install it: apt-get install docker-registry")
            });
        let address = listening_address(process.stderr.take().unwrap());
        Self { process, _directory: directory, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The registry chooses a free port and says so in its log; the log is read on, so that it never blocks.
fn listening_address(log: impl std::io::Read + Send + 'static) -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on ") {
                let address: String = address
                    .chars()
                    .take_while(|character| character.is_ascii_digit() || ".:".contains(*character))
                    .collect();
                let _ = sender.send(address);
            }
        }
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("docker-registry did not start in a minute")
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
