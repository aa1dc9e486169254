//! The TCP sockets of a network namespace, by `sock_diag(7)`.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

/// The kernel fills no more than 32 KiB at once, whatever the reader has room for.
const BUFFER: usize = 64 << 10;

/// Looks at each TCP socket in one of these states, IPv4 and IPv6, of the calling thread's network namespace.
pub fn tcp(
    states: StateFlags,
    extensions: ExtensionFlags,
    mut look: impl FnMut(&InetResponse),
) -> io::Result<()> {
    for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: extensions.clone(),
            states: states.clone(),
            socket_id: any,
        };
        dump(request, &mut look)?;
    }
    Ok(())
}

fn dump(request: InetRequest, look: &mut impl FnMut(&InetResponse)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes(request), 0)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0)?;
        let mut left = buffer.get(..length).unwrap_or_default();
        while !left.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(left).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(one)) => look(&one),
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

fn bytes(request: InetRequest) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
