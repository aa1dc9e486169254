//! What a plugin says it did: [`Outcome`], from the results of all versions of the specification.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tepui_api::v1::network_info::{IpAddress, Protocol};

/// Name servers and the like. A part of results, and of `--default_container_dns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of the servers, in the order in which they are asked.
    #[serde(default, deserialize_with = "or_default")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains in which short names are looked for.
    #[serde(default, deserialize_with = "or_default")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(default, deserialize_with = "or_default")]
    pub options: Vec<String>,
}

/// A result, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The container's addresses, without the length of their network.
    pub addresses: Vec<IpAddr>,
    pub dns: Dns,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default, deserialize_with = "or_default")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "or_default")]
    ips: Vec<Ip>,
    ip4: Option<OldIp>,
    ip6: Option<OldIp>,
    #[serde(default, deserialize_with = "or_default")]
    dns: Dns,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    sandbox: Option<String>,
}

/// Since 0.3.0.
#[derive(Deserialize)]
struct Ip {
    address: String,
    interface: Option<usize>,
}

/// Up to 0.2.0.
#[derive(Deserialize)]
struct OldIp {
    ip: String,
}

/// `null` is what some plugins say for nothing.
fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Outcome {
    /// Reads a result.
    pub fn read(result: &Value) -> Result<Self, String> {
        if !result.is_object() {
            return Err("it is no JSON object".to_owned());
        }
        let parts = Parts::deserialize(result).map_err(|error| error.to_string())?;
        let of_container = |ip: &Ip| match ip.interface {
            None => true,
            Some(at) => parts
                .interfaces
                .get(at)
                .is_some_and(|found| found.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())),
        };
        let new = parts.ips.iter().filter(|ip| of_container(ip)).map(|ip| ip.address.as_str());
        let old = [&parts.ip4, &parts.ip6].into_iter().flatten().map(|ip| ip.ip.as_str());
        let addresses = new.chain(old).map(address).collect::<Result<_, _>>()?;
        Ok(Self { addresses, dns: parts.dns })
    }

    /// As a task's status has them.
    pub fn to_wire(&self) -> Vec<IpAddress> {
        let one = |address: &IpAddr| IpAddress {
            protocol: Some(if address.is_ipv4() { Protocol::IPv4 } else { Protocol::IPv6 } as i32),
            ip_address: Some(address.to_string()),
        };
        self.addresses.iter().map(one).collect()
    }
}

/// `10.0.0.2/24` without what follows the address.
fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.split('/').next().unwrap_or_default();
    bare.parse().map_err(|_| format!("'{text}' is no IP address"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn addresses(result: Value) -> Vec<String> {
        Outcome::read(&result).unwrap().addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn results_of_all_versions_are_read() {
        let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24"}, "ip6": {"ip": "fd00::2/64"}, "dns": {"nameservers": ["10.1.0.1"]}});
        assert_eq!(addresses(old.clone()), ["10.1.0.2", "fd00::2"]);
        assert_eq!(Outcome::read(&old).unwrap().dns.nameservers, ["10.1.0.1"]);
        let new = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/x"}],
            "ips": [{"address": "10.1.0.3/24", "interface": 1}, {"address": "10.1.0.1/24", "interface": 0}, {"version": "6", "address": "fd00::3/64"}],
            "dns": {},
        });
        assert_eq!(addresses(new), ["10.1.0.3", "fd00::3"]);
        assert!(addresses(json!({"cniVersion": "1.0.0", "ips": null, "dns": null})).is_empty());
    }

    #[test]
    fn garbage_is_no_result() {
        for garbage in
            [json!("hello"), json!([1]), json!({"ips": 3}), json!({"ips": [{"address": "nowhere"}]})]
        {
            assert!(Outcome::read(&garbage).is_err(), "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn no_result_makes_it_panic(address in ".{0,20}", interface in any::<usize>(), text in "\\PC*") {
            let _ = Outcome::read(&json!({"ips": [{"address": address, "interface": interface}], "interfaces": [{"sandbox": text}]}));
        }
    }
}
