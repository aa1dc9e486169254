//! The network that a container is in, for connections from the agent.
//!
//! A socket belongs for good to the network namespace of the thread that made it. So a thread of its own enters the container's
//! namespace, makes the sockets (and asks for addresses, when there is a name), and ends; it never comes back to a pool, where
//! others would find themselves in a strange network. All else is done by the runtime as with any socket. A container
//! that shares the agent's network costs no thread.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// A network namespace.
#[derive(Debug)]
pub(super) struct Network(Option<File>);

/// Where to connect to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Host {
    Address(std::net::IpAddr),
    /// Looked up with the agent's resolver, in the container's network.
    Name(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot enter the container's network: {0}")]
    Enter(#[source] io::Error),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] io::Error),
}

impl Network {
    /// The network of the container with this first process.
    ///
    /// # Errors
    /// When there is no such process.
    pub(super) fn of(pid: Option<u32>) -> Result<Self, String> {
        let pid = pid.filter(|pid| *pid > 0).ok_or("the container has no process")?;
        let opened = File::open(format!("/proc/{pid}/ns/net"));
        let theirs = opened.map_err(|error| format!("the container's network is gone: {error}"))?;
        let (a, b) = (theirs.metadata(), fs::metadata("/proc/self/ns/net"));
        let same = matches!((a, b), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()));
        Ok(Self((!same).then_some(theirs)))
    }

    /// Connects, to the first of the host's addresses that answers.
    pub(super) async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, ConnectError> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (address, socket) in self.sockets(host, port).await? {
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(ConnectError::Connect(format!("{host} port {port}"), failed))
    }

    /// A socket for each of the host's addresses.
    async fn sockets(&self, host: &Host, port: u16) -> Result<Vec<(SocketAddr, TcpSocket)>, ConnectError> {
        let named = |error| ConnectError::Connect(format!("{host} port {port}"), error);
        let Some(namespace) = &self.0 else {
            let addresses = match host {
                Host::Address(address) => vec![SocketAddr::new(*address, port)],
                Host::Name(name) => {
                    tokio::net::lookup_host((name.as_str(), port)).await.map_err(named)?.collect()
                }
            };
            return addresses.into_iter().map(open).collect::<io::Result<_>>().map_err(named);
        };
        let namespace = namespace.try_clone().map_err(ConnectError::Enter)?;
        let target = host.clone();
        let made = on_thread(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|error| ConnectError::Enter(io::Error::from(error)))?;
            let resolved = match &target {
                Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
                Host::Name(name) => (name.as_str(), port).to_socket_addrs().map(Iterator::collect),
            };
            let sockets = resolved.and_then(|addresses| addresses.into_iter().map(open_raw).collect());
            sockets.map_err(|error: io::Error| ConnectError::Connect(format!("{target} port {port}"), error))
        });
        let made: Vec<(SocketAddr, OwnedFd)> = made.await?;
        Ok(made.into_iter().map(|(address, socket)| (address, wrap(socket))).collect())
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Runs a function on a thread that does nothing else before or after. A caller that waits no longer leaves it to its end.
async fn on_thread<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, ConnectError> + Send + 'static,
) -> Result<T, ConnectError> {
    let (answer, answered) = oneshot::channel();
    let work = move || {
        let _ = answer.send(run());
    };
    let thread = std::thread::Builder::new().name("agent-check".to_owned()).stack_size(STACK).spawn(work);
    thread.map_err(ConnectError::Enter)?;
    answered.await.unwrap_or_else(|_| Err(ConnectError::Enter(io::Error::other("the thread ended early"))))
}

/// Enough for a resolver, which keeps answers on its stack.
const STACK: usize = 256 * 1024;

fn open(address: SocketAddr) -> io::Result<(SocketAddr, TcpSocket)> {
    open_raw(address).map(|(address, socket)| (address, wrap(socket)))
}

fn open_raw(address: SocketAddr) -> io::Result<(SocketAddr, OwnedFd)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok((address, socket(family, SockType::Stream, flags, None)?))
}

/// To be called within a runtime.
fn wrap(socket: OwnedFd) -> TcpSocket {
    TcpSocket::from_std_stream(StdStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_this_network_needs_no_thread() {
        assert!(Network::of(Some(std::process::id())).unwrap().0.is_none());
        assert!(Network::of(None).is_err());
        assert!(Network::of(Some(0)).is_err());
        assert!(Network::of(Some(u32::MAX)).is_err());
    }
}
