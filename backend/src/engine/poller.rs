//! A thread's own epoll, which holds all of its connections; its descriptor is the one thing that tokio watches.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::slab::Key;

/// Events taken at a time.
const BATCH: usize = 256;

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: AsyncFd<Epoll>,
}

#[derive(Debug)]
struct Epoll(OwnedFd);

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What epoll says of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) key: Key,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other side sends nothing more, or the connection is broken: there is an end to be read.
    pub(crate) ended: bool,
}

impl Poller {
    /// Within a tokio runtime, which is the only one that may poll it.
    pub(crate) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: `Epoll` owns the descriptor that it names, always the same, for as long as the `AsyncFd` owns it.
        let epoll = unsafe { AsyncFd::register_with_interest(Epoll(epoll), Interest::READABLE) };
        Ok(Poller { epoll: epoll? })
    }

    /// Watches a connection in both directions, each change once: it need not be touched again before it closes.
    pub(crate) fn add(&self, socket: impl AsFd, key: Key) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(key.to_u64());
        Ok(epoll::add(&self.epoll.get_ref().0, socket, data, flags)?)
    }

    /// Must come before close(2): the registration belongs to the open file description, which nginx may still hold for
    /// a moment, and would outlive the descriptor.
    pub(crate) fn remove(&self, socket: impl AsFd) {
        let _ = epoll::delete(&self.epoll.get_ref().0, socket);
    }

    /// Waits for events and gives them to `with`; cancel-safe.
    pub(crate) async fn wait(&self, events: &mut Vec<Ready>) -> io::Result<()> {
        let mut guard = self.epoll.readable().await?;
        // Fewer than there was room for: none are left. One that comes meanwhile makes tokio's epoll report anew.
        if self.poll(events)? < BATCH {
            guard.clear_ready();
        }
        Ok(())
    }

    /// The same without waiting: for a thread that has so much else to do that it never waits.
    pub(crate) fn poll(&self, events: &mut Vec<Ready>) -> io::Result<usize> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let (found, _) = match epoll::wait(&self.epoll.get_ref().0, &mut room, Some(&at_once)) {
            Ok(found) => found,
            // As if there were more: another look comes soon.
            Err(rustix::io::Errno::INTR) => return Ok(BATCH),
            Err(error) => return Err(error.into()),
        };
        let count = found.len();
        events.extend(found.iter().map(|event| {
            let flags = event.flags;
            let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            Ready {
                key: Key::from_u64(event.data.u64()),
                readable: flags.intersects(epoll::EventFlags::IN | ended),
                writable: flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR),
                ended: flags.intersects(ended),
            }
        }));
        Ok(count)
    }
}
