//! Statistics of a container's network namespace, read from `/proc/<pid>/net` of its first process.

use std::fs;
use std::io;

use serde_json::{Map, Value, json};
use tepui_api::v1::{ResourceStatistics, SnmpStatistics};

/// What of an interface proc(5) shows in `net/dev`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Traffic {
    bytes: u64,
    packets: u64,
    errors: u64,
    dropped: u64,
}

impl Traffic {
    /// Of four columns.
    fn of(columns: &[u64]) -> Option<Self> {
        let &[bytes, packets, errors, dropped, ..] = columns else { return None };
        Some(Self { bytes, packets, errors, dropped })
    }

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.packets += other.packets;
        self.errors += other.errors;
        self.dropped += other.dropped;
    }
}

/// Adds what went through the interfaces named, all together.
pub(super) fn traffic(
    pid: u32,
    interfaces: &[String],
    statistics: &mut ResourceStatistics,
) -> io::Result<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    let (received, sent) = sum(&text, interfaces);
    statistics.net_rx_bytes = Some(received.bytes);
    statistics.net_rx_packets = Some(received.packets);
    statistics.net_rx_errors = Some(received.errors);
    statistics.net_rx_dropped = Some(received.dropped);
    statistics.net_tx_bytes = Some(sent.bytes);
    statistics.net_tx_packets = Some(sent.packets);
    statistics.net_tx_errors = Some(sent.errors);
    statistics.net_tx_dropped = Some(sent.dropped);
    Ok(())
}

/// Received and sent. Eight columns each.
fn sum(text: &str, interfaces: &[String]) -> (Traffic, Traffic) {
    let (mut received, mut sent) = (Traffic::default(), Traffic::default());
    for line in text.lines() {
        let Some((name, figures)) = line.split_once(':') else { continue };
        if !interfaces.iter().any(|interface| interface == name.trim()) {
            continue;
        }
        let figures: Vec<u64> = figures.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
        if let Some(one) = Traffic::of(&figures) {
            received.add(one);
        }
        if let Some(one) = figures.get(8..).and_then(Traffic::of) {
            sent.add(one);
        }
    }
    (received, sent)
}

/// Adds the counters of the protocols. Mesos has named its fields after those of the kernel.
pub(super) fn snmp(pid: u32, statistics: &mut ResourceStatistics) -> io::Result<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp"))?;
    statistics.net_snmp_statistics = protocols(&text);
    Ok(())
}

/// Pairs of lines, names above figures, each behind the protocol's name.
fn protocols(text: &str) -> Option<SnmpStatistics> {
    let mut found = Map::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [names, figures] = pair else { continue };
        let (Some((protocol, names)), Some((_, figures))) =
            (names.split_once(": "), figures.split_once(": "))
        else {
            continue;
        };
        let field = match protocol {
            "Ip" => "ip_stats",
            "Icmp" => "icmp_stats",
            "Tcp" => "tcp_stats",
            "Udp" => "udp_stats",
            _ => continue,
        };
        let pairs = names.split_whitespace().zip(figures.split_whitespace());
        let values =
            pairs.filter_map(|(name, figure)| Some((name.to_owned(), json!(figure.parse::<i64>().ok()?))));
        found.insert(field.to_owned(), Value::Object(values.collect()));
    }
    serde_json::from_value(Value::Object(found)).ok()
}

/// Adds the numbers of TCP connections: those in use, and those that wait for stray packets.
pub(super) fn sockets(pid: u32, statistics: &mut ResourceStatistics) -> io::Result<()> {
    let four = fs::read_to_string(format!("/proc/{pid}/net/sockstat"))?;
    // Absent without IPv6.
    let six = fs::read_to_string(format!("/proc/{pid}/net/sockstat6")).unwrap_or_default();
    let in_use =
        [count(&four, "TCP:", "inuse"), count(&six, "TCP6:", "inuse")].into_iter().flatten().sum::<u32>();
    statistics.net_tcp_active_connections = Some(in_use.into());
    statistics.net_tcp_time_wait_connections = count(&four, "TCP:", "tw").map(f64::from);
    Ok(())
}

fn count(text: &str, protocol: &str, name: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    2000      20    1    2    0     0          0         0     3000      30    3    4    0     0       0          0
  eth1:       5       1    0    0    0     0          0         0        6       1    0    0    0     0       0          0
";

    #[test]
    fn interfaces_are_added_up() {
        let (received, sent) = sum(DEV, &["eth0".to_owned(), "eth1".to_owned()]);
        assert_eq!(received, Traffic { bytes: 2005, packets: 21, errors: 1, dropped: 2 });
        assert_eq!(sent, Traffic { bytes: 3006, packets: 31, errors: 3, dropped: 4 });
    }

    #[test]
    fn counters_of_this_machine_are_read() {
        let mut statistics = ResourceStatistics::default();
        let pid = std::process::id();
        snmp(pid, &mut statistics).unwrap();
        let snmp = statistics.net_snmp_statistics.unwrap();
        assert!(snmp.ip_stats.unwrap().default_ttl.unwrap() > 0);
        assert!(
            snmp.tcp_stats.unwrap().rto_max.is_some()
                && snmp.udp_stats.is_some()
                && snmp.icmp_stats.is_some()
        );
        sockets(pid, &mut statistics).unwrap();
        assert!(statistics.net_tcp_active_connections.is_some());
    }

    #[test]
    fn sockets_are_counted() {
        let text = "sockets: used 9\nTCP: inuse 3 orphan 0 tw 2 alloc 5 mem 1\nUDP: inuse 1 mem 0\n";
        assert_eq!(
            (count(text, "TCP:", "inuse"), count(text, "TCP:", "tw"), count(text, "RAW:", "inuse")),
            (Some(3), Some(2), None)
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*(: [0-9 ]*\n)*") {
            sum(&text, &["eth0".to_owned()]);
            protocols(&text);
            count(&text, "TCP:", "inuse");
        }
    }
}
