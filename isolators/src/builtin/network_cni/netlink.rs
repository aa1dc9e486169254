//! The few rtnetlink(7) messages that this isolator needs: links looked at, brought up, made and removed, and traffic control.
//!
//! A socket belongs to the network namespace in which it was opened, whatever its thread does later. Structures and numbers are those of the
//! kernel's `linux/rtnetlink.h`, `linux/if_link.h` and `linux/pkt_sched.h`; all integers are in the machine's byte order.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

const TC_H_ROOT: u32 = 0xffff_ffff;
/// The parent of a qdisc for what arrives at an interface, and the handle of that qdisc.
const TC_H_INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
const TC_LINKLAYER_ETHERNET: u8 = 1;
const ETH_P_ALL: u16 = 3;
const IFF_UP: u32 = 1;

/// The flag of attributes that hold attributes.
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// No answer of these is longer.
const ANSWER: usize = 32 * 1024;

/// A token bucket, which lets no more through than `rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Bytes each second.
    pub rate: u64,
    /// Bytes that may pass at once after a pause.
    pub burst: u32,
    /// Bytes that wait at most; what comes beyond them is dropped.
    pub queue: u32,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    /// `veth`, `macvlan` and so on; empty for a device.
    pub kind: String,
    /// The interface it hangs on: for a veth its other end, which may be in another namespace.
    pub peer: Option<u32>,
}

