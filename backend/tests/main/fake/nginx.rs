//! nginx's side of the protocol, step by step, and wrong where a test wants it so.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use handoff_protocol::{commit_len, encode_commit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::{PATIENCE, read_head};

/// One connection from nginx to the backend.
pub struct Nginx {
    pub stream: UnixStream,
}

impl Nginx {
    pub fn connect(path: &Path) -> Nginx {
        let stream = UnixStream::connect(path).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Nginx { stream }
    }

    /// Connects and offers a descriptor.
    pub fn offering(path: &Path, target: &str, fields: &str) -> Nginx {
        let mut nginx = Nginx::connect(path);
        nginx.send(request(target, &format!("Handoff: fd; v=1\r\n{fields}")).as_bytes());
        nginx
    }

    /// As [`Nginx::offering`], and takes the 101.
    pub fn accepted(path: &Path) -> Nginx {
        let mut nginx = Nginx::offering(path, "/echo", "");
        let head = nginx.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        nginx
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write");
    }

    pub fn head(&mut self) -> String {
        read_head(&mut self.stream)
    }

    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("read");
        rest
    }

    /// Sends bytes with descriptors.
    pub fn pass(&self, bytes: &[u8], descriptors: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let parts = [IoSlice::new(bytes)];
        let fd = self.stream.as_raw_fd();
        let sent = sendmsg::<()>(fd, &parts, &rights, MsgFlags::MSG_NOSIGNAL, None);
        assert_eq!(sent, Ok(bytes.len()));
    }

    pub fn offer(&self, client: &impl AsRawFd) {
        self.pass(b"F", &[client.as_raw_fd()]);
    }

    pub fn commit(&mut self, early_data: &[u8]) {
        self.send(&commit(early_data));
    }
}

/// A commit message.
pub fn commit(early_data: &[u8]) -> Vec<u8> {
    let sections: &[(u8, &[u8])] = if early_data.is_empty() {
        &[]
    } else {
        &[(handoff_protocol::section::EARLY_DATA, early_data)]
    };
    let mut bytes = vec![0; commit_len(sections).expect("length")];
    encode_commit(sections, &mut bytes).expect("room");
    bytes
}

/// A request head such as nginx sends it.
pub fn request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// RFC 6455 1.3's answer to the key above.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client and nginx's socket for it, as nginx leaves it: nonblocking, without Nagle's algorithm.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("timeout");
    client.set_write_timeout(Some(PATIENCE)).expect("timeout");
    let (held, _) = listener.accept().expect("accept");
    held.set_nonblocking(true).expect("nonblocking");
    held.set_nodelay(true).expect("nodelay");
    (client, held)
}
