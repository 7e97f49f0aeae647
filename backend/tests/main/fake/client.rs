//! A WebSocket client that sends whatever bytes a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{setsockopt, sockopt};

use super::nginx::{Nginx, request, tcp_pair};
use super::{PATIENCE, read_head};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const FIN: u8 = 0x80;

/// A client after its opening handshake.
pub struct Client<S = TcpStream> {
    pub stream: S,
}

impl Client {
    /// Connects to `--listen`.
    pub fn connect(address: SocketAddr, target: &str) -> Client {
        let (client, head) = Client::handshake(address, target, "");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// Connects, and returns the answer's head too.
    pub fn handshake(address: SocketAddr, target: &str, fields: &str) -> (Client, String) {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        stream.write_all(request(target, fields).as_bytes()).expect("write");
        let head = read_head(&mut stream);
        (Client { stream }, head)
    }

    /// As nginx hands it over, with these bytes as its early data.
    pub fn handed_over(socket: &Path, target: &str, early: &[u8]) -> Client {
        let (theirs, held) = tcp_pair();
        theirs.set_nodelay(true).expect("nodelay");
        let mut nginx = Nginx::offering(socket, target, "");
        let head = nginx.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        nginx.offer(&held);
        nginx.commit(early);
        Client { stream: theirs }
    }
}

impl Client<UnixStream> {
    /// As nginx hands over one that came to a Unix socket of its own: between the two ends is the room of one buffer, of a
    /// size that does not change, and nothing that waits for a window to open.
    pub fn over_unix(socket: &Path, target: &str) -> Client<UnixStream> {
        let (theirs, held) = UnixStream::pair().expect("pair");
        theirs.set_read_timeout(Some(PATIENCE)).expect("timeout");
        theirs.set_write_timeout(Some(PATIENCE)).expect("timeout");
        held.set_nonblocking(true).expect("nonblocking");
        let mut nginx = Nginx::offering(socket, target, "");
        let head = nginx.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        nginx.offer(&held);
        nginx.commit(b"");
        Client { stream: theirs }
    }

    /// As nginx tunnels it.
    pub fn tunnelled(socket: &Path, target: &str) -> Client<UnixStream> {
        let mut nginx = Nginx::connect(socket);
        nginx.send(request(target, "").as_bytes());
        let head = nginx.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Client { stream: nginx.stream }
    }
}

impl<S: Read + Write> Client<S> {
    pub fn text(&mut self, text: &str) {
        self.raw(&frame(FIN | TEXT, text.as_bytes()));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write");
    }

    /// The next frame's first byte and payload.
    pub fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let len = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.bytes())),
            127 => u64::from_be_bytes(self.bytes()),
            short => short.into(),
        };
        let mut payload = vec![0; usize::try_from(len).expect("length")];
        self.stream.read_exact(&mut payload).expect("the payload");
        (head[0], payload)
    }

    pub fn receive_text(&mut self) -> String {
        let (first, payload) = self.receive();
        assert_eq!(first, FIN | TEXT, "{:?}", String::from_utf8_lossy(&payload));
        String::from_utf8(payload).expect("text")
    }

    /// The next frame must be a close: its code.
    pub fn receive_close(&mut self) -> u16 {
        let (first, payload) = self.receive();
        assert_eq!(first, FIN | CLOSE, "{:?}", String::from_utf8_lossy(&payload));
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// Closes, and takes the answer and the end of the connection.
    pub fn close(mut self) {
        self.raw(&frame(FIN | CLOSE, &1000u16.to_be_bytes()));
        assert_eq!(self.receive_close(), 1000);
        assert!(super::is_at_end(&mut self.stream));
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("a length");
        bytes
    }
}

/// Closes a TCP connection with a reset.
pub fn reset(stream: impl AsFd) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &at_once).expect("linger");
}

/// A masked frame, with `first` as its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | u8::try_from(len).expect("short")),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).expect("medium").to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
