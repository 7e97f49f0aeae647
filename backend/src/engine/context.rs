//! What a handler can do to the connection that it is called for.

use std::sync::Arc;

use bytes::Bytes;
use handoff_websocket::{Agreement, Deflater, Message};

use super::groups::{Group, Memberships, Roster};
use super::handler::Traffic;
use super::mailbox::{Mailbox, Sender};
use super::prepared::Prepared;
use super::slab::Key;
use super::transmit::Scratch;

/// The connection that a [`Handler`](super::Handler) is called for.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) key: Key,
    pub(crate) agreement: Option<Agreement>,
    pub(crate) memberships: &'a mut Memberships,
    /// What the socket had no room for before this turn.
    pub(crate) queued: usize,
    pub(crate) close: Option<(u16, &'static str)>,
    pub(crate) desk: &'a mut Desk,
}

/// What a thread's connections share when they send.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) thread: usize,
    pub(crate) mailboxes: Arc<[Arc<Mailbox>]>,
    /// Frames for the connection whose turn it is: they leave in one send.
    pub(crate) out: Vec<u8>,
    /// Room for sealing.
    pub(crate) scratch: Scratch,
    pub(crate) deflater: Deflater,
    pub(crate) roster: Roster,
    pub(crate) traffic: Traffic,
    /// Sends to members of groups that the turn has led to.
    pub(crate) deliveries: usize,
}

impl Context<'_> {
    /// Sends a message to the client. What is sent during one call of the handler, and further calls for messages that
    /// came together, leaves at once.
    pub fn send(&mut self, message: Message<'_>) {
        if self.close.is_some() {
            return;
        }
        let Desk { out, deflater, traffic, .. } = &mut *self.desk;
        match self.agreement {
            Some(agreement) => deflater.encode(out, message, agreement),
            None => handoff_websocket::encode(out, message),
        }
        traffic.messages_sent += 1;
        traffic.bytes_sent += message.payload().len() as u64;
    }

    /// Sends a text to the client.
    pub fn send_text(&mut self, text: &str) {
        self.send(Message::Text(text));
    }

    /// Sends a message that others get, too.
    pub fn send_prepared(&mut self, message: &Prepared) {
        if self.close.is_some() {
            return;
        }
        let Desk { out, deflater, traffic, .. } = &mut *self.desk;
        out.extend_from_slice(message.bytes(self.agreement, deflater));
        traffic.messages_sent += 1;
        traffic.bytes_sent += message.payload_len() as u64;
    }

    /// Closes the connection after what has been sent, with a code that may be sent (RFC 6455 7.4: 1000, 1008, 3000 to 4999
    /// and so on; else the close has none); `reason` is cut to 123 bytes. The first close counts.
    pub fn close(&mut self, code: u16, reason: &'static str) {
        self.close.get_or_insert((code, reason));
    }

    /// About how many bytes wait for the client, which does not take them, or is sent them when this call is over. Over
    /// [`EngineOptions::max_queue`](super::EngineOptions::max_queue) the client is closed: whoever produces for this one
    /// alone can go on when it has become less, in [`on_sweep`](super::Handler::on_sweep) for example.
    pub fn queued(&self) -> usize {
        self.queued + self.desk.out.len()
    }

    /// For sending to this connection from elsewhere.
    pub fn sender(&self) -> Option<Sender> {
        let mailbox = Arc::clone(self.desk.mailboxes.get(self.desk.thread)?);
        Some(Sender { mailbox, key: self.key })
    }

    /// A group without members.
    pub fn new_group(&self) -> Group {
        Group::new(&self.desk.mailboxes)
    }

    /// Adds the connection to a group; it leaves it when it closes.
    pub fn join(&mut self, group: &Group) {
        self.desk.roster.join(self.memberships, self.key, group);
    }

    /// Takes the connection out of a group.
    pub fn leave(&mut self, group: &Group) {
        self.desk.roster.leave(self.memberships, group);
    }

    /// Sends a message to a group, encoded once; this connection gets it in the order of what is sent to it, if it
    /// is a member.
    pub fn publish(&mut self, group: &Group, message: Message<'_>) {
        self.publish_prepared(group, &Prepared::new(message));
    }

    /// The same for a message that is sent to others, too.
    pub fn publish_prepared(&mut self, group: &Group, message: &Prepared) {
        let is_member = self.desk.roster.is_member(*self.memberships, group);
        if is_member {
            self.send_prepared(message);
        }
        if group.publish_but(message, Some(self.desk.thread)).is_err() {
            self.desk.traffic.messages_dropped += 1;
        }
        let work = self.desk.roster.add(group.id(), message, is_member.then_some(self.key));
        // The first of a turn does not end it, however large the group: what comes with it costs little more.
        self.desk.deliveries += work.min(MANY / 2);
    }
}

impl Desk {
    /// Whether a turn has led to so much that the rest of its input has to wait for the next.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() > FULL || self.deliveries > MANY || self.roster.is_full()
    }

    /// What waits to leave; the buffer is kept unless it has become large.
    pub(crate) fn clear_out(&mut self) {
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out.shrink_to(KEPT);
        }
    }

    pub(crate) fn take_out(&self, from: usize) -> Bytes {
        Bytes::copy_from_slice(self.out.get(from..).unwrap_or_default())
    }
}

/// Bytes that one turn may send to its own connection, and members that it may send to, before everybody else has a turn.
const FULL: usize = 64 << 10;
const MANY: usize = 4096;

/// Bytes of a thread's write buffer that outlive a large answer.
const KEPT: usize = 256 << 10;
