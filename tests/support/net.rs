//! Ports, source addresses and socket options.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

use super::PATIENCE;

/// A TCP port that nothing listens on. It lies below the ephemeral range, so that no outgoing
/// connection takes it before its listener does, and is given out once per test program.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(211)));
    loop {
        let candidate = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(candidate).expect("below 65536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Where a client connects from, and with which receive buffer.
#[derive(Clone, Copy, Default)]
pub struct Dial {
    /// Source address; 127.0.0.1 if not given.
    pub from: Option<Ipv4Addr>,
    /// SO_RCVBUF in bytes (the kernel doubles it), set before connecting, so that it bounds the
    /// window that the peer is told.
    pub receive_buffer: Option<usize>,
}

impl Dial {
    pub fn connect(self, to: SocketAddr) -> TcpStream {
        let SocketAddr::V4(to) = to else { panic!("{to} is not IPv4") };
        let socket =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        if let Some(size) = self.receive_buffer {
            setsockopt(&socket, sockopt::RcvBuf, &size).unwrap();
        }
        if let Some(from) = self.from {
            // Without it bind(2) takes a port from all destinations, and 20,000 connections in
            // TIME_WAIT exhaust the range.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).unwrap();
            bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
        }
        connect(socket.as_raw_fd(), &SockaddrIn::from(to))
            .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(*PATIENCE)).unwrap();
        stream.set_write_timeout(Some(*PATIENCE)).unwrap();
        stream
    }
}

/// The `n`th of many source addresses.
pub fn source(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(n % 250 + 1).expect("1 to 250"))
}

/// Closes with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    super::process::close(stream);
}

pub fn is_nonblocking(socket: &impl AsFd) -> bool {
    let flags = fcntl(socket, FcntlArg::F_GETFL).expect("F_GETFL");
    OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK)
}

/// An integer option of level IPPROTO_TCP.
pub fn tcp_option(socket: &impl AsFd, option: libc::c_int) -> libc::c_int {
    let mut value: libc::c_int = 0;
    let mut len = libc::socklen_t::try_from(size_of_val(&value)).expect("4");
    // SAFETY: `value` is an int of `len` bytes, which outlives the call; the descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0, "getsockopt: {}", io::Error::last_os_error());
    value
}

/// Has the kernel drop every segment that arrives for `socket`, before TCP sees it: nothing is received, and
/// nothing acknowledged. Some hardened kernels let only root do so.
pub fn drop_arrivals(socket: &impl AsFd) {
    const DROP: libc::c_uint = 0;
    // BPF_RET | BPF_K: how many bytes to keep.
    let mut program = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: DROP }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    set_option(socket, libc::SO_ATTACH_FILTER, &filter);
}

/// Undoes [`drop_arrivals`]: what the peer sends again is received.
pub fn keep_arrivals(socket: &impl AsFd) {
    set_option(socket, libc::SO_DETACH_FILTER, &0);
}

/// Bytes written to `socket` that the peer's kernel has not acknowledged.
pub fn unacknowledged(socket: &impl AsFd) -> usize {
    let mut value: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ) writes one int, which outlives the call; the descriptor is open.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut value) };
    assert_eq!(result, 0, "SIOCOUTQ: {}", io::Error::last_os_error());
    usize::try_from(value).expect("not negative")
}

/// setsockopt(2) of level SOL_SOCKET; `option` takes a `T`.
fn set_option<T>(socket: &impl AsFd, option: libc::c_int, value: &T) {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("small");
    let value: *const T = value;
    // SAFETY: `value` points to `len` bytes, which outlive the call, as does what a filter's own pointer
    // refers to; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, option, value.cast(), len)
    };
    assert_eq!(
        result,
        0,
        "setsockopt of SO_{{ATTACH,DETACH}}_FILTER: {}",
        io::Error::last_os_error()
    );
}

/// How many bytes wait to be read from a pipe or a socket (FIONREAD).
pub fn queued(fd: BorrowedFd<'_>) -> usize {
    let mut queued: libc::c_int = 0;
    // SAFETY: an open descriptor, and room for an int.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut queued) };
    assert_eq!(rc, 0, "FIONREAD");
    usize::try_from(queued).expect("not negative")
}

/// Bytes that have come for this machine's connections of `port` and that nobody has read.
pub fn unread(port: u16) -> usize {
    // proc(5): number, local address and port, remote ones, state (1 is ESTABLISHED), sent and received queues.
    let table = fs::read_to_string("/proc/net/tcp").expect("the connections");
    let of_port = format!(":{port:04X}");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.filter(|fields| fields[1].ends_with(&of_port) && fields[3] == "01");
    let queued = |fields: Vec<&str>| {
        let (_, received) = fields[4].split_once(':').expect("two queues");
        usize::from_str_radix(received, 16).expect("a number")
    };
    ours.map(queued).sum()
}
