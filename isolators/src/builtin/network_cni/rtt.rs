//! How long packets take to come back, by the TCP connections of a container: `net_tcp_rtt_microsecs_*`.

use std::io;
use std::mem::offset_of;
use std::path::Path;

use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetResponse, StateFlags};
use tepui_api::v1::ResourceStatistics;

use super::super::sock_diag;
use super::namespace;

/// Adds percentiles over all connections in a network namespace whose round trip time the kernel knows. Nothing, without one.
pub(super) fn add(handle: &Path, statistics: &mut ResourceStatistics) -> io::Result<()> {
    let mut times = namespace::within(handle, || {
        let mut times = Vec::new();
        sock_diag::tcp(StateFlags::all(), ExtensionFlags::INFO, |socket| times.extend(of_socket(socket)))?;
        Ok(times)
    })?;
    times.sort_unstable();
    statistics.net_tcp_rtt_microsecs_p50 = percentile(&times, 50);
    statistics.net_tcp_rtt_microsecs_p90 = percentile(&times, 90);
    statistics.net_tcp_rtt_microsecs_p95 = percentile(&times, 95);
    statistics.net_tcp_rtt_microsecs_p99 = percentile(&times, 99);
    Ok(())
}

/// Microseconds; smoothed by the kernel.
fn of_socket(socket: &InetResponse) -> Option<u32> {
    let info = socket.nlas.iter().find_map(|attribute| match attribute {
        Nla::TcpInfo(info) => Some(info),
        _ => None,
    })?;
    let at = offset_of!(libc::tcp_info, tcpi_rtt);
    let bytes = info.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes)).filter(|time| *time > 0)
}

/// By Mesos' way of counting: the value behind so many of a hundred.
fn percentile(sorted: &[u32], percent: usize) -> Option<f64> {
    sorted.get(sorted.len() * percent / 100).copied().map(f64::from)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn percentiles_are_counted_as_in_mesos() {
        let times: Vec<u32> = (1..=100).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (Some(51.0), Some(100.0)));
        assert_eq!(
            (percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 50)),
            (Some(7.0), Some(7.0), None)
        );
    }

    #[test]
    fn connections_of_this_machine_have_times() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        let mut times = Vec::new();
        sock_diag::tcp(StateFlags::all(), ExtensionFlags::INFO, |one| times.extend(of_socket(one))).unwrap();
        assert!(!times.is_empty() && times.iter().all(|time| *time < 3_600_000_000), "{times:?}");
    }
}
