//! What leaves by a socket, as it is or sealed in TLS records; and what a TLS session does on its own.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use handoff_tls::{Alert, Closed, Control, MAX_PLAINTEXT, Session};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::connection::{Connection, Flags, Phase, Tenths, TlsEnd};
use super::handler::{Cause, Ended, Handler};
use super::kernel::{KernelState, update_sending};
use super::kernel_socket as kernel;
use super::slab::Key;
use super::thread::Thread;

/// Frames that leave in one send.
const PARTS: usize = 64;

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// Bytes that are sealed for one send.
const SEALED: usize = 64 << 10;

/// A thread's room for sealing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    plain: Vec<u8>,
    sealed: Vec<u8>,
    pub(crate) kernel: KernelState,
    /// The thread's time.
    pub(crate) now: Tenths,
}

/// Sends frames that follow each other. Returns how many of their bytes are out: fewer than all mean that the socket is full.
///
/// Of a TLS connection what is sealed counts as out; what the socket has no room for waits in
/// [`Busy::sealed`](super::connection::Busy), and nothing else is sealed before that is out. So does what the kernel has taken to
/// seal.
///
/// A send may be what finds out that a record came that makes no sense. The frames leave, and behind them the alert, the last that
/// does: the connection [is refused](Connection::is_refused), and whoever sends ends the conversation.
pub(crate) fn transmit<'a, S>(
    connection: &mut Connection<S>,
    frames: impl Iterator<Item = &'a [u8]>,
    scratch: &mut Scratch,
) -> Result<usize, Errno> {
    if connection.tls.is_some() {
        return transmit_sealed(connection, frames, scratch);
    }
    let kernel_seals = connection.flags.has(Flags::SENDS);
    if kernel_seals && connection.flags.has(Flags::HAS_PARTED) {
        return Err(Errno::PIPE);
    }
    let owes = kernel_seals && connection.flags.has(Flags::OWES_KEY_UPDATE);
    if owes && !update_sending(connection, &mut scratch.kernel)? {
        return Ok(0);
    }
    let mut parts = [IoSlice::new(&[]); PARTS];
    let mut count = 0;
    for (part, frame) in parts.iter_mut().zip(frames) {
        *part = IoSlice::new(frame);
        count += 1;
    }
    let parts = parts.get(..count).unwrap_or_default();
    let send_all = || match parts {
        [] => Ok(0),
        [part] => send(&connection.socket, part, FLAGS),
        _ => sendmsg(&connection.socket, parts, &mut SendAncillaryBuffer::default(), FLAGS),
    };
    let sent = retry(send_all);
    if !kernel_seals {
        return sent;
    }
    let sent = match sent.err().and_then(kernel::alert_of) {
        Some(alert) => {
            kernel::clear_error(&connection.socket);
            let sent = retry(send_all)?;
            break_off(connection, alert, scratch.now);
            sent
        }
        None => sent?,
    };
    scratch.kernel.sealed += sent.div_ceil(MAX_PLAINTEXT) as u64;
    Ok(sent)
}

fn transmit_sealed<'a, S>(
    connection: &mut Connection<S>,
    frames: impl Iterator<Item = &'a [u8]>,
    scratch: &mut Scratch,
) -> Result<usize, Errno> {
    let mut bad = None;
    let taken = seal_and_send(connection, frames, scratch, &mut bad)?;
    if let Some(alert) = bad {
        break_off(connection, alert, scratch.now);
    }
    Ok(taken)
}

/// `bad`: see [`send_past`].
fn seal_and_send<'a, S>(
    connection: &mut Connection<S>,
    frames: impl Iterator<Item = &'a [u8]>,
    scratch: &mut Scratch,
    bad: &mut Option<Alert>,
) -> Result<usize, Errno> {
    let mut taken = 0;
    let mut frames = frames.take(PARTS);
    let mut frame: &[u8] = &[];
    loop {
        if !send_sealed(connection, bad)? {
            return Ok(taken);
        }
        let Scratch { plain, sealed, now, .. } = scratch;
        plain.clear();
        sealed.clear();
        while plain.len() < SEALED {
            if frame.is_empty() {
                match frames.next() {
                    Some(next) => frame = next,
                    None => break,
                }
            }
            let (now, later) = frame.split_at(frame.len().min(SEALED - plain.len()));
            plain.extend_from_slice(now);
            frame = later;
        }
        let Some(session) = &mut connection.tls else { return Ok(taken) };
        if plain.is_empty() && !session.wants_to_send() {
            return Ok(taken);
        }
        // One whose keys are used up ends as if it were broken; `close_worn_out` has tried to end it in order for the last 64 GiB.
        session.seal(plain, sealed).map_err(|_| Errno::PROTO)?;
        taken += plain.len();
        let sent = send_past(&connection.socket, connection.flags, sealed, bad)?;
        if let Some(rest) = sealed.get(sent..).filter(|rest| !rest.is_empty()) {
            let busy = connection.busy.get_or_insert_default();
            busy.sealed.extend_from_slice(rest);
            busy.taken = *now;
        }
        if plain.is_empty() {
            return Ok(taken);
        }
    }
}

