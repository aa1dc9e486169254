//! What an image says about how it wants to be run.
//!
//! Images by Docker and by OCI tools carry the same document with small differences: absent,
//! `null` and empty all mean "nothing said", and unknown fields are passed over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::Error;

/// The runtime part of an image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The executable and its first arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Arguments after the entrypoint; or executable and arguments when there is none.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// `USER[:GROUP]`, by name or id; empty when none is named.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// Where the command starts; empty when the image does not care.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Directories the image wants to have as volumes.
    #[serde(deserialize_with = "keys_or_null")]
    pub volumes: BTreeSet<String>,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Ports as `8080/tcp`.
    #[serde(deserialize_with = "keys_or_null")]
    pub exposed_ports: BTreeSet<String>,
    /// The signal that ends it, by name or number; empty when the image does not care.
    #[serde(deserialize_with = "null_as_default")]
    pub stop_signal: String,
}

/// The whole configuration document, as far as it is used here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ConfigDocument {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) config: ImageConfig,
    pub(crate) rootfs: RootFsSection,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFsSection {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

impl ConfigDocument {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
            what: format!("the config of {what}"),
            reason: error.to_string(),
        })
    }
}

/// `null` is as good as absent, as in all of Docker's JSON.
pub(crate) fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Go writes sets as objects whose values are empty objects. What this crate wrote itself is a list.
fn keys_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Keys(BTreeMap<String, serde_json::Value>),
        List(BTreeSet<String>),
    }
    Ok(match Option::<Form>::deserialize(deserializer)? {
        None => BTreeSet::new(),
        Some(Form::Keys(map)) => map.into_keys().collect(),
        Some(Form::List(list)) => list,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_nulls_and_sets_are_understood() {
        let json = br#"{
            "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "history": [],
            "config": {"Entrypoint": null, "Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "", "Volumes": {"/data": {}},
                       "ExposedPorts": {"80/tcp": {}}, "Labels": null, "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "OnBuild": null},
            "rootfs": {"type": "layers", "diff_ids": []}
        }"#;
        let document = ConfigDocument::parse(json, "x").unwrap();
        let config = document.config;
        assert_eq!(document.architecture, "amd64");
        assert!(config.entrypoint.is_empty() && config.labels.is_empty() && config.user.is_empty());
        assert_eq!(config.cmd, ["sh"]);
        assert!(config.volumes.contains("/data") && config.exposed_ports.contains("80/tcp"));
        assert_eq!((config.working_dir.as_str(), config.stop_signal.as_str()), ("/srv", "SIGQUIT"));
        let stored = serde_json::to_vec(&config).unwrap();
        assert_eq!(serde_json::from_slice::<ImageConfig>(&stored).unwrap(), config);
    }

    #[test]
    fn a_config_without_layers_or_with_bad_digests_says_so() {
        assert!(ConfigDocument::parse(b"{}", "x").is_err());
        let error = ConfigDocument::parse(br#"{"rootfs":{"diff_ids":["sha256:../.."]}}"#, "x").unwrap_err();
        assert!(error.to_string().contains("is not a digest"), "{error}");
    }
}
