//! The epoll of a thread: every connection is registered once, edge-triggered, under its place in the thread's list.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub(crate) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

const HANG_UP: EpollFlags =
    EpollFlags::EPOLLRDHUP.union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);

/// What happened to the connection at `place`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) place: usize,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The peer sends no more: what is there is to be read up to the end of file, no other event will tell of it.
    pub(crate) is_hang_up: bool,
}

impl Poller {
    pub(crate) fn new() -> nix::Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Poller { epoll, events: vec![EpollEvent::empty(); 256] })
    }

    pub(crate) fn add(&self, socket: &TcpStream, place: usize) -> nix::Result<()> {
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        self.epoll.add(socket, EpollEvent::new(flags, place as u64))
    }

    /// A timer, under a place of its own.
    pub(crate) fn add_timer(&self, timer: impl AsFd, place: usize) -> nix::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(timer, EpollEvent::new(flags, place as u64))
    }

    /// What happened, or nothing if nothing does for `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> nix::Result<impl Iterator<Item = Event>> {
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX);
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        Ok(self.events.iter().take(count).map(|event| Event {
            place: event.data() as usize,
            // Errors and hang-ups are read too.
            is_readable: event.events() != EpollFlags::EPOLLOUT,
            is_writable: event.events().contains(EpollFlags::EPOLLOUT),
            is_hang_up: event.events().intersects(HANG_UP),
        }))
    }
}
