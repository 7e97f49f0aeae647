//! Opening handshakes, one after the other on blocking sockets: how many are under way at once is the caller's choice.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use handoff_protocol::accept_key;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use std::os::fd::AsRawFd;

use crate::cli::Target;
use crate::contents::Keys;
use crate::tls::MIN_BUFFER;
use crate::transport::{Received, Transport};

/// For whatever the server is waited for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

const MAX_HEAD: usize = 16 * 1024;

/// Why a client is not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("connecting from {from} to {to}: {source}")]
    Connect { from: Ipv4Addr, to: SocketAddrV4, source: io::Error },
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    #[error("opening handshake: {0}")]
    Io(#[from] io::Error),
    #[error("the server hung up in the opening handshake, after {0:?}")]
    Gone(String),
    #[error("not a WebSocket's answer: {0:?}")]
    Answer(String),
}

/// Opens the client number `index`. Returns its socket, which blocks for at most [`TIMEOUT`], and what came behind the 101.
pub(crate) fn open(target: &Target, index: u32) -> Result<(Transport, Vec<u8>), OpenError> {
    let from = Ipv4Addr::from(u32::from(target.source).wrapping_add(index % target.sources));
    let socket = connect_from(from, target.connect).map_err(|source| OpenError::Connect {
        from,
        to: target.connect,
        source,
    })?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    // Frames are small, and answers are waited for.
    socket.set_nodelay(true)?;
    let mut transport = Transport::new(socket, target.tls.as_ref()).map_err(OpenError::Tls)?;

    let mut keys = Keys::new(u64::from(index) << 20 | u64::from(std::process::id()));
    let nonce: Vec<u8> = (0..4).flat_map(|_| keys.next().to_be_bytes()).collect();
    let key = BASE64_STANDARD.encode(nonce);
    transport.queue().extend_from_slice(
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            target.path, target.connect
        )
        .as_bytes(),
    );
    transport.send_all()?;

    let mut received = Vec::new();
    let mut buffer = [0; MIN_BUFFER];
    let head_len = loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let outcome = transport.receive(&mut buffer, |bytes| {
            received.extend_from_slice(bytes);
            Ok::<_, OpenError>(())
        })?;
        match outcome {
            Received::Some { .. } if received.len() <= MAX_HEAD => (),
            Received::Nothing => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            _ => return Err(OpenError::Gone(String::from_utf8_lossy(&received).into_owned())),
        }
    };
    let early = received.split_off(head_len);
    if !is_accepted(&received, key.as_bytes()) {
        return Err(OpenError::Answer(String::from_utf8_lossy(&received).into_owned()));
    }
    Ok((transport, early))
}

fn connect_from(from: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The port is chosen by connect(), for this destination; bind() would want one that nobody uses.
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(fd))
}

fn is_accepted(head: &[u8], key: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let is_whole = response.parse(head).is_ok_and(|status| status.is_complete());
    let accept = accept_key(key);
    is_whole
        && response.code == Some(101)
        && response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && header.value == accept
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_is_accepted() {
        // RFC 6455 1.3
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        let good = b"HTTP/1.1 101 Switching Protocols\r\nSEC-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert!(is_accepted(good, key));
        assert!(!is_accepted(good, b"another"));
        assert!(!is_accepted(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", key));
        assert!(!is_accepted(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", key));
    }
}
