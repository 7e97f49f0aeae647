//! Reading: one receive for whatever has come, all frames of it parsed, all answers sent at once.

use std::ops::ControlFlow;

use handoff_websocket::{
    DecodeOptions, Decoder, Event, OpCode, Violation, encode_close, encode_control,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::connection::{Connection, Flags, Phase};
use super::context::Context;
use super::handler::{Cause, Ended, Handler};
use super::slab::Key;
use super::thread::Thread;

/// Bytes that may wait to be sent to a client before it is not read from any more: what it sends would add to them.
const ENOUGH: usize = 64 << 10;

/// What a turn's input led to.
enum Outcome {
    /// The conversation goes on.
    Open,
    /// The client sent a close, with this code.
    Closed(Option<u16>),
    Broken(Violation),
    TooMany,
    /// The application closes.
    Application(u16, &'static str),
}

/// How far a turn got.
struct Turn {
    outcome: Outcome,
    /// Bytes used.
    used: usize,
    /// Whether the client's close came behind what made this side close.
    answered: bool,
}

impl<H: Handler> Thread<H> {
    /// Reads once, and uses what came. There may be more afterwards: the connection's next turn comes after everybody
    /// else's.
    pub(crate) fn readable(&mut self, key: Key) {
        self.catch_up(key);
        self.read(key);
        // A turn that was none has not.
        self.flush(key);
    }

    fn read(&mut self, key: Key) {
        let enough = self.enough();
        let Some(connection) = self.slab.get_mut(key) else { return };
        if connection.phase == Phase::Open && connection.queued() > enough {
            connection.busy.get_or_insert_default().unread = true;
            return;
        }
        if let Some(busy) = connection.busy.as_deref_mut().filter(|busy| !busy.rest.is_empty()) {
            let mut rest = std::mem::take(&mut busy.rest);
            // What has come since is for the next turn.
            self.take_turn(key);
            self.feed(key, &mut rest);
            return self.settle_tls(key);
        }
        if connection.flags.has(Flags::RECEIVES) {
            return self.read_opened(key);
        }
        let received = recv(&connection.socket, &mut self.buffer[..], RecvFlags::DONTWAIT);
        let len = match received {
            Ok((_, 0)) => {
                self.flush(key);
                return self.read_end(key);
            }
            Ok((_, len)) => len,
            Err(Errno::AGAIN) => return,
            Err(Errno::INTR) => return self.take_turn(key),
            Err(_) => return self.lose(key),
        };
        connection.seen = self.now;
        // Less than there was room for was all; unless there is an end to be read, which epoll does not report again.
        let (phase, has_tls) = (connection.phase, connection.tls.is_some());
        if connection.flags.has(Flags::ENDED) || len == self.buffer.len() {
            self.take_turn(key);
        }
        if !matches!(phase, Phase::Lingering { .. }) {
            let mut buffer = std::mem::take(&mut self.buffer);
            let input = buffer.get_mut(..len).unwrap_or_default();
            if has_tls {
                self.feed_sealed(key, input);
            } else {
                self.feed(key, input);
            }
            self.buffer = buffer;
        }
    }

    /// Bytes that may wait for a client that is read from.
    pub(crate) fn enough(&self) -> usize {
        ENOUGH.min(self.options.max_queue)
    }

    /// Puts it among those who have another turn, once.
    pub(crate) fn take_turn(&mut self, key: Key) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        if !connection.in_ready {
            connection.in_ready = true;
            self.ready.push_back(key);
        }
    }

    /// Uses bytes that have come.
    pub(crate) fn feed(&mut self, key: Key, input: &mut [u8]) {
        let Turn { outcome, used, answered } = self.decode(key, input);
        let (code, reason, cause) = match outcome {
            Outcome::Open => {
                if let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
                    if let Some(connection) = self.slab.get_mut(key) {
                        connection.busy.get_or_insert_default().rest = rest.to_vec();
                    }
                    self.take_turn(key);
                }
                return self.end_turn(key);
            }
            Outcome::Closed(code) => {
                self.answer_close(key, code);
                return self.end_turn(key);
            }
            Outcome::Broken(violation) => {
                let cause =
                    if violation.code() == 1009 { Cause::MessageSize } else { Cause::Violation };
                self.give_up(key, violation, cause);
                return self.end_turn(key);
            }
            Outcome::TooMany => (1008, "too many messages", Cause::MessageRate),
            Outcome::Application(code, reason) => (code, reason, Cause::Application),
        };
        self.flush(key);
        self.close(key, code, reason, cause);
        if answered {
            self.answer_close(key, None);
        }
        self.end_turn(key);
    }

    fn decode(&mut self, key: Key, input: &mut [u8]) -> Turn {
        let mut turn = Turn { outcome: Outcome::Open, used: input.len(), answered: false };
        let Some(connection) = self.slab.get_mut(key) else { return turn };
        let queued = connection.queued();
        let Connection { state, memberships, busy, phase, agreement, rate, .. } = connection;
        let mut kept = busy.as_mut().and_then(|busy| busy.decoder.take());
        let mut fresh = Decoder::default();
        let decoder = kept.as_mut().unwrap_or(&mut fresh);

        let is_open = *phase == Phase::Open;
        let outcome = &mut turn.outcome;
        let desk = &mut self.desk;
        let mut context =
            Context { key, agreement: *agreement, memberships, queued, close: None, desk };
        let mut options = DecodeOptions {
            max_message: self.options.max_message_size,
            inflater: agreement.map(|_| &mut self.inflater),
        };
        let decoded = decoder.decode(input, &mut options, &mut |event| {
            match event {
                Event::Close(close) => {
                    *outcome = Outcome::Closed(close.map(|(code, _)| code));
                    return ControlFlow::Break(());
                }
                // After its own close a server sends nothing more (RFC 6455 5.5.1).
                _ if !is_open => (),
                Event::Ping(payload) => {
                    encode_control(&mut context.desk.out, OpCode::Pong, payload);
                }
                Event::Pong(_) => (),
                Event::Message(message) => {
                    let traffic = &mut context.desk.traffic;
                    traffic.messages_received += 1;
                    traffic.bytes_received += message.payload().len() as u64;
                    if self.options.max_message_rate.is_some_and(|most| !rate.admit(most, self.now))
                    {
                        *outcome = Outcome::TooMany;
                        return ControlFlow::Break(());
                    }
                    if let Some(state) = state {
                        self.handler.on_message(state, message, &mut context);
                    }
                    if let Some((code, reason)) = context.close {
                        *outcome = Outcome::Application(code, reason);
                        return ControlFlow::Break(());
                    }
                    if context.desk.is_full() {
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        });
        match decoded {
            Err(violation) => *outcome = Outcome::Broken(violation),
            Ok(used) => turn.used = used,
        }
        // The rest is of no interest once this side closes, but for the client's close in it.
        if matches!(outcome, Outcome::TooMany | Outcome::Application(..)) {
            let rest = input.get_mut(turn.used..).unwrap_or_default();
            let answered = &mut turn.answered;
            // What is wrong with it makes no difference any more.
            let _ = decoder.decode(rest, &mut options, &mut |event| {
                *answered = matches!(event, Event::Close(_));
                if *answered { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        let unfinished = kept.or(Some(fresh)).filter(|decoder| !decoder.is_idle());
        if unfinished.is_some() {
            busy.get_or_insert_default().decoder = unfinished;
        }
        connection.settle();
        turn
    }

    /// Answers the client's close, or takes it as the answer to this side's.
    fn answer_close(&mut self, key: Key, code: Option<u16>) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let ended = match connection.phase {
            Phase::Closing(ended) => ended,
            _ => {
                encode_close(&mut self.desk.out, code, "");
                Ended::ByClient
            }
        };
        // Whoever sees the close finds it counted.
        self.end_conversation(key, ended);
        self.flush(key);
        self.finish(key, ended);
    }

    /// Closes a client that has broken a rule: nothing that it sends can be understood any more.
    fn give_up(&mut self, key: Key, violation: Violation, cause: Cause) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let ended = match connection.phase {
            Phase::Closing(ended) => ended,
            _ => {
                encode_close(&mut self.desk.out, Some(violation.code()), &violation.to_string());
                Ended::ByServer(violation.code(), cause)
            }
        };
        // Whoever sees the close finds it counted.
        self.end_conversation(key, ended);
        self.flush(key);
        self.finish(key, ended);
    }

    /// Sends what the turn has written. What it has written to groups waits for the end of the round, unless it is much.
    pub(crate) fn end_turn(&mut self, key: Key) {
        self.flush(key);
        self.close_worn_out(key);
        self.desk.deliveries = 0;
        if self.desk.roster.is_full() {
            self.deliver();
        }
    }
}
