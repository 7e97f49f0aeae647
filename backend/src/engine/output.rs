//! Sending: at once where the socket has room, else by a queue with a cap.

use handoff_websocket::encode_close;

use super::batch::Numbered;
use super::connection::{Connection, OVERHEAD, Phase, Tenths};
use super::context::Desk;
use super::handler::{Cause, Ended, Handler};
use super::options::{EngineOptions, SlowReceiver};
use super::prepared::Prepared;
use super::slab::Key;
use super::thread::Thread;
use super::transmit::{Scratch, transmit};

/// What sending came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is out, or queued.
    Accepted,
    /// More waits than may.
    Full,
    /// The connection is broken.
    Broken,
}

impl<H: Handler> Thread<H> {
    /// Sends what the connection's turn has written to the desk.
    pub(crate) fn flush(&mut self, key: Key) {
        if self.desk.out.is_empty() {
            return;
        }
        let Some(connection) = self.slab.get_mut(key) else { return self.desk.clear_out() };
        let sent = send_out(connection, &mut self.desk, &self.options, self.now);
        self.desk.clear_out();
        self.after_sending(key, sent);
    }

    /// Sends a message that somebody else has made.
    pub(crate) fn send_prepared(&mut self, key: Key, message: &Prepared) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let sent = send_message(connection, message, &mut self.desk, &self.options, self.now);
        self.after_sending(key, sent);
    }

    fn after_sending(&mut self, key: Key, sent: Sent) {
        if self.slab.get_mut(key).is_some_and(|connection| connection.is_refused()) {
            return self.end_refused(key);
        }
        match sent {
            Sent::Accepted => (),
            Sent::Broken => self.lose(key),
            Sent::Full => {
                let code = match self.options.slow_receiver {
                    SlowReceiver::Close(code) => code,
                    SlowReceiver::Drop => 1008,
                };
                self.close_full(key, code);
            }
        }
    }

    /// Sends what waits for groups.
    pub(crate) fn deliver(&mut self) {
        if !self.desk.roster.is_due() {
            return;
        }
        // Whom sending fails for leaves its groups: not while their members are gone through.
        let mut failed = std::mem::take(&mut self.failed);
        let mut members = std::mem::take(&mut self.publishing);
        for group in self.desk.roster.take_due() {
            members.extend(self.desk.roster.members(group));
            // Those in other groups, too, get what waits for all of these at once, in order.
            members.retain(|key| {
                let Some(connection) = self.slab.get_mut(*key) else { return false };
                if !self.desk.roster.is_in_several(connection.memberships) {
                    return true;
                }
                self.desk.roster.catch_up(connection.memberships, *key, &mut self.missed);
                let (desk, options) = (&mut self.desk, &self.options);
                match send_messages(connection, &self.missed, desk, options, self.now) {
                    Sent::Accepted if !connection.is_refused() => (),
                    other => failed.push((*key, other)),
                }
                self.missed.clear();
                false
            });
            let Some(batch) = self.desk.roster.take_batch(group) else { continue };
            for key in members.drain(..) {
                let Some(connection) = self.slab.get_mut(key) else { continue };
                let messages = batch.for_member(key);
                let (desk, options) = (&mut self.desk, &self.options);
                match send_messages(connection, messages, desk, options, self.now) {
                    Sent::Accepted if !connection.is_refused() => (),
                    other => failed.push((key, other)),
                }
            }
        }
        members.clear();
        self.publishing = members;
        for (key, sent) in failed.drain(..) {
            self.after_sending(key, sent);
        }
        self.failed = failed;
    }

    /// Gives a connection what waits for its groups, before anything else is done for it: all that it sees is in order.
    /// Some of it may be with what the turn writes.
    pub(crate) fn catch_up(&mut self, key: Key) {
        if !self.desk.roster.is_due() {
            return;
        }
        let Some(connection) = self.slab.get_mut(key) else { return };
        let mut missed = std::mem::take(&mut self.missed);
        self.desk.roster.catch_up(connection.memberships, key, &mut missed);
        let size: usize = missed.iter().map(|numbered| numbered.message.payload_len()).sum();
        let mut sent = Sent::Accepted;
        // Little of it may leave together with the answer: a send less. Much of it is not copied, and has its limit.
        let is_little = size < LITTLE.min(self.options.max_queue / 2);
        if is_little && connection.queued() == 0 && connection.phase == Phase::Open {
            let agreement = connection.agreement;
            let Desk { out, deflater, traffic, .. } = &mut self.desk;
            for Numbered { message, .. } in &missed {
                out.extend_from_slice(message.bytes(agreement, deflater));
                traffic.messages_sent += 1;
                traffic.bytes_sent += message.payload_len() as u64;
            }
        } else {
            let (desk, options) = (&mut self.desk, &self.options);
            sent = send_messages(connection, &missed, desk, options, self.now);
        }
        missed.clear();
        self.missed = missed;
        self.after_sending(key, sent);
    }

    /// The socket has room again.
    pub(crate) fn writable(&mut self, key: Key) {
        let now = self.now;
        let Some(connection) = self.slab.get_mut(key) else { return };
        if connection.queued() == 0 {
            return;
        }
        if let Some(busy) = connection.busy.as_deref_mut().filter(|busy| busy.goodbye) {
            busy.goodbye = false;
            let unread = std::mem::take(&mut busy.unread);
            self.part(key);
            if unread {
                self.take_turn(key);
            }
            return;
        }
        while connection.queued() > 0 {
            let mut waiting = connection.busy.take();
            let queue = waiting.as_deref_mut().map(|busy| std::mem::take(&mut busy.queue));
            connection.busy = waiting;
            let queue = queue.unwrap_or_default();
            let before = connection.busy.as_ref().map_or(0, |busy| busy.sealed.len());
            let frames = queue.iter().map(|frame| &**frame);
            let sent = transmit(connection, frames, &mut self.desk.scratch);
            let is_refused = connection.is_refused();
            let Some(busy) = connection.busy.as_deref_mut() else { return };
            busy.queue = queue;
            if is_refused {
                return self.end_refused(key);
            }
            match sent {
                Ok(sent) if sent > 0 || busy.sealed.len() < before => {
                    busy.taken = now;
                    // A client that takes something is there.
                    connection.seen = now;
                    busy.sent(sent);
                }
                Ok(_) => return,
                Err(_) => return self.lose(key),
            }
        }
        let Some(busy) = connection.busy.as_deref_mut() else { return };
        // A queue that was long keeps its room otherwise.
        busy.queue = Default::default();
        let unread = std::mem::take(&mut busy.unread);
        let phase = connection.phase;
        connection.settle();
        if unread {
            self.take_turn(key);
        }
        match phase {
            Phase::Open | Phase::Lingering { shut: true } => (),
            Phase::Closing(_) => self.closing.push_back((now, key)),
            Phase::Lingering { shut: false } => self.part(key),
        }
    }

    /// Closes a client that does not take what is sent to it. What waits is dropped, but for the rest of a frame that
    /// has begun.
    fn close_full(&mut self, key: Key, code: u16) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        if let Some(busy) = connection.busy.as_deref_mut() {
            busy.queue.truncate(usize::from(busy.cut));
            busy.queued = busy.queue.iter().map(|frame| frame.len() + OVERHEAD).sum();
        }
        self.close(key, code, "too much waits to be sent", Cause::Queue);
    }

    /// Sends a close, and awaits its answer.
    pub(crate) fn close(&mut self, key: Key, code: u16, reason: &str, cause: Cause) {
        let phase = self.slab.get_mut(key).map(|connection| connection.phase);
        if phase != Some(Phase::Open) {
            return;
        }
        self.end_conversation(key, Ended::ByServer(code, cause));
        let Some(connection) = self.slab.get_mut(key) else { return };
        // Its answer may be among what was not read.
        if connection.busy.as_deref_mut().is_some_and(|busy| std::mem::take(&mut busy.unread)) {
            self.take_turn(key);
        }
        let Some(connection) = self.slab.get_mut(key) else { return };
        let mut frame = Vec::new();
        encode_close(&mut frame, Some(code), reason);
        match send_bytes(connection, frame.into(), &mut self.desk.scratch, self.now) {
            _ if connection.is_refused() => self.end_refused(key),
            Sent::Broken => self.lose(key),
            _ if connection.queued() == 0 => self.closing.push_back((self.now, key)),
            // Its time begins when it is out.
            _ => (),
        }
    }
}

