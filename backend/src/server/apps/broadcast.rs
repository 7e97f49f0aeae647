//! `broadcast`: rooms. A message goes to everyone in the room, its sender included, encoded once.
//!
//! Each member has a queue of bounded length and size. One who does not keep up is taken out of the room, loses its queue
//! and is closed with 1008: the others do not wait, memory stays bounded, and nobody misses messages without noticing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Application, Outgoing};
use crate::server::messages::Message;
use crate::server::metrics::Metrics;
use crate::server::writer;

/// Messages that wait for one member.
const QUEUE: usize = 64;

/// A member in whose queue more bytes than this wait does not keep up. One message may exceed it.
const QUEUE_BYTES: usize = 1 << 20;

/// Policy violation (RFC 6455 7.4.1).
const TOO_SLOW: u16 = 1008;

/// All rooms that have members.
#[derive(Debug)]
pub(super) struct Rooms {
    by_name: Mutex<HashMap<Box<str>, Arc<Room>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Room {
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    queues: HashMap<u64, Arc<Mutex<Queue>>>,
}

#[derive(Debug, Clone)]
struct Queued {
    frame: Bytes,
    payload_len: usize,
}

/// What waits for one member.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Queued>,
    bytes: usize,
    expelled: bool,
    waker: Option<Waker>,
}

impl Queue {
    /// Whether there was room; if not, the member is expelled.
    fn push(&mut self, queued: Queued) -> bool {
        if self.frames.len() >= QUEUE || self.bytes > QUEUE_BYTES {
            *self = Queue { expelled: true, waker: self.waker.take(), ..Queue::default() };
        } else {
            self.bytes += queued.frame.len();
            self.frames.push_back(queued);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        !self.expelled
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.frames.pop_front()?;
        self.bytes -= queued.frame.len();
        if self.frames.is_empty() {
            // Few members have a queue at any moment.
            self.frames = VecDeque::new();
        }
        Some(queued)
    }

    fn wait(&mut self, cx: &Context<'_>) {
        self.waker = Some(cx.waker().clone());
    }
}

impl Rooms {
    pub(super) fn new(metrics: Arc<Metrics>) -> Rooms {
        Rooms { by_name: Mutex::default(), metrics }
    }

    pub(super) fn join(self: &Arc<Rooms>, name: Box<str>) -> Member {
        let queue = Arc::new(Mutex::new(Queue::default()));
        let mut rooms = lock(&self.by_name);
        let room = Arc::clone(rooms.entry(name.clone()).or_default());
        let mut members = lock(&room.members);
        let id = members.next;
        members.next += 1;
        members.queues.insert(id, Arc::clone(&queue));
        drop(members);
        Member { rooms: Arc::clone(self), room, name, id, queue }
    }

    /// The rooms' lock is held over both steps, so that nobody joins a room that is being removed.
    fn leave(&self, member: &Member) {
        let mut rooms = lock(&self.by_name);
        let mut members = lock(&member.room.members);
        members.queues.remove(&member.id);
        if members.queues.is_empty() {
            rooms.remove(&member.name);
        }
    }
}

/// A client in a room.
#[derive(Debug)]
pub(super) struct Member {
    rooms: Arc<Rooms>,
    room: Arc<Room>,
    name: Box<str>,
    id: u64,
    queue: Arc<Mutex<Queue>>,
}

impl Application for Member {
    fn received(&mut self, message: Message) -> Option<Message> {
        if lock(&self.queue).expelled {
            return None;
        }
        let frame = writer::encode(message.opcode(), &message.payload);
        let queued = Queued { frame, payload_len: message.payload.len() };
        let mut members = lock(&self.room.members);
        members.queues.retain(|_, queue| {
            let keeps_up = lock(queue).push(queued.clone());
            if !keeps_up {
                self.rooms.metrics.slow_receivers.inc();
            }
            keeps_up
        });
        None
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        let mut queue = lock(&self.queue);
        if queue.expelled {
            return Poll::Ready(Outgoing::Close(TOO_SLOW, "too slow for this room"));
        }
        if let Some(Queued { frame, payload_len }) = queue.pop() {
            return Poll::Ready(Outgoing::Encoded { frame, payload_len });
        }
        queue.wait(cx);
        Poll::Pending
    }

