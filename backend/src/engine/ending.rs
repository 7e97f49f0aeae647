//! Every way out: the end of a conversation, the end of its socket, and what is overdue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use super::connection::{Phase, Tenths};
use super::handler::{Cause, Ended, Handler};
use super::output::shut;
use super::slab::Key;
use super::thread::{Draining, Thread};

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
        if let Some(busy) = connection.busy.as_deref_mut() {
            busy.decoder = None;
            busy.rest = Vec::new();
        }
        connection.phase = Phase::Lingering { shut: false };
        if connection.queued() == 0 {
            shut(connection);
            self.lingering.push_back((self.now, key));
        }
        connection.settle();
    }

    /// The client sends nothing more. It may be waiting for all that it has asked for: a pipelined request, a close and the
    /// end of its direction is a whole conversation.
    pub(crate) fn read_end(&mut self, key: Key) {
        self.end_conversation(key, Ended::Lost);
        let Some(connection) = self.slab.get_mut(key) else { return };
        match connection.busy.as_deref_mut().filter(|busy| busy.queued > 0) {
            // The end is read again once all is out.
            Some(busy) => busy.unread = true,
            None => self.lose(key),
        }
    }

    /// The connection is broken, nothing is left to be sent or read, or its time is up: hangs up.
    pub(crate) fn lose(&mut self, key: Key) {
        self.end_conversation(key, Ended::Lost);
        let Some(mut connection) = self.slab.remove(key) else { return };
        self.desk.roster.leave_all(&mut connection.memberships);
        self.poller.remove(&connection.socket);
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
                self.lose(key);
            }
        }
        while let Some((since, key)) = self.lingering.front().copied() {
            if self.now.wrapping_sub(since) < LINGER {
                break;
            }
            self.lingering.pop_front();
            self.lose(key);
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