/// Bytes for a connection's groups that may leave together with what its turn writes.
const LITTLE: usize = 16 << 10;

fn send_out<S>(
    connection: &mut Connection<S>,
    desk: &mut Desk,
    options: &EngineOptions,
    now: Tenths,
) -> Sent {
    let sent = if connection.queued() > 0 {
        0
    } else {
        match transmit(connection, std::iter::once(&*desk.out), &mut desk.scratch) {
            Ok(sent) if sent == desk.out.len() => return Sent::Accepted,
            Ok(sent) => sent,
            Err(_) => return Sent::Broken,
        }
    };
    // One answer may exceed the cap.
    if sent == 0 && connection.queued() > options.max_queue {
        return Sent::Full;
    }
    connection.queue(desk.take_out(sent), sent > 0, now);
    Sent::Accepted
}

fn send_message<S>(
    connection: &mut Connection<S>,
    message: &Prepared,
    desk: &mut Desk,
    options: &EngineOptions,
    now: Tenths,
) -> Sent {
    if !connection.is_open() {
        return Sent::Accepted;
    }
    let frame = message.bytes(connection.agreement, &mut desk.deflater);
    let queued = connection.queued();
    // One message may exceed the cap.
    if queued > 0 && queued + frame.len() + OVERHEAD > options.max_queue {
        return Sent::Full;
    }
    let sent = send_bytes(connection, frame.clone(), &mut desk.scratch, now);
    if sent == Sent::Accepted {
        desk.traffic.messages_sent += 1;
        desk.traffic.bytes_sent += message.payload_len() as u64;
    }
    sent
}