/// Sends records that have waited; whether all are out. `bad`: see [`send_past`].
fn send_sealed<S>(connection: &mut Connection<S>, bad: &mut Option<Alert>) -> Result<bool, Errno> {
    let Some(busy) = connection.busy.as_deref_mut() else { return Ok(true) };
    while !busy.sealed.is_empty() {
        match send_past(&connection.socket, connection.flags, &busy.sealed, bad)? {
            0 => return Ok(false),
            sent => {
                busy.sealed.drain(..sent);
            }
        }
    }
    busy.sealed = Vec::new();
    Ok(true)
}

/// Sends sealed records, also where a record that came and makes no sense has left its error with the socket: the kernel opens
/// what comes, though it does not seal what leaves. `bad` is then the alert for it.
fn send_past(
    socket: &OwnedFd,
    flags: Flags,
    records: &[u8],
    bad: &mut Option<Alert>,
) -> Result<usize, Errno> {
    let sent = retry(|| send(socket, records, FLAGS));
    let alert = sent.err().and_then(kernel::alert_of).filter(|_| flags.has(Flags::RECEIVES));
    if alert.is_none() {
        return sent;
    }
    *bad = alert;
    kernel::clear_error(socket);
    retry(|| send(socket, records, FLAGS))
}

/// Ends the session of a client whose records can be opened no more, behind what has just been sent: nobody else is told of it.
fn break_off<S>(connection: &mut Connection<S>, alert: Alert, now: Tenths) {
    if connection.flags.has(Flags::DEAF) {
        return;
    }
    connection.flags.set(Flags::DEAF, true);
    // It may have been the error's.
    connection.flags.set(Flags::ENDED, false);
    // Who lingers has been told its end, or is about to be.
    if matches!(connection.phase, Phase::Lingering { .. }) {
        return;
    }
    tracing::debug!(%alert, "a TLS session is ended");
    send_alert(connection, alert, now);
    connection.flags.set(Flags::HAS_PARTED, true);
}

/// Tells the client how its session ends, or that nothing is negotiated anew; behind records that wait already. False: the kernel, which
/// seals it, has no room.
pub(crate) fn send_alert<S>(connection: &mut Connection<S>, alert: Alert, now: Tenths) -> bool {
    if connection.flags.has(Flags::HAS_PARTED) {
        return true;
    }
    if connection.flags.has(Flags::SENDS) {
        return send_alert_to_kernel(connection, alert);
    }
    // A bad record that the kernel has opened; one that is not the end of the session leaves it to the next receive.
    if connection.flags.has(Flags::RECEIVES) && alert != Alert::NoRenegotiation {
        kernel::clear_error(&connection.socket);
    }
    let mut bad = None;
    // What waits leaves when the socket has room, and whatever was to follow then does: nobody else may empty the queue of a
    // connection that goes on.
    let goes_on = alert == Alert::NoRenegotiation;
    let are_out = if goes_on && connection.queued() > 0 {
        Ok(false)
    } else {
        send_sealed(connection, &mut bad)
    };
    let Some(session) = &mut connection.tls else { return true };
    let mut record = Vec::new();
    session.seal_alert(alert, &mut record);
    let sent = match are_out {
        Ok(true) => send_past(&connection.socket, connection.flags, &record, &mut bad)
            .unwrap_or(record.len()),
        Ok(false) => 0,
        Err(_) => return true,
    };
    if let Some(rest) = record.get(sent..).filter(|rest| !rest.is_empty()) {
        // The record has its number: those that follow make no sense without it.
        let busy = connection.busy.get_or_insert_default();
        if busy.sealed.is_empty() {
            busy.taken = now;
        }
        busy.sealed.extend_from_slice(rest);
    }
    // The session would have gone on, but for what came.
    if let (Some(worse), Alert::NoRenegotiation) = (bad, alert) {
        break_off(connection, worse, now);
    }
    true
}

fn send_alert_to_kernel<S>(connection: &mut Connection<S>, alert: Alert) -> bool {
    let is_last = alert != Alert::NoRenegotiation;
    let send = || kernel::send_record(&connection.socket, Control::ALERT, &alert.to_bytes());
    let sent = match send() {
        // Nothing that comes matters behind the last alert.
        Err(error) if is_last && kernel::alert_of(error).is_some() => {
            kernel::clear_error(&connection.socket);
            send()
        }
        sent => sent,
    };
    // One that fails has nobody to hear it.
    let sent = sent.unwrap_or(true);
    if sent && is_last {
        connection.flags.set(Flags::HAS_PARTED, true);
    }
    sent
}

