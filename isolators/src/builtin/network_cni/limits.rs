//! How much may go through a container's interfaces: token buckets (tc-tbf(8)) at the host's end of their veth pairs, where no task can lift them.
//!
//! What the container receives leaves the host's end, and is shaped there. What it sends arrives there, where nothing can wait; so it is led through an
//! `ifb` interface of its own, and shaped as it leaves that. The kernel takes the buckets away with the veth pair; the `ifb` is removed with the attachment.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tepui_api::units::Bytes;
use tepui_api::v1::Labels;

use super::namespace;
use super::netlink::{Bucket, Link, Netlink};

/// The label by which a task limits what it sends: bytes each second, as `1250KB`.
pub(super) const EGRESS_LABEL: &str = "tepui.network.egress";
/// The same of what it receives.
pub(super) const INGRESS_LABEL: &str = "tepui.network.ingress";

/// Below this, one packet of an interface with large frames would take seconds.
const LOWEST: u64 = 1024;

/// Bytes each second, through each interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rates {
    /// What the container sends.
    pub egress: Option<u64>,
    /// What it receives.
    pub ingress: Option<u64>,
}

impl Rates {
    pub fn any(self) -> bool {
        self.egress.is_some() || self.ingress.is_some()
    }

    /// What labels ask for.
    pub fn of_labels(labels: Option<&Labels>) -> Result<Self, String> {
        let of = |key: &str| {
            let label = labels.into_iter().flat_map(|labels| &labels.labels).find(|label| label.key == key);
            label
                .map(|label| rate(label.value()).map_err(|why| format!("the label {key}: {why}")))
                .transpose()
        };
        Ok(Self { egress: of(EGRESS_LABEL)?.flatten(), ingress: of(INGRESS_LABEL)?.flatten() })
    }

    /// The tighter of both.
    pub fn and(self, other: Self) -> Self {
        let tighter = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self { egress: tighter(self.egress, other.egress), ingress: tighter(self.ingress, other.ingress) }
    }
}

fn rate(text: &str) -> Result<Option<u64>, String> {
    let bytes: Bytes =
        text.trim().parse().map_err(|error| format!("{error}; bytes each second are meant"))?;
    checked(bytes.0)
}

/// A rate that the kernel can keep; 0 is none.
pub(super) fn checked(bytes: u64) -> Result<Option<u64>, String> {
    match bytes {
        0 => Ok(None),
        1..LOWEST => {
            Err(format!("{bytes} bytes each second are too few: give {LOWEST} or more, or 0 for no limit"))
        }
        _ => Ok(Some(bytes)),
    }
}

impl Bucket {
    /// A bucket that fills in 20 ms, and a queue that empties in 100 ms; both hold a few packets at least.
    pub fn of_rate(rate: u64) -> Self {
        let within = |bytes: u64, least: u32| u32::try_from(bytes).unwrap_or(u32::MAX).clamp(least, 1 << 28);
        let burst = within(rate / 50, 16 << 10);
        Bucket { rate, burst, queue: within(rate / 10, 32 << 10).saturating_add(burst) }
    }
}

/// The name of the interface that what a container sends by one of its interfaces is led through: the same each time, and nobody else's.
pub(super) fn egress_name(directory: &Path, interface: &str) -> String {
    // FNV-1a, 64 bits: it must be the same in all versions.
    let text = format!("{}/{interface}", directory.display());
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // At most 15 characters.
    format!("tpi{:012x}", hash >> 16)
}

/// Limits an interface of a container. `through` is the interface for what it sends.
pub(super) fn apply(
    handle: &Path,
    interface: &str,
    rates: Rates,
    through: Option<&str>,
    alias: &str,
) -> io::Result<()> {
    let inside = namespace::within(handle, || Netlink::open()?.link(interface))?;
    let mut netlink = Netlink::open()?;
    let host = other_end(&mut netlink, interface, inside)?;
    if let Some(rate) = rates.ingress {
        netlink.shape(host, &Bucket::of_rate(rate))?;
    }
    if let (Some(rate), Some(through)) = (rates.egress, through) {
        let ifb = netlink.add_ifb(through, alias)?;
        netlink.shape(ifb, &Bucket::of_rate(rate))?;
        netlink.redirect(host, ifb)?;
    }
    Ok(())
}

/// The host's end of a veth pair. Anything else that an interface may hang on is not the container's alone.
fn other_end(netlink: &mut Netlink, interface: &str, inside: Option<Link>) -> io::Result<u32> {
    let refused = |why: &str| io::Error::other(format!("{interface} cannot be limited: {why}"));
    let inside = inside.ok_or_else(|| refused("the network's plugins have not made it"))?;
    let veth = |link: &Link| link.kind == "veth";
    let peer = inside.peer.filter(|_| veth(&inside));
    let peer =
        peer.ok_or_else(|| refused("it is not one end of a veth pair; use a network of 'bridge' or 'ptp'"))?;
    let host = netlink.link_by_index(peer)?.filter(|host| veth(host) && host.peer == Some(inside.index));
    Ok(host.ok_or_else(|| refused("its other end is not in the agent's network namespace"))?.index)
}

/// Removes what [`apply`] has made and the kernel does not.
pub(super) fn remove(through: &str) -> io::Result<()> {
    Netlink::open()?.remove_link(through)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tepui_api::v1::Label;

    use super::*;

    fn labelled(egress: &str) -> Result<Rates, String> {
        let label = Label { key: EGRESS_LABEL.to_owned(), value: Some(egress.to_owned()) };
        Rates::of_labels(Some(&Labels { labels: vec![label] }))
    }

    #[test]
    fn labels_are_read() {
        assert_eq!(labelled("1250KB").unwrap(), Rates { egress: Some(1_280_000), ingress: None });
        assert_eq!(labelled("0B").unwrap(), Rates::default());
        for wrong in ["", "fast", "10", "-1KB", "100B"] {
            assert!(labelled(wrong).unwrap_err().contains(EGRESS_LABEL), "{wrong}");
        }
        assert_eq!(Rates::of_labels(None).unwrap(), Rates::default());
    }

    #[test]
    fn the_tighter_limit_holds() {
        let (one, other) =
            (Rates { egress: Some(5), ingress: None }, Rates { egress: Some(3), ingress: Some(9) });
        assert_eq!(one.and(other), Rates { egress: Some(3), ingress: Some(9) });
        assert_eq!(Rates::default().and(one), one);
    }

    proptest! {
        #[test]
        fn buckets_hold_a_packet_and_little_more(rate in LOWEST..=u64::MAX) {
            let bucket = Bucket::of_rate(rate);
            prop_assert!(bucket.burst >= 16 << 10 && bucket.queue > bucket.burst);
            prop_assert!(u64::from(bucket.burst) <= (rate / 50).max(16 << 10));
        }

        #[test]
        fn names_fit_the_kernel(directory in "/[a-z/]{1,80}", number in 0..20u8) {
            let name = egress_name(Path::new(&directory), &format!("eth{number}"));
            prop_assert_eq!(name.len(), 15);
            prop_assert_ne!(name, egress_name(Path::new(&directory), "eth20"));
        }
    }
}
