//! How a coordinator shows itself: its [`MasterInfo`], and the addresses and names in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket};

use tepui_api::v1::master_info::{Capability, capability};
use tepui_api::v1::{Address, MasterInfo};
use uuid::Uuid;

use crate::flags::Settings;

/// The version of the Mesos API that is spoken. Clients parse it to learn what they may use.
pub const API_VERSION: &str = "1.11.0";

/// What others are told of a coordinator that listens on `bound`. The id is new each time.
#[must_use]
pub fn master_info(settings: &Settings, bound: SocketAddrV4) -> MasterInfo {
    let ip = match settings.advertise_ip {
        Some(ip) => ip,
        None if bound.ip().is_unspecified() => own_address(),
        None => *bound.ip(),
    };
    let port = settings.advertise_port.unwrap_or(bound.port());
    let hostname = match &settings.hostname {
        Some(hostname) => hostname.clone(),
        None if settings.hostname_lookup => name_of(ip).unwrap_or_else(|| ip.to_string()),
        None => ip.to_string(),
    };
    MasterInfo {
        id: Uuid::new_v4().to_string(),
        // Mesos puts the four bytes of the address, in network order, where a number is expected; its
        // clients take them out the same way (MESOS-1201).
        ip: u32::from_ne_bytes(ip.octets()),
        port: u32::from(port),
        pid: Some(format!("master@{ip}:{port}")),
        hostname: Some(hostname.clone()),
        version: Some(API_VERSION.to_owned()),
        address: Some(Address { hostname: Some(hostname), ip: Some(ip.to_string()), port: i32::from(port) }),
        domain: None,
        capabilities: capabilities().to_vec(),
    }
}

/// What it can do, as `MasterInfo` says it. `QUOTA_V2` comes with what it promises.
pub(crate) fn capabilities() -> [Capability; 2] {
    [capability::Type::AgentUpdate, capability::Type::AgentDraining]
        .map(|capability| Capability { r#type: Some(capability.into()) })
}

/// The address by which other machines most likely reach this one: the one that would be used to
/// speak to them. Nothing is sent.
fn own_address() -> Ipv4Addr {
    let by_route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // TEST-NET-3, which only the default route leads to.
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
        match socket.local_addr().ok()? {
            SocketAddr::V4(address) if !address.ip().is_unspecified() => Some(*address.ip()),
            _ => None,
        }
    };
    let by_name = || {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        (name.trim(), 0).to_socket_addrs().ok()?.find_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    };
    by_route().or_else(by_name).unwrap_or(Ipv4Addr::LOCALHOST)
}

/// The name that belongs to an address, by the system's resolver.
fn name_of(ip: Ipv4Addr) -> Option<String> {
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).ok()?,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    };
    // NI_MAXHOST of glibc.
    let mut name = [0u8; 1025];
    let length = libc::socklen_t::try_from(size_of_val(&address)).ok()?;
    let room = libc::socklen_t::try_from(name.len()).ok()?;
    // SAFETY: `address` is an initialized sockaddr_in and `length` its size; `name` is writable for
    // `room` bytes; no service name is asked for, so a null pointer of length 0 is right. All outlive
    // the call, which keeps no pointer.
    let failed = unsafe {
        libc::getnameinfo(
            (&raw const address).cast(),
            length,
            name.as_mut_ptr().cast(),
            room,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failed != 0 {
        return None;
    }
    let text = std::ffi::CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_shown() {
        let settings = Settings {
            advertise_ip: Some(Ipv4Addr::new(10, 1, 2, 3)),
            advertise_port: Some(80),
            hostname: Some("cluster.example".to_owned()),
            ..Settings::default()
        };
        let info = master_info(&settings, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5050));
        assert_eq!(info.pid(), "master@10.1.2.3:80");
        assert_eq!(info.hostname(), "cluster.example");
        assert_eq!(info.ip.to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(info.address.unwrap().ip(), "10.1.2.3");
    }

    #[test]
    fn without_a_lookup_the_address_is_the_name() {
        let settings = Settings { hostname_lookup: false, ..Settings::default() };
        let info = master_info(&settings, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5050));
        assert_eq!((info.hostname(), info.port), ("127.0.0.1", 5050));
        let info = master_info(&settings, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 5050));
        assert_ne!(info.hostname(), "0.0.0.0");
    }

    #[test]
    fn a_lookup_always_ends_in_a_name() {
        assert!(name_of(Ipv4Addr::LOCALHOST).is_none_or(|name| !name.is_empty()));
    }
}
