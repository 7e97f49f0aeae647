//! Every way out: the end of a conversation, the end of its socket, and what is overdue.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use super::connection::{Flags, Phase, Tenths};
use super::handler::{Cause, Ended, Handler};
use super::kernel_socket::is_backed_up;
use super::slab::Key;
use super::sweep::older;
use super::thread::{Draining, Thread};
use super::transmit::say_goodbye;

/// How long the client has to answer a close, and then to close its end. Both begin when all that was before is out.
pub(crate) const CLOSE_TIMEOUT: Tenths = 50;
const LINGER: Tenths = 20;

impl<H: Handler> Thread<H> {
    /// Tells the application, once, and takes the connection out of its groups.
    pub(crate) fn end_conversation(&mut self, key: Key, ended: Ended) {
        let Some(connection) = self.slab.get_mut(key) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        connection.phase = Phase::Closing(ended);
        self.desk.roster.leave_all(&mut connection.memberships);
        if let Some(state) = &mut connection.state {
            self.handler.on_close(state, ended);
        }
    }

    /// The conversation is over, and its end agreed on: what is still to be sent leaves, and then the client is to close
    /// its end.
    pub(crate) fn finish(&mut self, key: Key, ended: Ended) {
        self.end_conversation(key, ended);
        let Some(connection) = self.slab.get_mut(key) else { return };
        // Once: a send may have found out that there is nothing to finish any more.
        if connection.phase == (Phase::Lingering { shut: true }) {
            return;
        }
        if let Some(busy) = connection.busy.as_deref_mut() {
            busy.decoder = None;
            busy.rest = Vec::new();
            busy.record = Vec::new();
        }
        connection.phase = Phase::Lingering { shut: false };
        connection.settle();
        if connection.queued() == 0 {
            self.part(key);
        }
    }

    /// Tells the client that nothing more comes, and gives it time to close its end.
    pub(crate) fn part(&mut self, key: Key) {
        let now = self.now;
        let Some(connection) = self.slab.get_mut(key) else { return };
        if !say_goodbye(connection, now) {
            let busy = connection.busy.get_or_insert_default();
            (busy.goodbye, busy.taken) = (true, now);
        }
        // What is left of it goes first, and comes back here.
        if connection.queued() > 0 {
            return;
        }
        // Behind a shutdown(2) the kernel would not send records that it still has: there the goodbye has to do.
        if !connection.flags.has(Flags::SENDS) {
            let _ = shutdown(&connection.socket, Shutdown::Write);
        }
        connection.phase = Phase::Lingering { shut: true };
        connection.settle();
        self.lingering.push_back((now, key));
    }

    /// The client sends nothing more. It may be waiting for all that it has asked for: a pipelined request, a close and the
    /// end of its direction is a whole conversation.
    pub(crate) fn read_end(&mut self, key: Key) {
        self.end_conversation(key, Ended::Lost);
        let is_leaving = self.is_leaving(key);
        let Some(connection) = self.slab.get_mut(key) else { return };
        let is_waiting = connection.queued() > 0;
        match connection.busy.as_deref_mut().filter(|_| is_waiting) {
            // The end is read again once all is out.
            Some(busy) => busy.unread = true,
            None if is_leaving => {
                // Once: its place in the list is its time.
                if connection.phase != (Phase::Lingering { shut: true }) {
                    connection.phase = Phase::Lingering { shut: true };
                    self.lingering.push_back((self.now, key));
                }
            }
            None => self.lose(key),
        }
    }

    /// Whether what the kernel has sealed may still be on its way to a client that takes it.
    fn is_leaving(&mut self, key: Key) -> bool {
        let Some(connection) = self.slab.get_mut(key) else { return false };
        connection.flags.has(Flags::SENDS)
            && !older(self.now, connection.seen, Some(self.options.send_timeout))
            && is_backed_up(&connection.socket)
    }

