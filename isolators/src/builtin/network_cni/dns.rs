//! `--default_container_dns`: name servers for networks whose plugins tell none.

use std::collections::HashSet;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;

use super::outcome::Dns;

/// The flag, checked by Mesos' rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerDns {
    text: String,
    /// For each network that is named, and for all others without a name.
    entries: Vec<(Option<String>, Dns)>,
}

/// The flag's text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerDnsError {
    /// Neither JSON nor the path of a file with JSON.
    #[error("it must be a JSON object with a list 'mesos', or file:///PATH of one: {0}")]
    Json(String),
    /// Not a mode that can be.
    #[error("the network mode {0} cannot be: use CNI")]
    Mode(String),
    /// Two entries for the same.
    #[error("there are two entries for {0}: give one")]
    Twice(String),
    /// For Docker's own networks.
    #[error("'docker' is for the Docker containerizer, which is not built: leave it out")]
    Docker,
}

#[derive(Deserialize)]
struct Flag {
    #[serde(default)]
    mesos: Vec<Entry>,
    #[serde(default)]
    docker: Vec<Value>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    network_mode: Option<String>,
    #[serde(default)]
    network_name: Option<String>,
    #[serde(default)]
    dns: Dns,
}

impl ContainerDns {
    /// The name servers of a network, if there are some for it.
    pub(super) fn of(&self, network: &str) -> Option<&Dns> {
        let find = |name: Option<&str>| self.entries.iter().find(|(entry, _)| entry.as_deref() == name);
        find(Some(network)).or_else(|| find(None)).map(|(_, dns)| dns)
    }
}

impl FromStr for ContainerDns {
    type Err = ContainerDnsError;

    fn from_str(given: &str) -> Result<Self, ContainerDnsError> {
        let json = |error: &dyn std::fmt::Display| ContainerDnsError::Json(error.to_string());
        let text = match given.strip_prefix("file://") {
            Some(path) => std::fs::read_to_string(path).map_err(|error| json(&error))?,
            None => given.to_owned(),
        };
        let flag: Flag = serde_json::from_str(&text).map_err(|error| json(&error))?;
        if !flag.docker.is_empty() {
            return Err(ContainerDnsError::Docker);
        }
        let mut names = HashSet::new();
        for entry in &flag.mesos {
            let mode = entry.network_mode.as_deref().unwrap_or("UNKNOWN");
            if mode != "CNI" {
                return Err(ContainerDnsError::Mode(mode.to_owned()));
            }
            if !names.insert(entry.network_name.clone()) {
                let whom = entry.network_name.as_ref();
                let whom = whom.map_or("all networks".to_owned(), |name| format!("the network '{name}'"));
                return Err(ContainerDnsError::Twice(whom));
            }
        }
        let entries = flag.mesos.into_iter().map(|entry| (entry.network_name, entry.dns)).collect();
        Ok(Self { text: given.to_owned(), entries })
    }
}

/// As it was given.
impl std::fmt::Display for ContainerDns {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Of all networks of a container. Lists are joined; of single values the last holds.
pub(super) fn joined(all: impl IntoIterator<Item = Dns>) -> Dns {
    let mut sum = Dns::default();
    for dns in all {
        sum.nameservers.extend(dns.nameservers);
        sum.search.extend(dns.search);
        sum.options.extend(dns.options);
        sum.domain = dns.domain.or(sum.domain);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_s_own_entry_comes_before_that_of_all() {
        let flag: ContainerDns = r#"{"mesos": [
            {"network_mode": "CNI", "network_name": "a", "dns": {"nameservers": ["1.1.1.1"], "search": ["x"]}},
            {"network_mode": "CNI", "dns": {"nameservers": ["9.9.9.9"], "domain": "y", "options": ["rotate"]}}]}"#
            .parse()
            .unwrap();
        assert_eq!(flag.of("a").unwrap().nameservers, ["1.1.1.1"]);
        assert_eq!(flag.of("b").unwrap().nameservers, ["9.9.9.9"]);
        let both = joined([flag.of("a").unwrap().clone(), flag.of("b").unwrap().clone()]);
        assert_eq!(both.nameservers, ["1.1.1.1", "9.9.9.9"]);
        assert_eq!((both.domain.as_deref(), both.search.len(), both.options.len()), (Some("y"), 1, 1));
        assert_eq!(ContainerDns::default().of("a"), None);
    }

    #[test]
    fn what_mesos_refuses_is_refused() {
        let refused = |text: &str| text.parse::<ContainerDns>().unwrap_err().to_string();
        assert!(refused("[").contains("JSON"));
        assert!(refused(r#"{"mesos": [{"network_mode": "HOST"}]}"#).contains("HOST"));
        assert!(refused(r#"{"mesos": [{"dns": {}}]}"#).contains("UNKNOWN"));
        let entry = r#"{"network_mode": "CNI", "network_name": "a"}"#;
        assert!(refused(&format!(r#"{{"mesos": [{entry}, {entry}]}}"#)).contains("'a'"));
        assert!(refused(r#"{"docker": [{"network_mode": "BRIDGE"}]}"#).contains("Docker"));
        assert!(refused("file:///no/such/file").contains("No such file"));
    }
}
