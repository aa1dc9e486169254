//! Which TCP ports are listened on, and by which sockets: `sock_diag(7)` and `/proc/<pid>/fd`.
//!
//! The kernel is asked for listening sockets alone, so that the answer is short however many connections the host has.

use std::collections::HashMap;
use std::fs;
use std::io;

use netlink_packet_sock_diag::inet::{ExtensionFlags, StateFlags};

use super::super::sock_diag;

/// A socket, as it is called in `/proc/<pid>/fd`.
pub type Inode = u64;

/// The listening TCP sockets of this network namespace, IPv4 and IPv6, with their ports.
///
/// # Errors
/// When the kernel does not tell.
pub fn listening() -> io::Result<HashMap<Inode, u16>> {
    let mut found = HashMap::new();
    sock_diag::tcp(StateFlags::LISTEN, ExtensionFlags::empty(), |one| {
        found.insert(one.header.inode.into(), one.header.socket_id.source_port);
    })?;
    Ok(found)
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
