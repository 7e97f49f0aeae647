//! The backend's end of a TLS client that was handed over: its records are opened and sealed here, by the session that nginx
//! has passed on. And certificates, made by `openssl`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use handoff_protocol::Commit;
use handoff_tls::{Alert, Closed, Session};

use super::fake::FakeBackend;
use super::frame;
use super::peer::Peer;
use super::process;

/// A client that was handed over with its TLS session, and what it had sent before.
pub struct Taken {
    pub stream: TlsStream,
    pub early_data: Vec<u8>,
}

/// Answers that the client may be handed over with its session, and receives both.
pub fn take_over(peer: &mut Peer) -> Taken {
    peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd-tls\r\n\r\n");
    let client = peer.recv_offer();
    let commit = peer.recv_tls_commit();
    taken(client, commit)
}

/// Receives a client that is on its way, and the head that has not been read.
pub fn take_late(peer: &mut Peer) -> Taken {
    let client = peer.recv_head_and_offer();
    let commit = peer.recv_tls_commit();
    taken(client, commit)
}

/// The same as [`take_over`], and would take the next client over the same connection.
pub fn take_over_and_stay(peer: &mut Peer) -> Taken {
    peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd-tls; keepalive\r\n\r\n");
    let client = peer.recv_offer();
    let commit = peer.recv_kept_tls_commit();
    taken(client, commit)
}

fn taken(client: OwnedFd, commit: Commit) -> Taken {
    let state = commit.tls.expect("a TLS session");
    let session = Session::new(&state).expect("a session that makes sense");
    let socket = super::peer::tcp_stream(client);
    let stream = TlsStream::new(socket, session);
    Taken { stream, early_data: commit.early_data }
}

/// A backend that takes TLS clients over and echoes their frames; clients that nginx has to tunnel as well.
pub fn echo() -> FakeBackend {
    FakeBackend::unix(|mut peer| {
        let head = peer.read_head();
        match head.field("Handoff") {
            Some("fd-tls; v=1") => {
                let mut taken = take_over(&mut peer);
                frame::echo(&mut taken.stream, &taken.early_data);
                taken.stream.close();
            }
            Some("fd; v=1") => {
                let mut taken = peer.take_over();
                frame::echo(&mut taken.stream, &taken.early_data);
            }
            Some(other) => panic!("nginx offers {other}"),
            None => {
                peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
                frame::echo(peer.stream(), b"");
            }
        }
    })
}

/// The client's plaintext.
pub struct TlsStream {
    socket: TcpStream,
    session: Session,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    ended: Option<Closed>,
}

impl TlsStream {
    fn new(socket: TcpStream, session: Session) -> TlsStream {
        TlsStream { socket, session, sealed: Vec::new(), plain: Vec::new(), ended: None }
    }

    /// How the client has ended its side, if it has.
    pub fn ended(&self) -> Option<Closed> {
        self.ended
    }

    /// Says goodbye.
    pub fn close(&mut self) {
        let mut out = Vec::new();
        self.session.seal_alert(Alert::CloseNotify, &mut out);
        let _ = self.socket.write_all(&out);
    }

    fn open(&mut self) {
        let opened = self.session.open(&mut self.sealed);
        assert_eq!(opened.alert, None, "{:?}", self.session);
        self.plain.extend_from_slice(&self.sealed[..opened.data]);
        self.sealed.drain(..opened.used);
        self.ended = self.ended.or(opened.closed);
        if self.session.wants_to_send() {
            self.write_all(b"").expect("answer a KeyUpdate");
        }
    }
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut chunk = [0; 20_000];
        while self.plain.is_empty() {
            if self.ended.is_some() {
                return Ok(0);
            }
            let len = self.socket.read(&mut chunk)?;
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.sealed.extend_from_slice(&chunk[..len]);
            self.open();
        }
        let len = buf.len().min(self.plain.len());
        buf[..len].copy_from_slice(&self.plain[..len]);
        self.plain.drain(..len);
        Ok(len)
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut out = Vec::new();
        self.session.seal(buf, &mut out).expect("fresh keys");
        self.socket.write_all(&out)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes `NAME.pem` and `NAME.key` in `dir`, of a server that is called `host` and has the address 127.0.0.1. Signed by itself with
/// RSA, and no authority's: some libraries take that for no server's.
pub fn certificate(dir: &Path, name: &str, host: &str) {
    make_certificate(dir, name, host, &["-newkey", "rsa:2048"]);
}

/// The same with ECDSA.
pub fn ecdsa_certificate(dir: &Path, name: &str, host: &str) {
    make_certificate(dir, name, host, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
}

fn make_certificate(dir: &Path, name: &str, host: &str, key: &[&str]) {
    let mut openssl = Command::new("openssl");
    openssl
        .current_dir(dir)
        .args(["req", "-x509", "-nodes", "-days", "2"])
        .args(key)
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
        .args(["-subj", &format!("/CN={host}")])
        .args(["-addext", &format!("subjectAltName=DNS:{host},IP:127.0.0.1")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let made = process::output(&mut openssl).expect("run openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
