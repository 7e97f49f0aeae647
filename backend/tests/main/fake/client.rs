//! A WebSocket client that sends whatever bytes a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::nginx::request;
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
