//! Probes by TCP: whether somebody listens.

use std::net::IpAddr;

use super::network::{ConnectError, Host, Network};

/// Connects, and closes the connection at once. Mesos' helper says "no" for all that goes wrong, and so does this.
///
/// # Errors
/// When the container's network cannot be entered.
pub(super) async fn connects(network: &Network, address: IpAddr, port: u32) -> Result<bool, String> {
    let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else {
        return Err(format!("{port} is not a port"));
    };
    match network.connect(&Host::Address(address), port).await {
        Ok(_) => Ok(true),
        Err(ConnectError::Connect(..)) => Ok(false),
        Err(error @ ConnectError::Enter(_)) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn tells_whether_somebody_listens() {
        let network = Network::of(Some(std::process::id())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = u32::from(address.port());
        assert_eq!(connects(&network, address.ip(), port).await, Ok(true));
        drop(listener);
        assert_eq!(connects(&network, address.ip(), port).await, Ok(false));
        assert!(connects(&network, address.ip(), 0).await.is_err());
        assert!(connects(&network, address.ip(), 70_000).await.is_err());
    }
}
