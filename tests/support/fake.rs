//! Scripted backends: [`FakeBackend`] runs a script on a thread per connection, [`ManualBackend`]
//! leaves each step to the test, [`FullBacklog`] never accepts.

use std::any::Any;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use tempfile::TempDir;

use super::head::Head;
use super::peer::{Peer, Seen, Stream};
use super::{frame, net, wait_for, wait_until};

/// A scripted backend on a Unix socket, or on TCP. A script that panics fails the test.
pub struct FakeBackend {
    address: Address,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl FakeBackend {
    /// Listens on a Unix socket and runs `script` for each connection, which is closed after it.
    pub fn unix(script: impl Fn(Peer) + Send + Sync + 'static) -> FakeBackend {
        let dir = socket_dir();
        let path = dir.path().join("fake");
        let listener = UnixListener::bind(&path).expect("bind the fake backend");
        FakeBackend::run(dir, Address::Unix(path), script, move || {
            listener.accept().map(|(stream, _)| Stream::Unix(stream))
        })
    }

    /// The same on a TCP port of 127.0.0.1.
    pub fn tcp(script: impl Fn(Peer) + Send + Sync + 'static) -> FakeBackend {
        let listener = TcpListener::bind(("127.0.0.1", net::free_port())).expect("bind");
        let address = listener.local_addr().expect("an address");
        FakeBackend::run(socket_dir(), Address::Tcp(address), script, move || {
            listener.accept().map(|(stream, _)| Stream::Tcp(stream))
        })
    }

    /// Takes every client over and echoes its frames.
    pub fn echo() -> FakeBackend {
        FakeBackend::unix(|mut peer| {
            peer.read_head();
            let mut taken = peer.take_over();
            frame::echo(&mut taken.stream, &taken.early_data);
        })
    }

    /// Takes every client over and closes it.
    pub fn take_and_close() -> FakeBackend {
        FakeBackend::unix(|mut peer| {
            peer.read_head();
            drop(peer.take_over());
        })
    }

    /// As nginx's configuration names it.
    pub fn address(&self) -> String {
        match &self.address {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Tcp(address) => address.to_string(),
        }
    }

    /// Lets workers connect that are not of the tests' own user.
    pub fn admit_everybody(&self) {
        let Address::Unix(path) = &self.address else { return };
        let dir = path.parent().expect("a directory");
        for (path, mode) in [(dir, 0o711), (path, 0o666)] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, mode).expect("change the mode");
        }
    }

    /// The request heads seen so far.
    pub fn heads(&self) -> Vec<Head> {
        self.shared.seen.heads.lock().unwrap().clone()
    }

    /// The only request head that was sent here.
    pub fn only_head(&self) -> Head {
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.into_iter().next().expect("one")
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.seen.accepted.load(Ordering::SeqCst)
    }

    /// Descriptors received so far.
    pub fn descriptors(&self) -> usize {
        self.shared.seen.descriptors.load(Ordering::SeqCst)
    }

    /// Waits until every script has run to its end.
    pub fn wait_idle(&self) {
        wait_until("the fake backend's scripts end", || {
            self.shared.running.load(Ordering::SeqCst) == 0
        });
    }

    fn run(
        dir: TempDir,
        address: Address,
        script: impl Fn(Peer) + Send + Sync + 'static,
        accept: impl Fn() -> io::Result<Stream> + Send + 'static,
    ) -> FakeBackend {
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let state = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            while let Ok(stream) = accept() {
                if state.stopping.load(Ordering::SeqCst) {
                    return;
                }
                state.running.fetch_add(1, Ordering::SeqCst);
                let (shared, script) = (Arc::clone(&state), Arc::clone(&script));
                thread::spawn(move || converse(stream, &shared, &*script));
            }
        });
        FakeBackend { address, shared, acceptor: Some(acceptor), _dir: dir }
    }
}

impl Drop for FakeBackend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let woken = match &self.address {
            Address::Unix(path) => UnixStream::connect(path).is_ok(),
            Address::Tcp(address) => TcpStream::connect(address).is_ok(),
        };
        if let (true, Some(acceptor)) = (woken, self.acceptor.take()) {
            let _ = acceptor.join();
        }
        if thread::panicking() {
            for failure in self.shared.failures.lock().unwrap().iter() {
                eprintln!("fake backend: {failure}");
            }
            return;
        }
        self.wait_idle();
        let failures = self.shared.failures.lock().unwrap();
        assert!(failures.is_empty(), "fake backend: {failures:#?}");
    }
}

