//! `--default_container_dns`: name servers for networks whose plugins tell none.

use std::collections::HashSet;
use std::str::FromStr;

use serde::Deserialize;

use super::outcome::Dns;

/// The flag, checked by Mesos' rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerDns {
    text: String,
    /// For each network that is named, and for all others without a name.
    entries: Vec<(Option<String>, Dns)>,
    /// For Docker's own bridge.
    docker_bridge: Option<Dns>,
    /// For each network of Docker that a user made and that is named, and for all others without a name.
    docker_user: Vec<(Option<String>, Dns)>,
}

/// The flag's text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerDnsError {
    /// Neither JSON nor the path of a file with JSON.
    #[error("it must be a JSON object with lists 'mesos' and 'docker', or file:///PATH of one: {0}")]
    Json(String),
    /// Not a mode that can be.
    #[error("the network mode {0} cannot be: use {1}")]
    Mode(String, &'static str),
    /// Two entries for the same.
    #[error("there are two entries for {0}: give one")]
    Twice(String),
}

#[derive(Deserialize)]
struct Flag {
    #[serde(default)]
    mesos: Vec<Entry>,
    #[serde(default)]
    docker: Vec<Entry>,
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
        find(&self.entries, network)
    }

    /// The name servers of containers in Docker's own bridge.
    #[must_use]
    pub fn of_docker_bridge(&self) -> Option<&Dns> {
        self.docker_bridge.as_ref()
    }

    /// The name servers of containers in a network of Docker that a user made.
    #[must_use]
    pub fn of_docker_network(&self, network: &str) -> Option<&Dns> {
        find(&self.docker_user, network)
    }
}

fn find<'a>(entries: &'a [(Option<String>, Dns)], network: &str) -> Option<&'a Dns> {
    let find = |name: Option<&str>| entries.iter().find(|(entry, _)| entry.as_deref() == name);
    find(Some(network)).or_else(|| find(None)).map(|(_, dns)| dns)
}

/// Entries by the names of their networks; each may be there once.
fn by_name(entries: Vec<Entry>) -> Result<Vec<(Option<String>, Dns)>, ContainerDnsError> {
    let mut names = HashSet::new();
    for entry in &entries {
        if !names.insert(entry.network_name.clone()) {
            let whom = entry.network_name.as_ref();
            let whom = whom.map_or("all networks".to_owned(), |name| format!("the network '{name}'"));
            return Err(ContainerDnsError::Twice(whom));
        }
    }
    Ok(entries.into_iter().map(|entry| (entry.network_name, entry.dns)).collect())
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
        let mode = |entry: &Entry| entry.network_mode.clone().unwrap_or_else(|| "UNKNOWN".to_owned());
        if let Some(entry) = flag.mesos.iter().find(|entry| mode(entry) != "CNI") {
            return Err(ContainerDnsError::Mode(mode(entry), "CNI"));
        }
        let (mut bridge, mut user) = (Vec::new(), Vec::new());
        for entry in flag.docker {
            match mode(&entry).as_str() {
                "BRIDGE" => bridge.push(entry),
                "USER" => user.push(entry),
                other => return Err(ContainerDnsError::Mode(other.to_owned(), "BRIDGE or USER")),
            }
        }
        if bridge.len() > 1 {
            return Err(ContainerDnsError::Twice("Docker's bridge".to_owned()));
        }
        Ok(Self {
            text: given.to_owned(),
            entries: by_name(flag.mesos)?,
            docker_bridge: bridge.pop().map(|entry| entry.dns),
            docker_user: by_name(user)?,
        })
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
        assert!(refused(r#"{"docker": [{"network_mode": "HOST"}]}"#).contains("BRIDGE or USER"));
        let twice = r#"{"docker": [{"network_mode": "BRIDGE"}, {"network_mode": "BRIDGE"}]}"#;
        assert!(refused(twice).contains("bridge"));
        assert!(refused("file:///no/such/file").contains("No such file"));
    }
}
