//! What is kept of a connection: a small record, and a box while it is in the middle of something.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use handoff_websocket::{Agreement, Decoder};

use super::groups::Memberships;
use super::handler::Ended;

/// Tenths of a second since the engine began.
pub(crate) type Tenths = u32;

#[derive(Debug)]
pub(crate) struct Connection<S> {
    pub(crate) socket: OwnedFd,
    /// When the client last gave a sign of life.
    pub(crate) seen: Tenths,
    /// When it was last pinged, or came.
    pub(crate) pinged: Tenths,
    pub(crate) memberships: Memberships,
    pub(crate) rate: Rate,
    pub(crate) phase: Phase,
    pub(crate) agreement: Option<Agreement>,
    /// The application's; until the conversation is over.
    pub(crate) state: Option<S>,
    /// None: between messages, and nothing waits to be sent.
    pub(crate) busy: Option<Box<Busy>>,
}

/// How far a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// A close was sent, and its answer is awaited.
    Closing(Ended),
    /// Over. What comes is read and dropped, so that none of it is unread when the socket is closed: the kernel would
    /// answer unread bytes with a reset, which destroys what the client has not read yet.
    Lingering {
        /// Whether the client has been told that nothing more comes (shutdown(2)).
        shut: bool,
    },
}

/// What a connection needs while it is in the middle of something.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// In the middle of a frame or a message.
    pub(crate) decoder: Option<Decoder>,
    /// Frames that the socket had no room for; the first may be sent in part.
    pub(crate) queue: VecDeque<Bytes>,
    /// Bytes in the queue.
    pub(crate) queued: usize,
    /// Whether a part of the first frame is out: nothing else may come before the rest of it.
    pub(crate) cut: bool,
    /// When the socket last took something.
    pub(crate) taken: Tenths,
    /// Not read because too much waits to be sent; there may be something to read.
    pub(crate) unread: bool,
}

impl<S> Connection<S> {
    pub(crate) fn queued(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.queued)
    }

    /// Frees the box when nothing is under way any more.
    pub(crate) fn settle(&mut self) {
        let idle = |busy: &Busy| busy.decoder.is_none() && busy.queue.is_empty() && !busy.unread;
        if self.busy.as_deref().is_some_and(idle) {
            self.busy = None;
        }
    }

    /// Queues what the socket did not take. `is_rest`: the beginning of it is out.
    pub(crate) fn queue(&mut self, frames: Bytes, is_rest: bool, now: Tenths) {
        let busy = self.busy.get_or_insert_default();
        if busy.queue.is_empty() {
            busy.taken = now;
            busy.cut = is_rest;
        }
        busy.queued += frames.len();
        busy.queue.push_back(frames);
    }
}

/// How many messages a client may still send: a bucket that is refilled as time passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    used: u32,
    at: Tenths,
}

impl Rate {
    /// Counts one message; false: too many.
    pub(crate) fn admit(&mut self, per_second: u32, now: Tenths) -> bool {
        let passed = now.wrapping_sub(self.at);
        // What a tenth of a second is too short for is kept for the next.
        let refill = u64::from(per_second) * u64::from(passed) / 10;
        if refill > 0 {
            self.used = self.used.saturating_sub(u32::try_from(refill).unwrap_or(u32::MAX));
            self.at = now;
        }
        if self.used >= per_second {
            return false;
        }
        self.used += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_a_burst_and_then_the_rate() {
        let mut rate = Rate::default();
        let burst = (0..20).filter(|_| rate.admit(10, 100)).count();
        assert_eq!(burst, 10);
        assert!(rate.admit(10, 101) && !rate.admit(10, 101), "one in a tenth of a second");
        let mut slow = Rate::default();
        assert!(slow.admit(1, 0) && !slow.admit(1, 9) && slow.admit(1, 10));
    }

    #[test]
    fn a_record_is_small() {
        let size = size_of::<Connection<[usize; 4]>>();
        assert!(size <= 88, "{size} bytes, 32 of which are the application's");
    }
}
