//! Thousands of clients in a few seconds, while something is being broken. Each tells how it fared; only silence, or an
//! answer that makes no sense, fails the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::frame::{Frame, TEXT};
use super::head::{ACCEPT, Handshake, Head};
use super::net::{self, Dial};
use super::{PROMPTLY, wait_for};

/// How many clients there are at a time.
const AT_ONCE: usize = 16;

/// How long a client that was turned away waits until the next one comes in its place: while a server starts, not all clients
/// that there are come and go.
const PAUSE: Duration = Duration::from_millis(20);

/// So many that went wrong tell enough; each takes its time.
const ENOUGH: usize = 10;

/// How the clients fared.
#[derive(Debug, Default)]
pub struct Fates {
    /// Got a WebSocket that echoes.
    pub served: usize,
    /// Got another response than a 101, by status.
    pub errors: Vec<u16>,
    /// Got a 101, and was hung up on before the echo.
    pub broken_off: usize,
    /// Was hung up on without a response.
    pub hung_up: usize,
    /// Of those that were served, every so manieth, still connected.
    pub kept: Vec<TcpStream>,
    /// What should not be: silence, or anything that is none of the above.
    wrong: Vec<String>,
}

/// How far the clients have come.
pub struct Progress {
    clients: usize,
    begun: AtomicUsize,
    fates: Mutex<Fates>,
}

/// Has so many clients upgrade at `target` and send a message; those that are served leave after the echo, but for
/// every `keep`th, if that is not 0. `meanwhile` runs beside them.
pub fn run(
    to: SocketAddr,
    target: &str,
    clients: usize,
    keep: usize,
    meanwhile: impl FnOnce(&Progress),
) -> Fates {
    let progress = Progress { clients, begun: AtomicUsize::new(0), fates: Mutex::default() };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(n) = progress.next() {
                    let fate = converse(to, target, n);
                    if matches!(fate, Fate::Error(_)) {
                        thread::sleep(PAUSE);
                    }
                    let keep = keep > 0 && n % keep == 0;
                    progress.fates.lock().unwrap().record(n, fate, keep);
                }
            });
        }
        meanwhile(&progress);
    });
    let fates = progress.fates.into_inner().unwrap();
    assert!(fates.wrong.is_empty(), "{:#?}", fates.wrong);
    assert_eq!(fates.finished(), clients);
    fates
}

impl Progress {
    /// Waits until `count` more clients are done with; false if there are not so many to come.
    pub fn advance(&self, count: usize) -> bool {
        self.advance_by(count, Fates::finished)
    }

    /// Waits until `count` more clients have been served; false if there are not so many to come.
    pub fn advance_served(&self, count: usize) -> bool {
        self.advance_by(count, |fates| fates.served)
    }

    fn advance_by(&self, count: usize, counted: impl Fn(&Fates) -> usize) -> bool {
        let aim = counted(&self.fates.lock().unwrap()) + count;
        wait_for("more clients come", || {
            let fates = self.fates.lock().unwrap();
            let over = fates.finished() == self.clients || fates.wrong.len() >= ENOUGH;
            (over || counted(&fates) >= aim).then_some(!over)
        })
    }

    fn next(&self) -> Option<usize> {
        if self.fates.lock().unwrap().wrong.len() >= ENOUGH {
            return None;
        }
        let n = self.begun.fetch_add(1, Ordering::Relaxed);
        (n < self.clients).then_some(n)
    }
}

impl Fates {
    /// How many clients were sent a 101.
    pub fn promised(&self) -> usize {
        self.served + self.broken_off
    }

    fn finished(&self) -> usize {
        self.promised() + self.errors.len() + self.hung_up + self.wrong.len()
    }

    fn record(&mut self, n: usize, fate: Fate, keep: bool) {
        match fate {
            Fate::Served(stream) => {
                self.served += 1;
                if keep {
                    self.kept.push(stream);
                } else {
                    net::reset(stream);
                }
            }
            Fate::Error(status) => self.errors.push(status),
            Fate::BrokenOff => self.broken_off += 1,
            Fate::HungUp => self.hung_up += 1,
            Fate::Wrong(what) => self.wrong.push(format!("client {n}: {what}")),
        }
    }
}

enum Fate {
    Served(TcpStream),
    Error(u16),
    BrokenOff,
    HungUp,
    Wrong(String),
}

/// One client, from the handshake to the echo of something that only it says.
fn converse(to: SocketAddr, target: &str, n: usize) -> Fate {
    let mut stream = Dial { from: Some(net::source(n)), ..Dial::default() }.connect(to);
    stream.set_read_timeout(Some(*PROMPTLY)).unwrap();
    // A failure to write is one that the read behind it tells, too.
    let _ = stream.write_all(&Handshake::new(target).bytes());
    let head = match read_head(&mut stream) {
        Ok(Some(head)) => head,
        Ok(None) => return Fate::HungUp,
        Err(what) => return Fate::Wrong(what),
    };
    if head.status() != 101 {
        net::reset(stream);
        return Fate::Error(head.status());
    }
    if head.field("Sec-WebSocket-Accept") != Some(ACCEPT) {
        return Fate::Wrong(format!("{head:?}"));
    }

    let said = format!("client {n}");
    let _ = stream.write_all(&Frame::text(&said).masked());
    match Frame::read(&mut stream) {
        Ok(frame) if frame == Frame::new(TEXT, said) => Fate::Served(stream),
        Ok(frame) => Fate::Wrong(format!("heard {frame:?}")),
        Err(error) if is_end(error.kind()) => Fate::BrokenOff,
        Err(error) => Fate::Wrong(format!("waiting for the echo: {error}")),
    }
}

/// A whole head, or `None` if the connection ended before its first byte.
fn read_head(stream: &mut TcpStream) -> Result<Option<Head>, String> {
    let mut raw = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(1..) => raw.push(byte[0]),
            Ok(0) if raw.is_empty() => return Ok(None),
            Ok(0) => return Err(format!("closed inside {:?}", String::from_utf8_lossy(&raw))),
            Err(error) if is_end(error.kind()) && raw.is_empty() => return Ok(None),
            Err(error) => {
                return Err(format!("{error} after {:?}", String::from_utf8_lossy(&raw)));
            }
        }
        if raw.ends_with(b"\r\n\r\n") {
            return Ok(Some(Head::parse(raw)));
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