/// Messages to a group: in one send where there is room. What a client must not keep waiting may be dropped.
fn send_messages<S>(
    connection: &mut Connection<S>,
    messages: &[Numbered],
    desk: &mut Desk,
    options: &EngineOptions,
    now: Tenths,
) -> Sent {
    let mut rest = messages;
    while rest.len() > 1 && connection.queued() == 0 && connection.is_open() {
        let agreement = connection.agreement;
        let Desk { deflater, traffic, scratch, .. } = &mut *desk;
        let frames = rest.iter().map(|next| &**next.message.bytes(agreement, deflater));
        let mut sent = match transmit(connection, frames, scratch) {
            Ok(0) => break,
            Ok(len) => len,
            Err(_) => return Sent::Broken,
        };
        // Those that are out, and the one that is out in part.
        while let Some((next, others)) = rest.split_first().filter(|_| sent > 0) {
            let message = &next.message;
            let frame = message.bytes(agreement, deflater);
            traffic.messages_sent += 1;
            traffic.bytes_sent += message.payload_len() as u64;
            rest = others;
            if sent < frame.len() {
                connection.queue(frame.slice(sent..), true, now);
                break;
            }
            sent -= frame.len();
        }
    }
    for Numbered { message, .. } in rest {
        match send_message(connection, message, desk, options, now) {
            Sent::Accepted => (),
            Sent::Full if options.slow_receiver == SlowReceiver::Drop => {
                desk.traffic.messages_dropped += 1;
            }
            other => return other,
        }
    }
    Sent::Accepted
}

/// Whatever waits already.
pub(crate) fn send_bytes<S>(
    connection: &mut Connection<S>,
    mut frame: bytes::Bytes,
    scratch: &mut Scratch,
    now: Tenths,
) -> Sent {
    let mut sent = 0;
    if connection.queued() == 0 {
        match transmit(connection, std::iter::once(&*frame), scratch) {
            Ok(len) if len == frame.len() => return Sent::Accepted,
            Ok(len) => sent = len,
            Err(_) => return Sent::Broken,
        }
    }
    bytes::Buf::advance(&mut frame, sent);
    connection.queue(frame, sent > 0, now);
    Sent::Accepted
}
