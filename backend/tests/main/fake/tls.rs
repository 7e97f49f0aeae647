//! Clients that speak TLS, handed over with their session: rustls, or one that has its records in its own hands.

#[path = "../../../../handoff-tls/tests/tls/handshake.rs"]
mod handshake;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use handoff_protocol::{commit_len, encode_commit, section};
use handoff_tls::{Alert, Closed, Secret, Session, State, Suite, Version};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ClientConnection, SupportedCipherSuite};

use super::PATIENCE;
use super::client::Client;
use super::nginx::{Nginx, request, tcp_pair};
use super::random::Random;

/// All suites of rustls's.
pub fn suites() -> Vec<SupportedCipherSuite> {
    handshake::suites()
}

/// Each protection: the version, and the suite's number.
pub const PROTECTIONS: [(Version, u16); 6] = [
    (Version::Tls13, 0x1301),
    (Version::Tls13, 0x1302),
    (Version::Tls13, 0x1303),
    (Version::Tls12, 0xc02b),
    (Version::Tls12, 0xc02c),
    (Version::Tls12, 0xcca9),
];

/// A session that nobody has shaken hands for.
pub fn state((version, suite): (Version, u16)) -> State {
    let len = Suite::from_number(version, suite).expect("a suite").secret_len(version);
    let secret = |seed| Secret::new(&Random::new(seed).bytes(len)).expect("short enough");
    State {
        version,
        suite,
        rx_seq: 3,
        tx_seq: 5,
        rx_secret: secret(1),
        tx_secret: secret(2),
        owes_key_update: false,
    }
}

/// What the client knows of it: the same, seen from the other side.
pub fn seen_by_the_client(state: &State) -> State {
    State {
        rx_seq: state.tx_seq,
        tx_seq: state.rx_seq,
        rx_secret: state.tx_secret.clone(),
        tx_secret: state.rx_secret.clone(),
        owes_key_update: false,
        ..state.clone()
    }
}

/// The commit of a client that speaks TLS.
pub fn commit(state: &State, early: &[u8]) -> Vec<u8> {
    let mut encoded = [0; State::MAX_LEN];
    let len = state.encode(&mut encoded);
    let sections = [(section::TLS_STATE, &encoded[..len]), (section::EARLY_DATA, early)];
    let mut bytes = vec![0; commit_len(&sections).expect("length")];
    encode_commit(&sections, &mut bytes).expect("room");
    bytes
}

/// Offers a client with its session, and takes the 101 that accepts both.
pub fn offered(socket: &Path, target: &str, fields: &str) -> Nginx {
    let mut nginx = Nginx::connect(socket);
    nginx.send(request(target, &format!("Handoff: fd-tls; v=1\r\n{fields}")).as_bytes());
    let head = nginx.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nhandoff: fd-tls"), "{head}");
    nginx
}

/// How a client comes.
#[derive(Default)]
pub struct Way<'a> {
    pub fields: &'a str,
    /// What it has sent already, as nginx has decrypted it.
    pub early: &'a [u8],
    /// Over a socket with the room of one buffer, of a size that does not change.
    pub unix: bool,
    /// And of this size (SO_SNDBUF).
    pub room: Option<usize>,
}

impl Way<'_> {
    /// rustls.
    pub fn bring(self, to: &Path, target: &str, suite: SupportedCipherSuite) -> Client<Tls> {
        let (client, state) = handshake::shake_hands(suite);
        self.hand_over(to, target, &state, Side::Rustls(Box::new(client)))
    }

    /// One that has its records in its own hands.
    pub fn bring_raw(self, to: &Path, target: &str, state: &State) -> Client<Tls> {
        self.bring_raw_as(to, target, state, state)
    }

    /// The same, with a client that has the server's side of it to be another.
    pub fn bring_raw_as(
        self,
        to: &Path,
        target: &str,
        state: &State,
        client_has: &State,
    ) -> Client<Tls> {
        let session = Session::new(&seen_by_the_client(client_has)).expect("a session");
        let raw = Raw { session, lengths: Random::new(7), input: Vec::new() };
        self.hand_over(to, target, state, Side::Raw(Box::new(raw)))
    }

    fn hand_over(self, to: &Path, target: &str, state: &State, side: Side) -> Client<Tls> {
        let (theirs, held): (TcpStream, OwnedFd) = if self.unix {
            let (theirs, held) = UnixStream::pair().expect("pair");
            held.set_nonblocking(true).expect("nonblocking");
            if let Some(room) = self.room {
                setsockopt(&held, sockopt::SndBuf, &room).expect("a size");
            }
            // Both kinds of socket read and write by the same calls.
            (TcpStream::from(OwnedFd::from(theirs)), held.into())
        } else {
            let (theirs, held) = tcp_pair();
            theirs.set_nodelay(true).expect("nodelay");
            (theirs, held.into())
        };
        theirs.set_read_timeout(Some(PATIENCE)).expect("timeout");
        theirs.set_write_timeout(Some(PATIENCE)).expect("timeout");
        let mut nginx = offered(to, target, self.fields);
        nginx.pass(b"F", &[held.as_raw_fd()]);
        nginx.send(&commit(state, self.early));
        let side = Arc::new(Mutex::new(side));
        Client { stream: Tls { socket: theirs, side, plain: Vec::new(), at: 0, end: None } }
    }
}