    fn poll_expelled(&mut self, cx: &mut Context<'_>) -> Poll<u16> {
        let mut queue = lock(&self.queue);
        if queue.expelled {
            return Poll::Ready(TOO_SLOW);
        }
        queue.wait(cx);
        Poll::Pending
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.rooms.leave(self);
    }
}

/// Nothing panics with a lock held; and if it did, neither a map nor a queue is ever half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: &'static str) -> Message {
        Message { is_text: true, payload: Bytes::from_static(payload.as_bytes()) }
    }

    async fn outgoing(member: &mut Member) -> Outgoing {
        std::future::poll_fn(|cx| member.poll_outgoing(cx)).await
    }

    #[tokio::test]
    async fn everyone_in_the_room_gets_the_same_frame() {
        let rooms = Arc::new(Rooms::new(Arc::new(Metrics::new())));
        let mut one = rooms.join("a".into());
        let mut two = rooms.join("a".into());
        let other = rooms.join("b".into());
        assert!(one.received(text("hi")).is_none());
        let mut seen = Vec::new();
        for member in [&mut one, &mut two] {
            match outgoing(member).await {
                Outgoing::Encoded { frame, payload_len: 2 } => seen.push(frame),
                unexpected => panic!("{unexpected:?}"),
            }
        }
        assert_eq!(&seen[0][..], b"\x81\x02hi");
        assert_eq!(seen[0].as_ptr(), seen[1].as_ptr(), "encoded once");
        assert!(lock(&other.queue).pop().is_none());
    }

    #[tokio::test]
    async fn a_member_who_does_not_keep_up_is_closed_with_1008() {
        let rooms = Arc::new(Rooms::new(Arc::new(Metrics::new())));
        let mut quick = rooms.join("a".into());
        let mut slow = rooms.join("a".into());
        for _ in 0..=QUEUE {
            quick.received(text("x"));
            assert!(matches!(outgoing(&mut quick).await, Outgoing::Encoded { .. }));
        }
        assert!(lock(&slow.queue).frames.is_empty(), "nobody waits for these any more");
        assert!(matches!(outgoing(&mut slow).await, Outgoing::Close(1008, _)));
        assert_eq!(rooms.metrics.slow_receivers.get(), 1);
        slow.received(text("not heard"));
        assert!(lock(&quick.queue).pop().is_none(), "it is out of the room");
    }

    #[tokio::test]
    async fn the_bytes_that_wait_for_a_member_are_bounded() {
        let rooms = Arc::new(Rooms::new(Arc::new(Metrics::new())));
        let mut quick = rooms.join("a".into());
        let slow = rooms.join("a".into());
        let large = Message { is_text: false, payload: vec![0; QUEUE_BYTES + 1].into() };
        quick.received(large.clone());
        assert_eq!(lock(&slow.queue).frames.len(), 1, "one message of any size");
        assert!(matches!(outgoing(&mut quick).await, Outgoing::Encoded { .. }));
        quick.received(text("x"));
        let queue = lock(&slow.queue);
        assert!(queue.expelled && queue.frames.is_empty());
    }

    #[tokio::test]
    async fn empty_rooms_are_forgotten() {
        let rooms = Arc::new(Rooms::new(Arc::new(Metrics::new())));
        let one = rooms.join("a".into());
        let two = rooms.join("a".into());
        drop(one);
        assert_eq!(lock(&rooms.by_name).len(), 1);
        drop(two);
        assert!(lock(&rooms.by_name).is_empty());
    }
}