/// 0: there is no room.
fn retry(mut send: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match send() {
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => (),
            result => return result,
        }
    }
}

impl<H: Handler> Thread<H> {
    /// Opens the records that have come, and uses what is in them.
    pub(crate) fn feed_sealed(&mut self, key: Key, input: &mut [u8]) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let Some(session) = connection.tls.as_deref_mut() else { return };
        let mut joined =
            connection.busy.as_deref_mut().map(|busy| std::mem::take(&mut busy.record));
        let input = match &mut joined {
            Some(record) if !record.is_empty() => {
                record.extend_from_slice(input);
                record.as_mut_slice()
            }
            _ => input,
        };
        let opened = session.open(input);
        let end = match (opened.alert, opened.closed) {
            (Some(Alert::NoRenegotiation), closed) => {
                send_alert(connection, Alert::NoRenegotiation, self.now);
                closed.map(end_of)
            }
            (Some(alert), _) => Some(TlsEnd::Alert(alert)),
            (None, closed) => closed.map(end_of),
        };
        let rest = input.get(opened.used..).unwrap_or_default();
        if end.is_some() || !rest.is_empty() {
            let busy = connection.busy.get_or_insert_default();
            busy.end = end;
            if end.is_none() {
                busy.record = rest.to_vec();
            }
        }
        if opened.data > 0 {
            self.feed(key, input.get_mut(..opened.data).unwrap_or_default());
        }
        self.settle_tls(key);
    }

    /// Closes a connection whose keys are nearly used up, while there is enough of them left to say so. The client comes back with
    /// new ones.
    pub(crate) fn close_worn_out(&mut self, key: Key) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        if connection.tls.as_deref().is_some_and(Session::is_wearing_out) {
            self.close(key, 1001, "the TLS session's keys are used up", Cause::Keys);
        }
    }

    /// The end of the session, once all that came before it has been used; and the KeyUpdate that the client may have asked for.
    pub(crate) fn settle_tls(&mut self, key: Key) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        let Some(session) = &connection.tls else { return };
        // While something waits it goes along with that, later.
        if session.wants_to_send()
            && connection.queued() == 0
            && transmit(connection, std::iter::empty(), &mut self.desk.scratch).is_err()
        {
            return self.lose(key);
        }
        let Some(busy) = connection.busy.as_deref_mut() else { return };
        if !busy.rest.is_empty() {
            return;
        }
        let Some(end) = busy.end.take() else { return connection.settle() };
        self.end_tls(key, end);
    }

    /// The end of the session, all that came before it being used.
    pub(crate) fn end_tls(&mut self, key: Key, end: TlsEnd) {
        if end == TlsEnd::Broken {
            // Nothing is answered to an alert, not even a goodbye (RFC 8446 section 6.2).
            self.desk.clear_out();
        } else {
            // What the connection has been given for its groups comes before.
            self.flush(key);
        }
        let Some(connection) = self.slab.get_mut(key) else { return };
        match end {
            // Nothing more comes, and what waits still leaves: then the answer to it, a close_notify.
            TlsEnd::Notify if matches!(connection.phase, Phase::Lingering { .. }) => {
                self.read_end(key);
            }
            TlsEnd::Notify => self.finish(key, Ended::Lost),
            TlsEnd::Broken => {
                connection.flags.set(Flags::HAS_PARTED, true);
                self.lose(key);
            }
            TlsEnd::Alert(alert) => {
                tracing::debug!(%alert, "a TLS session is ended");
                // What waits is of no use to the client any more, but for a record that has begun: without the rest of it the
                // client would not understand the alert.
                if let Some(busy) = connection.busy.as_deref_mut() {
                    busy.drop_queue();
                }
                send_alert(connection, alert, self.now);
                // Also where there was no room for it: a goodbye would say that all was well.
                connection.flags.set(Flags::HAS_PARTED, true);
                self.finish(key, Ended::Lost);
            }
        }
    }
}

/// What the client's end of its direction means.
pub(crate) fn end_of(closed: Closed) -> TlsEnd {
    match closed {
        Closed::Notify => TlsEnd::Notify,
        Closed::Alert(_) => TlsEnd::Broken,
    }
}

/// How a session ends that has said all: nothing was cut off. Once, and not behind another alert. False: the kernel has no room for it.
pub(crate) fn say_goodbye<S>(connection: &mut Connection<S>, now: Tenths) -> bool {
    let has_tls = connection.tls.is_some() || connection.flags.has(Flags::SENDS);
    !has_tls || send_alert(connection, Alert::CloseNotify, now)
}

/// What a session costs while nothing is under way.
const _: () = assert!(size_of::<Session>() <= 256);
