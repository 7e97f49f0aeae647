//! Sending: at once where the socket has room, else by a queue with a cap.

use std::io::IoSlice;
use std::os::fd::AsFd;

use handoff_websocket::encode_close;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};

use super::batch::Numbered;
use super::connection::{Connection, OVERHEAD, Phase, Tenths};
use super::context::Desk;
use super::handler::{Cause, Ended, Handler};
use super::options::{EngineOptions, SlowReceiver};
use super::prepared::Prepared;
use super::slab::Key;
use super::thread::Thread;

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
                    Sent::Accepted => (),
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
                    Sent::Accepted => (),
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
        let Some(busy) = connection.busy.as_deref_mut().filter(|busy| !busy.queue.is_empty())
        else {
            return;
        };
        while !busy.queue.is_empty() {
            match send_parts(&connection.socket, busy.queue.iter().map(|frame| &**frame)) {
                Ok(0) => return,
                Ok(len) => {
                    busy.taken = now;
                    // A client that takes something is there.
                    connection.seen = now;
                    busy.sent(len);
                }
                Err(_) => return self.lose(key),
            }
        }
        // A queue that was long keeps its room otherwise.
        busy.queue = Default::default();
        let unread = std::mem::take(&mut busy.unread);
        let phase = connection.phase;
        connection.settle();
        if unread {
            self.take_turn(key);
        }
        let Some(connection) = self.slab.get_mut(key) else { return };
        match phase {
            Phase::Open | Phase::Lingering { shut: true } => (),
            Phase::Closing(_) => self.closing.push_back((now, key)),
            Phase::Lingering { shut: false } => {
                shut(connection);
                self.lingering.push_back((now, key));
            }
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
        match send_bytes(connection, frame.into(), self.now) {
            Sent::Broken => self.lose(key),
            _ if connection.queued() == 0 => self.closing.push_back((self.now, key)),
            // Its time begins when it is out.
            _ => (),
        }
    }
}

/// Tells the client that nothing more comes.
pub(crate) fn shut<S>(connection: &mut Connection<S>) {
    let _ = shutdown(&connection.socket, Shutdown::Write);
    connection.phase = Phase::Lingering { shut: true };
}

/// Bytes for a connection's groups that may leave together with what its turn writes.
const LITTLE: usize = 16 << 10;

/// Frames of a queue that leave in one send.
const PARTS: usize = 64;

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

fn send_out<S>(
    connection: &mut Connection<S>,
    desk: &mut Desk,
    options: &EngineOptions,
    now: Tenths,
) -> Sent {
    let sent = if connection.queued() > 0 {
        0
    } else {
        match send_some(connection, &desk.out) {
            Ok(sent) if sent == desk.out.len() => return Sent::Accepted,
            Ok(sent) => sent,
            Err(_) => return Sent::Broken,
        }
    };
    // One answer may exceed the cap.
    if connection.queued() > options.max_queue {
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
    if connection.phase != Phase::Open {
        return Sent::Accepted;
    }
    let frame = message.bytes(connection.agreement, &mut desk.deflater);
    let queued = connection.queued();
    // One message may exceed the cap.
    if queued > 0 && queued + frame.len() + OVERHEAD > options.max_queue {
        return Sent::Full;
    }
    let sent = send_bytes(connection, frame.clone(), now);
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
    while rest.len() > 1 && connection.queued() == 0 && connection.phase == Phase::Open {
        let agreement = connection.agreement;
        let Desk { deflater, traffic, .. } = &mut *desk;
        let frames = rest.iter().map(|next| &**next.message.bytes(agreement, deflater));
        let mut sent = match send_parts(&connection.socket, frames) {
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
    now: Tenths,
) -> Sent {
    let mut sent = 0;
    if connection.queued() == 0 {
        match send_some(connection, &frame) {
            Ok(len) if len == frame.len() => return Sent::Accepted,
            Ok(len) => sent = len,
            Err(_) => return Sent::Broken,
        }
    }
    bytes::Buf::advance(&mut frame, sent);
    connection.queue(frame, sent > 0, now);
    Sent::Accepted
}

/// As much as the socket has room for.
fn send_some<S>(connection: &Connection<S>, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match send(&connection.socket, bytes, FLAGS) {
            Ok(len) => return Ok(len),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error),
        }
    }
}

/// The same for several that follow each other, of which there may be more than leave in one send.
fn send_parts<'a>(
    socket: impl AsFd,
    frames: impl Iterator<Item = &'a [u8]>,
) -> Result<usize, Errno> {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let mut count = 0;
    for (part, frame) in parts.iter_mut().zip(frames) {
        *part = IoSlice::new(frame);
        count += 1;
    }
    let parts = parts.get(..count).unwrap_or_default();
    loop {
        match sendmsg(&socket, parts, &mut SendAncillaryBuffer::default(), FLAGS) {
            Ok(len) => return Ok(len),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error),
        }
    }
}