/// A client's plaintext. Of several clones one may read and one may write.
pub struct Tls {
    pub socket: TcpStream,
    side: Arc<Mutex<Side>>,
    plain: Vec<u8>,
    at: usize,
    /// What comes behind that: nothing after a close_notify, or an error.
    end: Option<io::Result<usize>>,
}

enum Side {
    Rustls(Box<ClientConnection>),
    Raw(Box<Raw>),
}

/// Records of any length.
struct Raw {
    session: Session,
    lengths: Random,
    input: Vec<u8>,
}

impl Tls {
    pub fn try_clone(&self) -> Tls {
        let socket = self.socket.try_clone().expect("clone");
        let side = Arc::clone(&self.side);
        Tls { socket, side, plain: Vec::new(), at: 0, end: None }
    }

    /// Records with this, that are not sent.
    pub fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        self.side().seal(plain, &mut wire);
        wire
    }

    /// Has the client go on to its next keys, and ask the same of the server.
    pub fn update_keys(&mut self) {
        match &mut *self.side() {
            Side::Rustls(client) => client.refresh_traffic_keys().expect("TLS 1.3"),
            Side::Raw(_) => panic!("rustls does"),
        }
    }

    /// Says goodbye, which ends this direction.
    pub fn goodbye(&mut self) {
        self.alert(Alert::CloseNotify);
    }

    /// Ends the session.
    pub fn alert(&mut self, alert: Alert) {
        let mut wire = Vec::new();
        match &mut *self.side() {
            Side::Rustls(client) => {
                assert_eq!(alert, Alert::CloseNotify, "the only one that it lets one send");
                client.send_close_notify();
                drain(client, &mut wire);
            }
            Side::Raw(raw) => raw.session.seal_alert(alert, &mut wire),
        }
        self.socket.write_all(&wire).expect("write");
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().expect("not poisoned")
    }
}

/// Of what ended a session: the alert's description, or `None` for anything else.
pub fn alert_in(error: &io::Error) -> Option<u8> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(description) => Some(u8::from(*description)),
        _ => None,
    }
}

impl Side {
    fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        match self {
            Side::Rustls(client) => {
                for part in plain.chunks(10_000) {
                    client.writer().write_all(part).expect("room");
                    drain(client, wire);
                }
            }
            Side::Raw(raw) => {
                let mut rest = plain;
                while !rest.is_empty() {
                    let most = [4, 100, 2000, 16_384][raw.lengths.below(4)];
                    let len = rest.len().min(1 + raw.lengths.below(most));
                    let (part, behind) = rest.split_at(len);
                    raw.session.seal(part, wire).expect("sealed");
                    rest = behind;
                }
            }
        }
    }

    /// Appends what is in these bytes to `plain`; whether the server has said goodbye.
    fn open(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
        let wrong = io::Error::other::<rustls::Error>;
        match self {
            Side::Rustls(client) => loop {
                client.read_tls(&mut wire)?;
                let state = client.process_new_packets();
                let mut part = [0; 4096];
                while let Ok(len @ 1..) = client.reader().read(&mut part) {
                    plain.extend_from_slice(&part[..len]);
                }
                let state = state.map_err(wrong)?;
                if wire.is_empty() || state.peer_has_closed() {
                    return Ok(state.peer_has_closed());
                }
            },
            Side::Raw(raw) => {
                raw.input.extend_from_slice(wire);
                let opened = raw.session.open(&mut raw.input);
                assert_eq!(opened.alert, None, "{:?}", raw.session);
                plain.extend_from_slice(&raw.input[..opened.data]);
                raw.input.drain(..opened.used);
                match opened.closed {
                    Some(Closed::Alert(description)) => {
                        Err(wrong(rustls::Error::AlertReceived(description.into())))
                    }
                    closed => Ok(closed.is_some()),
                }
            }
        }
    }
}

fn drain(client: &mut ClientConnection, wire: &mut Vec<u8>) {
    while client.wants_write() {
        client.write_tls(wire).expect("written");
    }
}

impl Read for Tls {
    /// 0: the server has said goodbye. An end without that is an error.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = vec![0; 32 << 10];
        while self.at == self.plain.len() {
            if let Some(end) = self.end.take() {
                return end;
            }
            let len = self.socket.read(&mut wire)?;
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let mut plain = Vec::new();
            let opened = self.side().open(&wire[..len], &mut plain);
            match opened {
                Ok(false) => (),
                Ok(true) => self.end = Some(Ok(0)),
                Err(error) => self.end = Some(Err(error)),
            }
            (self.plain, self.at) = (plain, 0);
        }
        let part = &self.plain[self.at..];
        let len = into.len().min(part.len());
        into[..len].copy_from_slice(&part[..len]);
        self.at += len;
        Ok(len)
    }
}

impl Write for Tls {
    /// In pieces that have nothing to do with records.
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let wire = self.sealed(plain);
        let mut rest = &wire[..];
        let mut lengths = Random::new(wire.len() as u64);
        while !rest.is_empty() {
            let most = if lengths.once_in(4) { 1 << 20 } else { 7 + wire.len() / 2 };
            let (piece, behind) = rest.split_at(rest.len().min(1 + lengths.below(most)));
            self.socket.write_all(piece)?;
            rest = behind;
        }
        Ok(plain.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