/// A socket to the kernel's routing part, of one network namespace.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Of the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
        let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // The kernel answers at once; were it not to, nobody shall wait for ever.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// An interface by its name; `None` if there is none.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = Message::of_link(RTM_GETLINK, 0, 0, 0);
        message.attribute(IFLA_IFNAME, &text(name));
        self.ask_for_link(message)
    }

    /// An interface by its number; `None` if there is none.
    pub fn link_by_index(&mut self, index: u32) -> io::Result<Option<Link>> {
        self.ask_for_link(Message::of_link(RTM_GETLINK, 0, index, 0))
    }

    fn ask_for_link(&mut self, message: Message) -> io::Result<Option<Link>> {
        match self.call(message) {
            Ok(answer) => Ok(answer.as_deref().and_then(Link::read)),
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings an interface up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.call(Message::of_link(RTM_NEWLINK, 0, index, IFF_UP)).map(drop)
    }

    /// Makes an interface through which the packets of others can be led (`ifb`), and brings it up. One that is there already is fine.
    pub fn add_ifb(&mut self, name: &str, alias: &str) -> io::Result<u32> {
        let mut message = Message::of_link(RTM_NEWLINK, NLM_F_CREATE, 0, IFF_UP);
        message.attribute(IFLA_IFNAME, &text(name));
        message.attribute(IFLA_IFALIAS, alias.as_bytes());
        message.nested(IFLA_LINKINFO, |info| info.attribute(IFLA_INFO_KIND, b"ifb"));
        self.call(message)?;
        match self.link(name)? {
            Some(link) => Ok(link.index),
            None => Err(io::Error::other(format!("the interface {name} is gone again"))),
        }
    }

    /// Removes an interface; that there is none is fine.
    pub fn remove_link(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::of_link(RTM_DELLINK, 0, 0, 0);
        message.attribute(IFLA_IFNAME, &text(name));
        match self.call(message) {
            Err(error) if error.raw_os_error() != Some(Errno::ENODEV as i32) => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets what leaves by an interface pass through a bucket, in place of whatever it passed before.
    pub fn shape(&mut self, index: u32, bucket: &Bucket) -> io::Result<()> {
        let create = NLM_F_CREATE | NLM_F_REPLACE;
        let mut message = Message::of_traffic(RTM_NEWQDISC, create, index, 0x0001_0000, TC_H_ROOT, 0);
        message.attribute(TCA_KIND, b"tbf\0");
        message.nested(TCA_OPTIONS, |options| {
            options.attribute(TCA_TBF_PARMS, &bucket.parameters());
            options.attribute(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
            options.attribute(TCA_TBF_BURST, &bucket.burst.to_ne_bytes());
        });
        self.call(message).map(drop)
    }

    /// Leads all that arrives at an interface through another one.
    pub fn redirect(&mut self, index: u32, through: u32) -> io::Result<()> {
        let create = NLM_F_CREATE;
        let mut message = Message::of_traffic(RTM_NEWQDISC, create, index, INGRESS_HANDLE, TC_H_INGRESS, 0);
        message.attribute(TCA_KIND, b"ingress\0");
        self.call(message)?;
        let info = (1 << 16) | u32::from(ETH_P_ALL.to_be());
        let mut message = Message::of_traffic(RTM_NEWTFILTER, create, index, 0, INGRESS_HANDLE, info);
        message.attribute(TCA_KIND, b"u32\0");
        message.nested(TCA_OPTIONS, |options| {
            options.attribute(TCA_U32_SEL, &everything());
            options.nested(TCA_U32_ACT, |actions| {
                actions.nested(1, |action| {
                    action.attribute(TCA_ACT_KIND, b"mirred\0");
                    action.nested(TCA_ACT_OPTIONS, |options| {
                        // tc_mirred: index, capabilities, verdict, two counts of references, what to do, with which interface.
                        let numbers = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, through];
                        options.attribute(TCA_MIRRED_PARMS, &numbers.map(u32::to_ne_bytes).concat());
                    });
                });
            });
        });
        self.call(message).map(drop)
    }

    /// Sends a request and waits for its acknowledgement; gives the answer that came before it, if one did.
    fn call(&mut self, message: Message) -> io::Result<Option<Vec<u8>>> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        sendto(self.socket.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = vec![0; ANSWER];
        let mut answer = None;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (kind, sequence, body) in messages(&buffer[..length]) {
                if sequence != self.sequence {
                    continue;
                }
                if kind != NLMSG_ERROR {
                    answer = Some(body.to_vec());
                    continue;
                }
                return match word(body, 0).map_or(0, |code| code.cast_signed()) {
                    0 => Ok(answer),
                    code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                };
            }
        }
    }
}

impl Bucket {
    /// `struct tc_tbf_qopt`. The bucket's size is told by an attribute of its own, in bytes.
    fn parameters(&self) -> Vec<u8> {
        let mut bytes = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
        bytes.extend(u32::try_from(self.rate).unwrap_or(u32::MAX).to_ne_bytes());
        // No peak rate, the queue's length, and two figures that the attribute stands for.
        bytes.extend([0; 12]);
        bytes.extend(self.queue.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}

/// `struct tc_u32_sel` with one key that every packet matches.
fn everything() -> Vec<u8> {
    const TERMINAL: u8 = 1;
    let mut bytes = vec![TERMINAL, 0, 1, 0];
    bytes.extend([0; 12]);
    bytes.extend([0; 16]);
    bytes
}

fn text(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A request that is being put together.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        Message(bytes)
    }

    /// With `struct ifinfomsg`.
    fn of_link(kind: u16, flags: u16, index: u32, up: u32) -> Self {
        let mut message = Self::new(kind, flags);
        message.0.extend([0, 0, 0, 0]);
        for number in [index, up, up] {
            message.0.extend(number.to_ne_bytes());
        }
        message
    }

    /// With `struct tcmsg`.
    fn of_traffic(kind: u16, flags: u16, index: u32, handle: u32, parent: u32, info: u32) -> Self {
        let mut message = Self::new(kind, flags);
        message.0.extend([0, 0, 0, 0]);
        for number in [index, handle, parent, info] {
            message.0.extend(number.to_ne_bytes());
        }
        message
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.0.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - begin).unwrap_or(u16::MAX);
        self.0[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// The messages of one answer: kind, sequence number and what follows.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(sequence)) = (word(bytes, 0), half(bytes, 4), word(bytes, 8)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push((kind, sequence, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attributes of a message or of another attribute.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (half(bytes, 0), half(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else { break };
        found.push((kind & !NESTED, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

impl Link {
    /// From `struct ifinfomsg` and its attributes.
    fn read(body: &[u8]) -> Option<Self> {
        let index = word(body, 4)?;
        let mut link = Link { index, kind: String::new(), peer: None };
        for (kind, value) in attributes(body.get(16..)?) {
            match kind {
                IFLA_LINK => link.peer = word(value, 0),
                IFLA_LINKINFO => {
                    let kinds = attributes(value).into_iter().find(|(kind, _)| *kind == IFLA_INFO_KIND);
                    let name = kinds.map(|(_, name)| name).unwrap_or_default();
                    link.kind = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
                }
                _ => {}
            }
        }
        Some(link)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.kind.as_str()), (1, ""));
        assert_eq!(netlink.link_by_index(1).unwrap(), Some(lo));
        assert_eq!(netlink.link("no-such-link").unwrap(), None);
        netlink.remove_link("no-such-link").unwrap();
    }

    #[test]
    fn structures_have_the_kernel_s_sizes() {
        assert_eq!(Bucket { rate: 1, burst: 1, queue: 1 }.parameters().len(), 36);
        assert_eq!(everything().len(), 32);
        assert_eq!(Message::of_link(RTM_GETLINK, 0, 0, 0).finish(1).len(), 32);
        assert_eq!(Message::of_traffic(RTM_NEWQDISC, 0, 0, 0, 0, 0).finish(1).len(), 36);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            messages(&bytes);
            attributes(&bytes);
            Link::read(&bytes);
        }

        #[test]
        fn attributes_come_out_as_they_went_in(values in prop::collection::vec((1u16..0x7fff, prop::collection::vec(any::<u8>(), 0..20)), 0..6)) {
            let mut message = Message(Vec::new());
            for (kind, value) in &values {
                message.attribute(*kind, value);
            }
            let read: Vec<_> = attributes(&message.0).into_iter().map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
