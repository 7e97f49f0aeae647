//! Reading from connections whose records the kernel opens: data, and what the kernel leaves to user space.

use std::os::fd::AsRawFd;

use handoff_tls::{Alert, Control, MOST_IDLE_RECORDS, Version};
use handoff_websocket::encode_close;
use rustix::io::Errno;

use super::connection::{Connection, Flags, Phase, TlsEnd};
use super::handler::{Cause, Ended, Handler};
use super::kernel::update_sending;
use super::kernel_socket::{self as socket, Received};
use super::slab::Key;
use super::thread::Thread;
use super::transmit::{end_of, send_alert};

/// Bytes that a receive counts as, at least, in a turn.
const LEAST: usize = 512;

/// Times that a turn gives data to the application, each of which may lead to as much as the whole turn of a client in user
/// space. A second one, since data may have come in two pieces.
const MOST_FEEDS: usize = 2;

/// Records that a thread's connections may seal together before it looks at each: none has had many more since.
const LOOK_AFTER: u64 = 1 << 22;
/// Records after which a key has done enough: with what comes before the next look they stay below AES-GCM's 2^24.5 (RFC 8446
/// section 5.5).
const ENOUGH: u64 = 1 << 24;

impl<H: Handler> Thread<H> {
    /// Reads until nothing is left, or as much as a turn may: a record that came along with others, and one that the kernel
    /// had to wait for keys to open, is not reported by epoll.
    pub(crate) fn read_opened(&mut self, key: Key) {
        let mut room = self.buffer.len();
        let mut feeds = 0;
        while room > 0 && feeds < MOST_FEEDS {
            let Some(connection) = self.slab.get_mut(key) else { return };
            if connection.is_refused() {
                return self.end_refused(key);
            }
            if connection.flags.has(Flags::DEAF) {
                // What comes cannot be opened. The client's end is all that is of interest.
                if connection.flags.has(Flags::ENDED) {
                    self.read_end(key);
                }
                return;
            }
            if self.is_held_up(key) {
                return;
            }
            let Some(connection) = self.slab.get_mut(key) else { return };
            let Received { len, kind } = match socket::receive(&connection.socket, &mut self.buffer)
            {
                Ok(received) => received,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(error) => return self.read_failed(key, error),
            };
            let phase = connection.phase;
            // Who lingers is not to put off its end by what it sends.
            if !matches!(phase, Phase::Lingering { .. }) {
                connection.seen = self.now;
            }
            if let Some(busy) = connection.busy.as_deref_mut() {
                if kind == Some(Control::DATA) && len > 0 {
                    busy.idle_records = 0;
                }
            }
            // Records without content count as well.
            room = room.saturating_sub(len.max(LEAST));
            match kind {
                None => {
                    self.flush(key);
                    return self.read_end(key);
                }
                Some(Control::DATA) if matches!(phase, Phase::Lingering { .. }) => (),
                Some(Control::DATA) => {
                    feeds += 1;
                    let mut buffer = std::mem::take(&mut self.buffer);
                    self.feed(key, buffer.get_mut(..len).unwrap_or_default());
                    self.buffer = buffer;
                }
                Some(kind) => self.control(key, kind, len),
            }
        }
        self.take_turn(key);
    }

    /// Whether something has to come before the next read: what waits to be sent, or to be used.
    fn is_held_up(&mut self, key: Key) -> bool {
        let enough = self.enough();
        let Some(connection) = self.slab.get_mut(key) else { return true };
        if connection.phase == Phase::Open && connection.queued() > enough {
            connection.busy.get_or_insert_default().unread = true;
            return true;
        }
        // It has a turn for that.
        connection.busy.as_ref().is_some_and(|busy| !busy.rest.is_empty())
    }