/// A backend on a Unix socket whose connections are accepted and served by the test itself.
pub struct ManualBackend {
    listener: UnixListener,
    path: PathBuf,
    seen: Arc<Seen>,
    _dir: TempDir,
}

impl ManualBackend {
    pub fn unix() -> ManualBackend {
        let dir = socket_dir();
        let path = dir.path().join("manual");
        let listener = UnixListener::bind(&path).expect("bind the manual backend");
        listener.set_nonblocking(true).unwrap();
        ManualBackend { listener, path, seen: Arc::default(), _dir: dir }
    }

    /// As nginx's configuration names it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Has another user listen, as if a process of theirs had made the socket; as root only.
    pub fn listen_as(&self, uid: u32) {
        let listener = &self.listener;
        thread::scope(|scope| {
            scope.spawn(|| {
                const AS_IT_IS: libc::uid_t = libc::uid_t::MAX;
                // SAFETY: integers only. Not by the C library, which would change all threads: this one ends with it.
                let rc = unsafe { libc::syscall(libc::SYS_setresuid, AS_IT_IS, uid, AS_IT_IS) };
                assert_eq!(rc, 0, "become another user");
                // Once more: unix(7)'s SO_PEERCRED tells who has done so last.
                listen(listener, Backlog::new(16).unwrap()).expect("listen");
            });
        });
    }

    /// Waits for nginx to connect.
    pub fn accept(&self) -> Peer {
        wait_for("nginx connects to the backend", || self.try_accept())
    }

    /// The connection that nginx has already made, if any.
    pub fn try_accept(&self) -> Option<Peer> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        Some(Peer::new(Stream::Unix(stream), Arc::clone(&self.seen)))
    }

    /// Waits for nginx, reads the request head, accepts, and receives the descriptor.
    pub fn offered(&self) -> (Peer, OwnedFd) {
        let mut peer = self.accept();
        peer.read_head();
        peer.accept();
        let client = peer.recv_offer();
        (peer, client)
    }
}

/// nginx's own `crit` for a Unix socket that is not there.
pub const ABSENT: &str = "failed (2: No such file or directory) while connecting to upstream";

/// A script: a WebSocket server that knows nothing of handing over, and echoes.
pub fn without_handoff(mut peer: Peer) {
    peer.read_head();
    peer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    frame::echo(peer.stream(), b"");
}

/// A directory whose name leaves room for a socket's (108 bytes in sun_path).
pub fn socket_dir() -> TempDir {
    tempfile::Builder::new().prefix("wsh-").tempdir_in("/tmp").expect("a directory")
}

enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

#[derive(Default)]
struct Shared {
    seen: Arc<Seen>,
    failures: Mutex<Vec<String>>,
    running: AtomicUsize,
    stopping: AtomicBool,
}

fn converse(stream: Stream, shared: &Arc<Shared>, script: &dyn Fn(Peer)) {
    let seen = Arc::clone(&shared.seen);
    let outcome = catch_unwind(AssertUnwindSafe(|| script(Peer::new(stream, seen))));
    if let Err(panic) = outcome {
        shared.failures.lock().unwrap().push(message(&*panic));
    }
    shared.running.fetch_sub(1, Ordering::SeqCst);
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "a panic without text".to_owned(),
    }
}

/// A Unix listener whose queue is full: connect(2) gets EAGAIN.
pub struct FullBacklog {
    path: PathBuf,
    _listener: OwnedFd,
    _queued: Vec<OwnedFd>,
    _dir: TempDir,
}

impl FullBacklog {
    pub fn new() -> FullBacklog {
        let dir = socket_dir();
        let path = dir.path().join("full");
        let address = UnixAddr::new(&path).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let new = || socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        let listener = new();
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let mut queued = Vec::new();
        loop {
            let client = new();
            match connect(client.as_raw_fd(), &address) {
                Ok(()) => queued.push(client),
                Err(Errno::EAGAIN) => break,
                Err(error) => panic!("fill the queue: {error}"),
            }
        }
        FullBacklog { path, _listener: listener, _queued: queued, _dir: dir }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
