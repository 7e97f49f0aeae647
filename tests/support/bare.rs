//! A backend that knows nothing but to receive a descriptor, as the one of the first proof of concept: it accepts, does
//! one recvmsg of one byte and one descriptor, closes the connection, and serves the client.

use std::io::{IoSliceMut, Read};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use tempfile::TempDir;

use super::peer::tcp_stream;
use super::{PATIENCE, fake, frame, wait_for};

/// The running backend, which echoes frames.
pub struct BareBackend {
    path: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    _dir: TempDir,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    stopping: AtomicBool,
}

impl BareBackend {
    pub fn echo() -> BareBackend {
        let dir = fake::socket_dir();
        let path = dir.path().join("bare");
        let listener = UnixListener::bind(&path).expect("bind the bare backend");
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            // One after the other: a connection without a descriptor would hold up all that come later.
            while let Ok((stream, _)) = listener.accept() {
                if state.stopping.load(Ordering::SeqCst) {
                    return;
                }
                state.accepted.fetch_add(1, Ordering::SeqCst);
                if let Some((_, mut client)) = receive(stream) {
                    thread::spawn(move || frame::echo(&mut client, b""));
                }
            }
        });
        BareBackend { path, shared, acceptor: Some(acceptor), _dir: dir }
    }

    /// As nginx's configuration names it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for BareBackend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let woken = UnixStream::connect(&self.path).is_ok();
        if let (true, Some(acceptor)) = (woken, self.acceptor.take()) {
            let ended = acceptor.join();
            assert!(ended.is_ok() || thread::panicking(), "the bare backend failed");
        }
    }
}

/// A bare listener whose connections the test itself receives.
pub struct ManualBare {
    listener: UnixListener,
    path: PathBuf,
    _dir: TempDir,
}

impl ManualBare {
    pub fn new() -> ManualBare {
        let dir = fake::socket_dir();
        let path = dir.path().join("bare");
        let listener = UnixListener::bind(&path).expect("bind the bare backend");
        listener.set_nonblocking(true).unwrap();
        ManualBare { listener, path, _dir: dir }
    }

    /// As nginx's configuration names it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Waits for nginx to connect.
    pub fn accept(&self) -> UnixStream {
        let (stream, _) = wait_for("nginx connects", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(*PATIENCE)).unwrap();
        stream
    }
}

/// One recvmsg of one byte and one descriptor, and the connection is closed. `None` if nginx had closed it, whose client
/// has gone meanwhile.
pub fn receive(stream: UnixStream) -> Option<(u8, TcpStream)> {
    let received = receive_from(&stream);
    drop(stream);
    received.map(|(byte, client)| (byte, tcp_stream(client)))
}

/// As [`receive`], and insists that nothing follows but the end of file.
pub fn receive_all(mut stream: UnixStream) -> (u8, TcpStream) {
    let (byte, client) = receive_from(&stream).expect("a byte");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end of file");
    assert_eq!(rest, b"", "bytes behind the descriptor's");
    (byte, tcp_stream(client))
}

fn receive_from(stream: &UnixStream) -> Option<(u8, OwnedFd)> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut iov = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut iov, Some(&mut space), flags)
        .expect("a descriptor");
    if message.bytes == 0 {
        return None;
    }
    assert!(!message.flags.contains(MsgFlags::MSG_CTRUNC), "more than one descriptor");
    let numbers = message.cmsgs().expect("control messages").find_map(|control| match control {
        ControlMessageOwned::ScmRights(numbers) => Some(numbers),
        _ => None,
    });
    let [number] = numbers.expect("a descriptor")[..] else { panic!("not one descriptor") };
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Some((byte[0], unsafe { OwnedFd::from_raw_fd(number) }))
}