    /// A record that holds no data, at the front of the buffer.
    fn control(&mut self, key: Key, kind: u8, len: usize) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let is_1_3 = connection.flags.has(Flags::TLS_1_3);
        let version = if is_1_3 { Version::Tls13 } else { Version::Tls12 };
        let content = self.buffer.get(..len).unwrap_or_default();
        match Control::read(version, kind, content).and_then(|control| count(connection, control)) {
            Ok(Control::Nothing) => (),
            Ok(Control::Closed(closed)) => self.end_tls(key, end_of(closed)),
            Ok(Control::KeyUpdate { is_requested }) => self.key_update(key, is_requested),
            // No answer obliges the client to go on without one (RFC 5746 section 4.4).
            Ok(Control::Renegotiation) if connection.flags.has(Flags::HAS_REFUSED) => {
                self.refuse_records(key, Alert::UnexpectedMessage);
            }
            Ok(Control::Renegotiation) => {
                connection.flags.set(Flags::HAS_REFUSED, true);
                send_alert(connection, Alert::NoRenegotiation, self.now);
            }
            Err(alert) => self.refuse_records(key, alert),
        }
    }

    fn read_failed(&mut self, key: Key, error: Errno) {
        match (socket::alert_of(error), error) {
            (Some(alert), _) => self.refuse_records(key, alert),
            // A KeyUpdate of which there is more, in other records.
            (None, Errno::KEYEXPIRED) => self.refuse_records(key, Alert::UnexpectedMessage),
            _ => self.lose(key),
        }
    }

    /// Ends the conversation of a client whose session has been broken off by [`transmit`](super::transmit::transmit): the alert
    /// is the last that it gets.
    pub(crate) fn end_refused(&mut self, key: Key) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        if let Some(busy) = connection.busy.as_deref_mut() {
            busy.drop_queue();
        }
        self.finish(key, Ended::Lost);
    }

    /// Ends the session with an alert: nothing that follows can be understood.
    fn refuse_records(&mut self, key: Key, alert: Alert) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        connection.flags.set(Flags::DEAF, true);
        // It may have been the error's.
        connection.flags.set(Flags::ENDED, false);
        if !matches!(connection.phase, Phase::Lingering { .. }) {
            self.end_tls(key, TlsEnd::Alert(alert));
        }
    }

    /// The client uses its next keys from here on. A kernel that does not take them can open nothing more.
    fn key_update(&mut self, key: Key, is_requested: bool) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let state = &mut self.desk.scratch.kernel;
        let next = state.secrets.get_mut(&connection.socket.as_raw_fd());
        let next = next.and_then(|secrets| secrets.next_receiving());
        let taken = next.ok_or(Errno::OPNOTSUPP);
        if let Err(error) = taken.and_then(|next| socket::set_receiving(&connection.socket, &next))
        {
            tracing::debug!("the kernel takes no other keys: {error}");
            connection.flags.set(Flags::DEAF, true);
            return self.give_up_keys(key);
        }
        if is_requested && connection.flags.has(Flags::SENDS) {
            connection.flags.set(Flags::OWES_KEY_UPDATE, true);
            self.answer_key_update(key);
        }
    }

    /// Without room it goes before what is sent next.
    fn answer_key_update(&mut self, key: Key) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        if update_sending(connection, &mut self.desk.scratch.kernel).is_err() {
            self.lose(key);
        }
    }

    /// Closes a client whose keys can be used no further, as one that is to come again.
    fn give_up_keys(&mut self, key: Key) {
        const CODE: u16 = 1001;
        let Some(connection) = self.slab.get_mut(key) else { return };
        let ended = match connection.phase {
            Phase::Lingering { .. } => return,
            Phase::Closing(ended) => ended,
            Phase::Open => {
                encode_close(&mut self.desk.out, Some(CODE), "TLS keys cannot be changed");
                Ended::ByServer(CODE, Cause::Keys)
            }
        };
        // Whoever sees the close finds it counted.
        self.end_conversation(key, ended);
        self.flush(key);
        self.finish(key, ended);
    }

    /// Changes keys that the kernel has sealed many records with; or closes, where it takes no others.
    pub(crate) fn look_after_keys(&mut self) {
        if self.desk.scratch.kernel.sealed < LOOK_AFTER {
            return;
        }
        self.desk.scratch.kernel.sealed = 0;
        for place in 0..self.slab.places() {
            let Some((key, connection)) = self.slab.at(place) else { continue };
            if is_used_up(connection) {
                self.change_sending_keys(key);
            }
        }
    }

    fn change_sending_keys(&mut self, key: Key) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let number = connection.socket.as_raw_fd();
        if !self.desk.scratch.kernel.secrets.contains_key(&number) {
            self.catch_up(key);
            return self.give_up_keys(key);
        }
        connection.flags.set(Flags::OWES_KEY_UPDATE, true);
        self.answer_key_update(key);
    }
}

/// Bears no more records in a row without data than a session in user space does.
fn count<S>(connection: &mut Connection<S>, control: Control) -> Result<Control, Alert> {
    if matches!(control, Control::Closed(_)) {
        return Ok(control);
    }
    let busy = connection.busy.get_or_insert_default();
    if busy.idle_records >= MOST_IDLE_RECORDS {
        return Err(Alert::UnexpectedMessage);
    }
    busy.idle_records += 1;
    Ok(control)
}

fn is_used_up<S>(connection: &Connection<S>) -> bool {
    connection.flags.has(Flags::SENDS)
        && !matches!(connection.phase, Phase::Lingering { .. })
        && socket::sealed_records(&connection.socket).is_some_and(|sealed| sealed >= ENOUGH)
}
