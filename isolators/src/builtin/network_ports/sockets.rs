//! Which TCP ports are listened on, and by which sockets: `sock_diag(7)` and `/proc/<pid>/fd`.
//!
//! The kernel is asked for listening sockets alone, so that the answer is short however many connections the host has.

use std::collections::HashMap;
use std::fs;
use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

/// The kernel fills no more than 32 KiB at once, whatever the reader has room for.
const BUFFER: usize = 64 << 10;

/// A socket, as it is called in `/proc/<pid>/fd`.
pub type Inode = u64;

/// The listening TCP sockets of this network namespace, IPv4 and IPv6, with their ports.
///
/// # Errors
/// When the kernel does not tell.
pub fn listening() -> io::Result<HashMap<Inode, u16>> {
    let mut found = HashMap::new();
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        dump(family, any, &mut found)?;
    }
    Ok(found)
}

fn dump(family: u8, any: SocketId, found: &mut HashMap<Inode, u16>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(family, any), 0)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0)?;
        let mut left = buffer.get(..length).unwrap_or_default();
        while !left.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(left).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(one)) => {
                    found.insert(one.header.inode.into(), one.header.socket_id.source_port);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages begin at multiples of four bytes.
            let taken = (message.header.length as usize).next_multiple_of(4).max(4);
            left = left.get(taken..).unwrap_or_default();
        }
    }
}

fn request(family: u8, any: SocketId) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id: any,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The sockets that a process has open.
///
/// # Errors
/// When it has ended.
pub fn of_process(pid: i32) -> io::Result<Vec<Inode>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // Closed meanwhile, or the process has ended.
        let Ok(target) = entry.and_then(|entry| fs::read_link(entry.path())) else { continue };
        inodes.extend(target.to_str().and_then(inode));
    }
    Ok(inodes)
}

/// `socket:[4711]`
fn inode(target: &str) -> Option<Inode> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    fn own_ports() -> Vec<u16> {
        let all = listening().unwrap();
        let own = of_process(std::process::id().try_into().unwrap()).unwrap();
        own.iter().filter_map(|inode| all.get(inode).copied()).collect()
    }

    #[test]
    fn listeners_of_a_process_are_found_in_both_families_and_connections_are_not() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let (port4, port6) = (v4.local_addr().unwrap().port(), v6.local_addr().unwrap().port());
        let client = TcpStream::connect(("127.0.0.1", port4)).unwrap();
        let from = client.local_addr().unwrap().port();
        let ports = own_ports();
        assert!(ports.contains(&port4) && ports.contains(&port6) && !ports.contains(&from), "{ports:?}");
        drop((v4, v6));
        let ports = own_ports();
        assert!(!ports.contains(&port4) && !ports.contains(&port6), "{ports:?}");
    }

    #[test]
    fn more_listeners_than_fit_into_one_message_are_all_found() {
        let all: Vec<_> = (0..600).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = own_ports();
        assert!(all.iter().all(|one| ports.contains(&one.local_addr().unwrap().port())));
    }

    #[test]
    fn a_process_that_has_ended_is_an_error() {
        assert!(of_process(i32::MAX).is_err());
    }

    proptest! {
        #[test]
        fn only_sockets_have_an_inode(number: u64, other in "[a-z:\\[\\]]{0,12}") {
            prop_assert_eq!(inode(&format!("socket:[{number}]")), Some(number));
            prop_assert_eq!(inode(&format!("pipe:[{number}]")), None);
            prop_assert_eq!(inode(&other), None);
        }
    }
}
