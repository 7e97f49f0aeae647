//! What is kept of a connection: a small record, and a box while it is in the middle of something.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use handoff_tls::{Alert, Session};
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
    /// Whether it waits for its next turn.
    pub(crate) in_ready: bool,
    pub(crate) flags: Flags,
    pub(crate) agreement: Option<Agreement>,
    /// The application's; there from `on_open` on.
    pub(crate) state: Option<S>,
    /// The session of a client that speaks TLS, or what of it is not the kernel's.
    pub(crate) tls: Option<Box<Session>>,
    /// None: between messages, and nothing waits to be sent.
    pub(crate) busy: Option<Box<Busy>>,
}

/// What there is to remember of a connection, each in a bit: there is no room for more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// epoll has said that there is an end to be read: it does not say so again.
    pub(crate) const ENDED: Flags = Flags(1);
    /// The kernel opens the client's TLS records.
    pub(crate) const RECEIVES: Flags = Flags(1 << 1);
    /// The kernel seals what is sent.
    pub(crate) const SENDS: Flags = Flags(1 << 2);
    /// Of a session that the kernel has: its version. Without it it is TLS 1.2.
    pub(crate) const TLS_1_3: Flags = Flags(1 << 3);
    /// The kernel can open nothing more that comes.
    pub(crate) const DEAF: Flags = Flags(1 << 4);
    /// A KeyUpdate goes before anything else that the kernel seals.
    pub(crate) const OWES_KEY_UPDATE: Flags = Flags(1 << 5);
    /// The client has been told once that nothing is negotiated anew.
    pub(crate) const HAS_REFUSED: Flags = Flags(1 << 6);
    /// The last alert of a TLS session is out, or on its way: nothing may follow it.
    pub(crate) const HAS_PARTED: Flags = Flags(1 << 7);

    pub(crate) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Flags, value: bool) {
        self.0 = if value { self.0 | flag.0 } else { self.0 & !flag.0 };
    }
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

/// How a client's TLS session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsEnd {
    /// By close_notify: as an end of file.
    Notify,
    /// The client has broken it off.
    Broken,
    /// This side does, with this alert.
    Alert(Alert),
}

/// What a connection needs while it is in the middle of something.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// What came and had no place in the last turn.
    pub(crate) rest: Vec<u8>,
    /// The beginning of a TLS record.
    pub(crate) record: Vec<u8>,
    /// How the client has ended its TLS session, behind what is in `rest`.
    pub(crate) end: Option<TlsEnd>,
    /// TLS records, or the rest of one, that the socket had no room for. They come before the queue, which is not sealed.
    pub(crate) sealed: Vec<u8>,
    /// In the middle of a frame or a message.
    pub(crate) decoder: Option<Decoder>,
    /// Frames that the socket had no room for; the first may be sent in part.
    pub(crate) queue: VecDeque<Bytes>,
    /// Bytes in the queue, and what keeping them takes.
    pub(crate) queued: usize,
    /// Whether a part of the first frame is out: nothing else may come before the rest of it.
    pub(crate) cut: bool,
    /// When the socket last took something.
    pub(crate) taken: Tenths,
    /// Not read because too much waits to be sent; there may be something to read.
    pub(crate) unread: bool,
    /// The last that is said to a client, for which the kernel has had no room.
    pub(crate) goodbye: bool,
    /// Records in a row that the kernel has opened and that hold no data.
    pub(crate) idle_records: u8,
}

impl Busy {
    /// Drops what waits and is not sealed.
    pub(crate) fn drop_queue(&mut self) {
        self.queue = VecDeque::new();
        self.queued = 0;
        self.cut = false;
    }

    /// So many bytes of the queue are out.
    pub(crate) fn sent(&mut self, mut len: usize) {
        while let Some(front) = self.queue.front_mut() {
            let of_it = len.min(front.len());
            self.queued -= of_it;
            len -= of_it;
            if of_it < front.len() {
                self.cut |= of_it > 0;
                bytes::Buf::advance(front, of_it);
                return;
            }
            self.cut = false;
            self.queued -= OVERHEAD;
            self.queue.pop_front();
        }
    }
}

impl<S> Connection<S> {
    pub(crate) fn queued(&self) -> usize {
        let waiting = |busy: &Busy| busy.queued + busy.sealed.len() + usize::from(busy.goodbye);
        self.busy.as_deref().map_or(0, waiting)
    }

    /// Whether the client's session has been broken off while something was sent to it (see
    /// [`transmit`](super::transmit::transmit)): its conversation is to be ended.
    pub(crate) fn is_refused(&self) -> bool {
        self.flags.has(Flags::DEAF)
            && self.flags.has(Flags::HAS_PARTED)
            && !matches!(self.phase, Phase::Lingering { .. })
    }

    /// Whether it takes messages.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open && !self.is_refused()
    }

    /// Frees the box when nothing is under way any more.
    pub(crate) fn settle(&mut self) {
        let idle = |busy: &Busy| {
            let has_input = busy.decoder.is_some()
                || !(busy.rest.is_empty() && busy.record.is_empty())
                || busy.end.is_some()
                || busy.unread
                || busy.idle_records > 0;
            !has_input && busy.queue.is_empty() && busy.sealed.is_empty() && !busy.goodbye
        };
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
        busy.queued += frames.len() + OVERHEAD;
        busy.queue.push_back(frames);
    }
}

/// What an entry of a queue takes besides its bytes: a cap on short messages would not be one otherwise.
pub(crate) const OVERHEAD: usize = 64;

/// How many messages a client may still send: a bucket that is refilled as time passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    /// In tenths of a message.
    used: u32,
    at: Tenths,
}

impl Rate {
    /// Counts one message; false: too many.
    pub(crate) fn admit(&mut self, per_second: u32, now: Tenths) -> bool {
        // A message a second is a tenth of one in a tenth of a second.
        let refill = u64::from(per_second) * u64::from(now.wrapping_sub(self.at));
        self.used = self.used.saturating_sub(u32::try_from(refill).unwrap_or(u32::MAX));
        self.at = now;
        if u64::from(self.used) + 10 > 10 * u64::from(per_second) {
            return false;
        }
        self.used += 10;
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
        let mut odd = Rate::default();
        let admitted = (0..1000).filter(|now| odd.admit(7, *now)).count();
        assert!((700..=707).contains(&admitted), "{admitted} in 100 s");
    }

    #[test]
    fn a_record_is_small() {
        let size = size_of::<Connection<[usize; 4]>>();
        assert!(size <= 88, "{size} bytes, 32 of which are the application's");
    }
}