    /// The connection is broken, nothing is left to be sent or read, or its time is up: hangs up.
    pub(crate) fn lose(&mut self, key: Key) {
        self.end_conversation(key, Ended::Lost);
        let Some(mut connection) = self.slab.remove(key) else { return };
        self.desk.roster.leave_all(&mut connection.memberships);
        self.poller.remove(&connection.socket);
        // Not where something is missing: it would say that nothing is.
        if connection.queued() == 0 {
            say_goodbye(&mut connection, self.now);
        }
        if connection.flags.has(Flags::SENDS) {
            self.desk.scratch.kernel.secrets.remove(&connection.socket.as_raw_fd());
        }
        // nginx may not have let go of the open file description yet: close(2) alone would leave the client connected.
        let _ = shutdown(&connection.socket, Shutdown::Both);
        drop(connection);
        self.desk.traffic.gone += 1;
        self.load.fetch_sub(1, Ordering::AcqRel);
    }

    /// Hangs up on those who have had their time to answer a close, or to close their end.
    pub(crate) fn overdue(&mut self) {
        while let Some((since, key)) = self.closing.front().copied() {
            if self.now.wrapping_sub(since) < CLOSE_TIMEOUT {
                break;
            }
            self.closing.pop_front();
            let phase = self.slab.get_mut(key).map(|connection| connection.phase);
            if matches!(phase, Some(Phase::Closing(_))) {
                // The kernel may still have the close, and what was before it.
                if self.is_leaving(key) {
                    self.closing.push_back((self.now, key));
                } else {
                    self.lose(key);
                }
            }
        }
        while let Some((since, key)) = self.lingering.front().copied() {
            if self.now.wrapping_sub(since) < LINGER {
                break;
            }
            self.lingering.pop_front();
            if self.is_leaving(key) {
                self.lingering.push_back((self.now, key));
            } else {
                self.lose(key);
            }
        }
        for list in [&mut self.closing, &mut self.lingering] {
            if list.is_empty() && list.capacity() > 1024 {
                list.shrink_to(0);
            }
        }
    }

    /// Closes as many connections as are due: spread over the span, so that they do not come back all at once.
    pub(crate) fn drain_some(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        if self.slab.len() == 0 {
            return;
        }
        let elapsed = drain.begin.elapsed();
        let is_over = elapsed >= drain.span;
        let due = if is_over || drain.span.is_zero() {
            usize::MAX
        } else {
            (drain.clients as f64 * elapsed.as_secs_f64() / drain.span.as_secs_f64()) as usize
        };
        if is_over && drain.walked {
            // Those who came after their place had been passed.
            drain.place = 0;
        }
        let mut walk = (drain.place, drain.closed);
        while walk.1 < due && walk.0 < self.slab.places() {
            if let Some((key, connection)) = self.slab.at(walk.0) {
                if connection.phase == Phase::Open {
                    walk.1 += 1;
                    self.close(key, 1001, "going away", Cause::Drain);
                }
            }
            walk.0 += 1;
        }
        if let Some(drain) = &mut self.drain {
            (drain.place, drain.closed) = walk;
            drain.walked = walk.0 >= self.slab.places();
        }
    }

    /// Until when the thread can sleep if nothing happens.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let tenths = |n: Tenths| Duration::from_millis(u64::from(n) * 100);
        let left = |list: &std::collections::VecDeque<(Tenths, Key)>, timeout: Tenths| {
            let (since, _) = list.front()?;
            Some(tenths(timeout.saturating_sub(self.now.wrapping_sub(*since)).max(1)))
        };
        let pause = |drain: &Draining| Duration::from_millis(if drain.walked { 100 } else { 20 });
        let drain = self.drain.as_ref().filter(|_| self.slab.len() > 0).map(pause);
        let sweep = (self.slab.len() > 0).then(|| self.sweeper.pause()).flatten();
        let lists = [left(&self.closing, CLOSE_TIMEOUT), left(&self.lingering, LINGER)];
        lists.into_iter().chain([drain, sweep]).flatten().min()
    }
}
