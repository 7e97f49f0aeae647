//! The backend's end of a connection from nginx, step by step: head, answer, offer, commit.

use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use handoff_protocol::{Commit, CommitDecoder, OFFER};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use super::PATIENCE;
use super::head::Head;

/// What a backend has seen so far, over all its connections.
#[derive(Default)]
pub struct Seen {
    pub heads: Mutex<Vec<Head>>,
    pub accepted: AtomicUsize,
    pub descriptors: AtomicUsize,
}

/// The backend's end of one connection from nginx.
pub struct Peer {
    stream: Stream,
    seen: Arc<Seen>,
    descriptors: Vec<OwnedFd>,
}

/// A client that was handed over: its socket, and what it had sent before.
pub struct Taken {
    pub stream: TcpStream,
    pub early_data: Vec<u8>,
}

impl Peer {
    pub fn new(stream: Stream, seen: Arc<Seen>) -> Peer {
        seen.accepted.fetch_add(1, Ordering::SeqCst);
        stream.set_deadlines().expect("deadlines");
        Peer { stream, seen, descriptors: Vec::new() }
    }

    /// Reads the request head, records it, and insists that nothing follows it: nothing may, before
    /// an answer.
    pub fn read_head(&mut self) -> Head {
        let mut raw = Vec::new();
        let mut chunk = [0; 4096];
        while !raw.ends_with(b"\r\n\r\n") {
            let len = self.recv(&mut chunk).expect("a request head");
            assert_ne!(len, 0, "closed inside the head {:?}", String::from_utf8_lossy(&raw));
            raw.extend_from_slice(&chunk[..len]);
        }
        assert!(self.descriptors.is_empty(), "a descriptor came with the request head");
        let head = Head::parse(raw);
        self.seen.heads.lock().unwrap().push(head.clone());
        head
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("write to nginx");
    }

    /// As [`Peer::write`] where nginx may be gone already.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Answers that the client may be handed over.
    pub fn accept(&mut self) {
        self.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\n");
    }

    /// As [`Peer::accept`], and would take the next client over the same connection.
    pub fn accept_and_stay(&mut self) {
        self.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd; keepalive\r\n\r\n");
    }

    /// Receives the offer: one byte with one descriptor.
    pub fn recv_offer(&mut self) -> OwnedFd {
        let mut bytes = [0; 64];
        let len = self.recv(&mut bytes).expect("an offer");
        assert_eq!(bytes[..len], [OFFER], "the offer's byte");
        assert_eq!(self.descriptors.len(), 1, "the offer's descriptors");
        self.descriptors.pop().expect("one")
    }

    /// As [`Peer::recv_offer`] where the request head has been left unread: reads that, too.
    pub fn recv_head_and_offer(&mut self) -> OwnedFd {
        let mut raw = Vec::new();
        let mut chunk = [0; 8192];
        while self.descriptors.is_empty() {
            let len = self.recv(&mut chunk).expect("a head and an offer");
            assert_ne!(len, 0, "closed before the offer");
            raw.extend_from_slice(&chunk[..len]);
        }
        assert!(raw.ends_with(&[b'\r', b'\n', b'\r', b'\n', OFFER]), "the offer's byte");
        self.descriptors.pop().expect("one")
    }

    /// Receives the commit and insists that nothing but end of file follows; the early data.
    pub fn recv_commit(&mut self) -> Vec<u8> {
        let early_data = self.recv_kept_commit();
        assert!(self.recv_to_end().is_empty(), "bytes after the commit");
        assert!(self.descriptors.is_empty(), "a descriptor came with the commit");
        early_data
    }

    /// As [`Peer::recv_commit`] with a TLS session; all that it says.
    pub fn recv_tls_commit(&mut self) -> Commit {
        let commit = self.recv_kept_tls_commit();
        assert!(self.recv_to_end().is_empty(), "bytes after the commit");
        commit
    }

    /// The same on a connection that nginx may keep.
    pub fn recv_kept_tls_commit(&mut self) -> Commit {
        self.recv_kept(CommitDecoder::new(1 << 20).with_tls())
    }

    /// Receives the commit on a connection that nginx may keep; the early data.
    pub fn recv_kept_commit(&mut self) -> Vec<u8> {
        self.recv_kept(CommitDecoder::new(1 << 20)).early_data
    }

    fn recv_kept(&mut self, mut decoder: CommitDecoder) -> Commit {
        let mut bytes = [0; 8192];
        loop {
            let len = self.recv(&mut bytes).expect("a commit");
            assert_ne!(len, 0, "end of file instead of a commit");
            let fed = decoder.feed(&bytes[..len]).expect("a right commit");
            if fed.done {
                assert_eq!(fed.consumed, len, "bytes after the commit");
                break;
            }
        }
        decoder.into_commit().expect("a whole commit")
    }

    /// Answers with acceptance and receives the client.
    pub fn take_over(&mut self) -> Taken {
        self.accept();
        let client = self.recv_offer();
        let early_data = self.recv_commit();
        Taken { stream: tcp_stream(client), early_data }
    }

    /// Everything up to end of file; a reset is one (nginx closed with bytes of ours unread).
    pub fn recv_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 8192];
        loop {
            match self.recv(&mut chunk) {
                Ok(0) => return bytes,
                Ok(len) => bytes.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("no end of file from nginx: {error}, after {bytes:?}"),
            }
        }
    }

    /// Waits for bytes from nginx, and leaves them there; whether it has closed instead.
    pub fn at_end(&self) -> bool {
        let fd = self.stream.as_fd().as_raw_fd();
        nix::sys::socket::recv(fd, &mut [0], MsgFlags::MSG_PEEK).unwrap_or(0) == 0
    }

    /// Whether anything, end of file included, waits to be received.
    pub fn has_input(&self) -> bool {
        let fd = self.stream.as_fd().as_raw_fd();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        nix::sys::socket::recv(fd, &mut [0], flags).is_ok()
    }

    /// How many bytes wait to be received.
    pub fn queued(&self) -> usize {
        super::net::queued(self.stream.as_fd())
    }

    /// A connected stream of bytes, for backends that are tunnelled to.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// One recvmsg(2): a plain read would destroy descriptors.
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut space = nix::cmsg_space!([i32; 8]);
        let mut iov = [IoSliceMut::new(buf)];
        let message = recvmsg::<UnixAddr>(
            self.stream.as_fd().as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for us and nobody else
                    // knows its number.
                    self.descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                    self.seen.descriptors.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        Ok(message.bytes)
    }
}

/// The client's socket as a blocking stream; only after the commit, since the flags are nginx's
/// until then.
pub fn tcp_stream(client: OwnedFd) -> TcpStream {
    let stream = TcpStream::from(client);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(*PATIENCE)).unwrap();
    stream.set_write_timeout(Some(*PATIENCE)).unwrap();
    stream
}

/// A Unix or TCP stream.
pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub fn finish_sending(&self) {
        match self {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
        .expect("shutdown");
    }

    fn set_deadlines(&self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(*PATIENCE))?;
                stream.set_write_timeout(Some(*PATIENCE))
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(*PATIENCE))?;
                stream.set_write_timeout(Some(*PATIENCE))
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buf),
            Stream::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(buf),
            Stream::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
