//! `--listen`: the same application over TCP, by the same opening handshake, for clients and for `proxy_pass`.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpSocket;

use crate::listener::HandoffListener;
use crate::options::OfferOptions;

/// Must be called within the runtime.
pub(crate) fn listen(
    address: SocketAddr,
    options: OfferOptions,
) -> io::Result<(HandoffListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of the last run in TIME_WAIT do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener: TcpListener = socket.listen(BACKLOG)?.into_std()?;
    let bound = listener.local_addr()?;
    Ok((HandoffListener::from_tcp(listener, options)?, bound))
}

/// As [`Options::new`](crate::Options::new)'s.
const BACKLOG: u32 = 1024;
