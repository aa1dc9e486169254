//! The nodes by which coordinators are elected, as Mesos has them.
//!
//! Each coordinator that wants to lead makes an ephemeral, sequential node `json.info_<sequence>` in the path of the
//! URL, which holds its `MasterInfo` as JSON. The one with the lowest sequence leads. Other nodes in the path, such as
//! the registry's or Mesos' `log_replicas`, do not count.

use std::net::Ipv4Addr;

use tepui_api::v1::MasterInfo;

/// How the name of such a node begins; ZooKeeper adds ten digits.
pub const LABEL: &str = "json.info_";

/// A leader's node holds something else.
#[derive(Debug, thiserror::Error)]
#[error("the node {node} does not hold the MasterInfo of a leader as JSON: {error}")]
pub struct NotMasterInfo {
    /// Its name.
    pub node: String,
    /// What is wrong with it.
    pub error: String,
}

/// The name that leads among these.
#[must_use]
pub fn lowest(names: &[String]) -> Option<&str> {
    let numbered = names.iter().filter_map(|name| Some((sequence(name)?, name.as_str())));
    numbered.min().map(|(_, name)| name)
}

/// The number ZooKeeper gave to a coordinator's node; `None` for any other node. Numbers that overflowed, which
/// ZooKeeper writes with a sign, do not count: they are newer than all others, and yet lower.
fn sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(LABEL)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What stands in the node: compact, with the fields in the order of their names, as Mesos' JSON library writes them.
#[must_use]
pub fn encode(info: &MasterInfo) -> Vec<u8> {
    let sorted: Option<serde_json::Value> = serde_json::from_slice(&tepui_api::codec::encode_json(info)).ok();
    // An object's fields are kept sorted by serde_json.
    sorted.map(|object| object.to_string().into_bytes()).unwrap_or_default()
}

/// Reads what stands in a node.
///
/// # Errors
/// When it is something else.
pub fn decode(node: &str, data: &[u8]) -> Result<MasterInfo, NotMasterInfo> {
    tepui_api::decode(tepui_api::MediaType::Json, data)
        .map_err(|error| NotMasterInfo { node: node.to_owned(), error: error.to_string() })
}

/// Where a leader listens: `host:port`, by its address rather than its name, as Mesos' own agents and drivers connect.
#[must_use]
pub fn authority(leader: &MasterInfo) -> String {
    let told = leader.address.as_ref().and_then(|address| address.ip.clone());
    // The number has the bytes of the address in their order on the network.
    let ip = told.unwrap_or_else(|| Ipv4Addr::from(leader.ip.to_ne_bytes()).to_string());
    if ip.contains(':') { format!("[{ip}]:{}", leader.port) } else { format!("{ip}:{}", leader.port) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::Address;

    #[test]
    fn the_lowest_number_leads_and_other_nodes_do_not_count() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let found =
            names(&["json.info_0000000010", "log_replicas", "json.info_0000000009", "info_0000000001"]);
        assert_eq!(lowest(&found), Some("json.info_0000000009"));
        // Eleven digits come after ten.
        let found = names(&["json.info_10000000000", "json.info_9999999999"]);
        assert_eq!(lowest(&found), Some("json.info_9999999999"));
        assert_eq!(
            lowest(&names(&["json.info_", "json.info_x", "json.info_-2147483648", "json.info_+1"])),
            None
        );
        assert_eq!(lowest(&[]), None);
    }

    #[test]
    fn a_node_is_written_as_mesos_writes_it() {
        let info = MasterInfo {
            id: "a".to_owned(),
            ip: 16_777_343,
            port: 5050,
            pid: Some("master@127.0.0.1:5050".to_owned()),
            hostname: Some("h".to_owned()),
            version: Some("1.11.0".to_owned()),
            address: Some(Address {
                hostname: Some("h".to_owned()),
                ip: Some("127.0.0.1".to_owned()),
                port: 5050,
            }),
            ..MasterInfo::default()
        };
        let written = encode(&info);
        assert_eq!(
            String::from_utf8_lossy(&written),
            "{\"address\":{\"hostname\":\"h\",\"ip\":\"127.0.0.1\",\"port\":5050},\
             \"hostname\":\"h\",\"id\":\"a\",\"ip\":16777343,\"pid\":\"master@127.0.0.1:5050\",\"port\":5050,\
             \"version\":\"1.11.0\"}"
        );
        assert_eq!(decode("n", &written).unwrap(), info);
    }

    #[test]
    fn a_leader_is_found_by_its_address() {
        let mut leader =
            MasterInfo { ip: u32::from_ne_bytes([10, 1, 2, 3]), port: 5050, ..MasterInfo::default() };
        assert_eq!(authority(&leader), "10.1.2.3:5050");
        leader.address = Some(Address { ip: Some("fe80::1".to_owned()), port: 5050, hostname: None });
        assert_eq!(authority(&leader), "[fe80::1]:5050");
    }

    #[test]
    fn what_is_no_leader_is_told() {
        let error = decode("json.info_0000000001", b"{\"id\": 5}").unwrap_err().to_string();
        assert!(error.contains("json.info_0000000001"), "{error}");
    }
}
