//! What is written down of a container's networks, before it is acted on: one file in the container's directory.
//!
//! `<root>/isolators/network/cni/<container>` has beside it the handle of the network namespace (`ns`) and the files that the
//! container sees as its own (`hosts`, `hostname`, `resolv.conf`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tepui_api::v1::NetworkInfo;

use super::config::{self, Config};
use super::limits::Rates;
use super::outcome::Outcome;

const CHECKPOINT: &str = "networks.json";
/// The network namespace is mounted on it.
pub(super) const NAMESPACE: &str = "ns";

/// The networks of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub hostname: String,
    /// How much may go through each of its interfaces.
    #[serde(default)]
    pub rates: Rates,
    /// In the order in which they are attached.
    pub attachments: Vec<Attachment>,
}

/// A network that a container is attached to, or shall be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Attachment {
    /// What the task asked for.
    pub info: NetworkInfo,
    pub network: String,
    /// Its name in the container: `eth0` and so on.
    pub interface: String,
    pub version: String,
    pub checks: bool,
    /// The plugins' configurations as they were at the launch, complete but for `prevResult`.
    pub plugins: Vec<Config>,
    pub stage: Stage,
    /// What the last plugin that was done said.
    pub result: Option<Value>,
    /// Whether a plugin of the network keeps the limits, rather than the agent.
    #[serde(default)]
    pub limited_by_plugin: bool,
    /// The interface on the host that what the container sends is led through, if there is to be one.
    pub egress_through: Option<String>,
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// No plugin has been called.
    Planned,
    /// Some may have been.
    Begun,
    /// All are done.
    Attached,
}

impl Attachment {
    /// What a plugin is told of what was done: nothing, in versions that do not know it at DEL and CHECK.
    pub fn known_result(&self) -> Option<&Value> {
        self.result.as_ref().filter(|_| config::knows_results(&self.version))
    }

    pub fn outcome(&self) -> Outcome {
        self.result.as_ref().and_then(|result| Outcome::read(result).ok()).unwrap_or_default()
    }

    /// As a task's status has it.
    pub fn to_wire(&self) -> NetworkInfo {
        let attached = self.stage == Stage::Attached;
        let addresses = if attached { self.outcome().to_wire() } else { Vec::new() };
        NetworkInfo { ip_addresses: addresses, ..self.info.clone() }
    }
}

impl Checkpoint {
    /// Reads a container's; `None` if there is none.
    pub fn load(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(CHECKPOINT)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a container's, whole or not at all. It is on the disk when `durable`; else it is lost with the machine's memory at most.
    pub fn save(&self, directory: &Path, durable: bool) -> io::Result<()> {
        let new = directory.join(format!("{CHECKPOINT}.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&new, directory.join(CHECKPOINT))?;
        if durable { File::open(directory)?.sync_all() } else { Ok(()) }
    }
}

/// The handle of a container's network namespace.
pub(super) fn namespace(directory: &Path) -> PathBuf {
    directory.join(NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::load(dir.path()).unwrap(), None);
        let checkpoint = Checkpoint {
            hostname: "h".to_owned(),
            rates: Rates { egress: Some(1), ingress: None },
            attachments: vec![Attachment {
                info: NetworkInfo { name: Some("n".to_owned()), ..NetworkInfo::default() },
                network: "n".to_owned(),
                interface: "eth0".to_owned(),
                version: "1.0.0".to_owned(),
                checks: true,
                plugins: vec![Config::new()],
                stage: Stage::Attached,
                result: Some(serde_json::json!({"ips": [{"address": "10.0.0.2/8"}]})),
                limited_by_plugin: false,
                egress_through: None,
            }],
        };
        for durable in [false, true] {
            checkpoint.save(dir.path(), durable).unwrap();
            assert_eq!(Checkpoint::load(dir.path()).unwrap().as_ref(), Some(&checkpoint));
        }
        let shown = checkpoint.attachments[0].to_wire();
        assert_eq!(shown.ip_addresses[0].ip_address(), "10.0.0.2");
        fs::write(dir.path().join(CHECKPOINT), "{").unwrap();
        assert!(Checkpoint::load(dir.path()).is_err());
    }
}
