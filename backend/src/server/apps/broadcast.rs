//! `broadcast`: rooms. A message goes to everyone in the room, its sender included, encoded once.
//!
//! Each member has a queue of bounded length. One who does not keep up is taken out of the room and closed with 1008:
//! the others do not wait, memory stays bounded, and nobody misses messages without noticing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Application, Outgoing};
use crate::server::messages::Message;
use crate::server::metrics::Metrics;
use crate::server::writer;

/// Messages that wait for one member.
const QUEUE: usize = 64;

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
    queues: HashMap<u64, mpsc::Sender<Queued>>,
}

#[derive(Debug, Clone)]
struct Queued {
    frame: Bytes,
    payload_len: usize,
}

impl Rooms {
    pub(super) fn new(metrics: Arc<Metrics>) -> Rooms {
        Rooms { by_name: Mutex::default(), metrics }
    }

    pub(super) fn join(self: &Arc<Rooms>, name: Box<str>) -> Member {
        let (queue, incoming) = mpsc::channel(QUEUE);
        let mut rooms = lock(&self.by_name);
        let room = Arc::clone(rooms.entry(name.clone()).or_default());
        let mut members = lock(&room.members);
        let id = members.next;
        members.next += 1;
        members.queues.insert(id, queue);
        drop(members);
        Member { rooms: Arc::clone(self), room, name, id, incoming }
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
    incoming: mpsc::Receiver<Queued>,
}

impl Application for Member {
    fn received(&mut self, message: Message) -> Option<Message> {
        let frame = writer::encode(message.opcode(), &message.payload);
        let queued = Queued { frame, payload_len: message.payload.len() };
        let mut members = lock(&self.room.members);
        members.queues.retain(|_, queue| match queue.try_send(queued.clone()) {
            Ok(()) => true,
            Err(error) => {
                if matches!(error, mpsc::error::TrySendError::Full(_)) {
                    self.rooms.metrics.slow_receivers.inc();
                }
                false
            }
        });
        None
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        match ready!(self.incoming.poll_recv(cx)) {
            Some(Queued { frame, payload_len }) => {
                Poll::Ready(Outgoing::Encoded { frame, payload_len })
            }
            None => Poll::Ready(Outgoing::Close(1008, "too slow for this room")),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.rooms.leave(self);
    }
}

/// Nothing panics with a lock held; and if it did, a map of senders is never half changed.
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
        let mut other = rooms.join("b".into());
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
        assert!(other.incoming.try_recv().is_err());
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
        for _ in 0..QUEUE {
            assert!(matches!(outgoing(&mut slow).await, Outgoing::Encoded { .. }));
        }
        assert!(matches!(outgoing(&mut slow).await, Outgoing::Close(1008, _)));
        assert_eq!(rooms.metrics.slow_receivers.get(), 1);
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
