//! A raw client: sends the bytes it is told in the pieces it is told, and judges every byte that comes
//! back.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use super::frame::{Frame, TEXT};
use super::head::{ACCEPT, Handshake, Head};
use super::net::{self, Dial};
use super::{PATIENCE, PROMPTLY};

/// A TCP connection to nginx.
pub struct Client {
    /// Reads all that the kernel has at once. Byte by byte, a small receive window would open by
    /// halves, and the sender wait for its persist timer.
    stream: BufReader<TcpStream>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Eof,
    Reset,
}

impl Client {
    pub fn connect(to: SocketAddr) -> Client {
        Client::dial(to, Dial::default())
    }

    pub fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Client {
        Client::dial(to, Dial { from: Some(from), ..Dial::default() })
    }

    pub fn dial(to: SocketAddr, dial: Dial) -> Client {
        Client { stream: BufReader::with_capacity(1 << 16, dial.connect(to)) }
    }

    /// A connection that is none over IPv4; a Unix socket does in the same type.
    pub fn over(stream: impl Into<OwnedFd>) -> Client {
        let stream = TcpStream::from(stream.into());
        stream.set_read_timeout(Some(*PATIENCE)).unwrap();
        stream.set_write_timeout(Some(*PATIENCE)).unwrap();
        Client { stream: BufReader::with_capacity(1 << 16, stream) }
    }

    /// Connects, upgrades at `target`, and insists on the 101.
    pub fn upgraded(to: SocketAddr, target: &str) -> Client {
        let mut client = Client::connect(to);
        client.upgrade(target);
        client
    }

    /// Upgrades at `target` and insists on the 101.
    pub fn upgrade(&mut self, target: &str) -> Head {
        self.send(&Handshake::new(target).bytes());
        self.expect_101()
    }

    /// Sends `request` and reads the response's head.
    pub fn ask(&mut self, request: &Handshake) -> Head {
        self.send(&request.bytes());
        self.read_head()
    }

    /// A plain GET on this connection, to the end of the response: head and body.
    pub fn get(&mut self, target: &str) -> (Head, Vec<u8>) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let head = self.read_head();
        let body = self.read_body(&head);
        (head, body)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_ref().write_all(bytes).expect("send to nginx");
    }

    pub fn send_frame(&mut self, frame: &Frame) {
        self.send(&frame.masked());
    }

    /// Reads up to the empty line.
    pub fn read_head(&mut self) -> Head {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            let len = self.stream.read_until(b'\n', &mut raw).expect("a response head");
            assert_ne!(len, 0, "closed inside the head {:?}", String::from_utf8_lossy(&raw));
        }
        Head::parse(raw)
    }

    /// Reads a head that must be a right 101 to [`Handshake::new`].
    pub fn expect_101(&mut self) -> Head {
        let head = self.read_head();
        assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols", "{head:?}");
        assert_eq!(head.field("Sec-WebSocket-Accept"), Some(ACCEPT));
        assert_eq!(head.field("Upgrade").map(str::to_lowercase).as_deref(), Some("websocket"));
        assert_eq!(head.field("Connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
        head
    }

    /// Reads the body that follows `head`: by Content-Length, chunked, or to end of file.
    pub fn read_body(&mut self, head: &Head) -> Vec<u8> {
        if head.field("Transfer-Encoding") == Some("chunked") {
            return self.read_chunked();
        }
        match head.field("Content-Length") {
            Some(len) => self.read_bytes(len.parse().expect("Content-Length")),
            None => self.read_to_end(),
        }
    }

    pub fn read_bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("an end of file");
        bytes
    }

    pub fn read_frame(&mut self) -> Frame {
        Frame::read(&mut self.stream).expect("a frame")
    }

    /// Sends `text` and insists on getting it back.
    pub fn echo(&mut self, text: &str) {
        self.send_frame(&Frame::text(text));
        self.expect_frame(TEXT, text.as_bytes());
    }

    /// Sends large and small texts in turn without waiting for an answer, and insists on getting all back in order.
    pub fn echo_in_a_row(&mut self) {
        let texts: Vec<String> = (0..10)
            .flat_map(|n| [format!("{}{n}", "large".repeat(10_000)), format!("small {n}")])
            .collect();
        let bytes: Vec<u8> = texts.iter().flat_map(|text| Frame::text(text).masked()).collect();
        let mut sender = self.stream().try_clone().expect("another handle");
        // Whoever echoes waits for what it has written to be read: sent from here, all could wait for each other.
        let sending = thread::spawn(move || sender.write_all(&bytes));
        for text in &texts {
            self.expect_frame(TEXT, text.as_bytes());
        }
        sending.join().expect("no panic").expect("send to nginx");
    }

    pub fn expect_frame(&mut self, opcode: u8, payload: &[u8]) {
        let frame = self.read_frame();
        assert_eq!((frame.fin, frame.opcode), (true, opcode));
        assert!(frame.payload == payload, "another payload of {} bytes", frame.payload.len());
    }

    /// Insists that the connection ends promptly; what came before and how it ended.
    pub fn expect_end(&mut self) -> (Vec<u8>, End) {
        self.stream.get_ref().set_read_timeout(Some(*PROMPTLY)).unwrap();
        let mut bytes = Vec::new();
        let end = match self.stream.read_to_end(&mut bytes) {
            Ok(_) => End::Eof,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("no end within {:?}: {error}, after {bytes:?}", *PROMPTLY),
        };
        self.stream.get_ref().set_read_timeout(Some(*PATIENCE)).unwrap();
        (bytes, end)
    }

    pub fn finish_sending(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        net::reset(self.stream.into_inner());
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    fn read_chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line();
            let len = usize::from_str_radix(&line, 16).expect("a chunk size");
            body.extend(self.read_bytes(len));
            assert_eq!(self.read_line(), "");
            if len == 0 {
                return body;
            }
        }
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        line.strip_suffix("\r\n").expect("CRLF").to_owned()
    }
}
