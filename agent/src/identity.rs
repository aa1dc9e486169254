//! How an agent shows itself: its address, its name, and the [`AgentInfo`] that frameworks see in offers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use tepui_api::v1::{AgentInfo, Attribute, Resource, VersionInfo};

use crate::flags::Settings;

/// The version of the Mesos API that is spoken. Clients parse it to learn what they may use.
pub const API_VERSION: &str = "1.11.0";

/// The address at which others reach an agent that listens on `bound`.
#[must_use]
pub fn advertised(settings: &Settings, bound: SocketAddrV4) -> SocketAddr {
    let ip = match settings.advertise_ip {
        Some(ip) => ip,
        None if bound.ip().is_unspecified() => own_address(),
        None => *bound.ip(),
    };
    SocketAddr::new(IpAddr::V4(ip), settings.advertise_port.unwrap_or(bound.port()))
}

/// What frameworks see of the agent, without an id.
#[must_use]
pub fn agent_info(
    settings: &Settings,
    address: SocketAddr,
    resources: Vec<Resource>,
    attributes: Vec<Attribute>,
) -> AgentInfo {
    let hostname = match &settings.hostname {
        Some(hostname) => hostname.clone(),
        None if settings.hostname_lookup && address.ip().is_loopback() => "localhost".to_owned(),
        None if settings.hostname_lookup => machine_name().unwrap_or_else(|| address.ip().to_string()),
        None => address.ip().to_string(),
    };
    AgentInfo {
        hostname,
        port: Some(i32::from(address.port())),
        resources,
        attributes,
        // Said by every agent that keeps its state on disk, though Mesos' v1 messages have no such field.
        checkpoint: Some(true),
        ..AgentInfo::default()
    }
}

/// What this program is.
#[must_use]
pub fn version() -> VersionInfo {
    VersionInfo {
        version: API_VERSION.to_owned(),
        build_date: Some(env!("TEPUI_BUILD_DATE").to_owned()),
        build_time: env!("TEPUI_BUILD_TIME").parse().ok(),
        build_user: Some(env!("TEPUI_BUILD_USER").to_owned()),
        ..VersionInfo::default()
    }
}

/// The address by which other machines most likely reach this one: the one that would be used to
/// speak to them. Nothing is sent.
fn own_address() -> Ipv4Addr {
    let by_route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // TEST-NET-3, which only the default route leads to.
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
            _ => None,
        }
    };
    by_route().unwrap_or(Ipv4Addr::LOCALHOST)
}

fn machine_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_shown() {
        let settings = Settings {
            advertise_ip: Some(Ipv4Addr::new(10, 1, 2, 3)),
            advertise_port: Some(80),
            hostname_lookup: false,
            ..Settings::new("h:1", "/w")
        };
        let address = advertised(&settings, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 5051));
        assert_eq!(address.to_string(), "10.1.2.3:80");
        let info = agent_info(&settings, address, Vec::new(), Vec::new());
        assert_eq!((info.hostname.as_str(), info.port()), ("10.1.2.3", 80));
        let anywhere = advertised(&Settings::new("h:1", "/w"), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 1));
        assert!(!anywhere.ip().is_unspecified());
    }
}
