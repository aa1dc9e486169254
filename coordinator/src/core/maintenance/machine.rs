//! Which machine an agent is on.

use std::fmt;

use tepui_api::v1::MachineId;

/// A machine, by hostname and IP: two ids are of one machine when both agree, whatever the case of the hostname. What
/// a schedule leaves out of an id is not a wildcard, as in Mesos: such a machine has no agents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Machine {
    hostname: Option<String>,
    ip: Option<String>,
}

// === impl Machine ===

impl Machine {
    /// The machine of this id.
    #[must_use]
    pub fn new(id: &MachineId) -> Self {
        Self { hostname: id.hostname.as_ref().map(|name| name.to_lowercase()), ip: id.ip.clone() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        write!(f, "{} ({})", text(&self.hostname), text(&self.ip))
    }
}

/// The machine of an agent that gives this hostname and this address of its server.
pub(in crate::core) fn of(hostname: &str, address: &str) -> Machine {
    let host = super::super::agent::split_address(address).map_or(address, |(host, _)| host);
    Machine { hostname: Some(hostname.to_lowercase()), ip: Some(host.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_on_the_machine_whose_id_has_both() {
        let agent = of("Host.example", "10.0.0.1:5051");
        let id = |hostname: Option<&str>, ip: Option<&str>| {
            Machine::new(&MachineId { hostname: hostname.map(Into::into), ip: ip.map(Into::into) })
        };
        assert_eq!(agent, id(Some("hOST.EXAMPLE"), Some("10.0.0.1")));
        for other in [
            id(Some("host.example"), None),
            id(None, Some("10.0.0.1")),
            id(Some("host.example"), Some("10.0.0.2")),
            id(Some(""), Some("10.0.0.1")),
        ] {
            assert_ne!(agent, other);
        }
    }
}
