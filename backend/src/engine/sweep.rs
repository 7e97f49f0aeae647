//! Keepalive by walking over all connections, a few at a time, in place of a timer for each.

use std::time::Duration;

use super::connection::{Phase, Tenths};
use super::context::Context;
use super::ending::CLOSE_TIMEOUT;
use super::handler::{Cause, Handler};
use super::options::EngineOptions;
use super::slab::Key;
use super::thread::Thread;

/// Steps in which all connections are visited once.
const STEPS: u32 = 20;

#[derive(Debug)]
pub(crate) struct Sweeper {
    /// From one step to the next; `None`: there is nothing to look for.
    step: Option<Duration>,
    place: u32,
}

impl Sweeper {
    /// All connections are visited once within the quarter of the shortest interval: that is how late things are.
    pub(crate) fn new(options: &EngineOptions) -> Sweeper {
        let second = options.sweeps.then_some(Duration::from_secs(4));
        let intervals =
            [options.ping_interval, options.idle_timeout, second, Some(options.send_timeout)];
        let round = intervals.into_iter().flatten().min().map(|shortest| shortest / 4);
        let step = round.map(|round| {
            (round / STEPS).clamp(Duration::from_millis(10), Duration::from_millis(500))
        });
        Sweeper { step, place: 0 }
    }

    pub(crate) fn pause(&self) -> Option<Duration> {
        self.step
    }
}

impl<H: Handler> Thread<H> {
    /// Visits the next connections.
    pub(crate) fn sweep(&mut self) {
        let places = self.slab.places();
        if self.slab.len() == 0 {
            return;
        }
        let send_timeout = self.options.send_timeout;
        // Nobody waits for long for a conversation that is over.
        let closing = Duration::from_millis(u64::from(CLOSE_TIMEOUT) * 100);
        let from = if self.sweeper.place >= places { 0 } else { self.sweeper.place };
        let to = from.saturating_add(places.div_ceil(STEPS)).min(places);
        for place in from..to {
            if let Some((key, connection)) = self.slab.at(place) {
                let is_open = connection.phase == Phase::Open;
                let limit = if is_open { send_timeout } else { send_timeout.min(closing) };
                let is_waiting = connection.queued() > 0;
                let stuck = connection.busy.as_ref().filter(|_| is_waiting);
                if stuck.is_some_and(|busy| older(self.now, busy.taken, Some(limit))) {
                    self.lose(key);
                } else if is_open {
                    self.visit(key);
                }
            }
        }
        self.sweeper.place = to;
    }

    fn visit(&mut self, key: Key) {
        let now = self.now;
        self.catch_up(key);
        let Some(connection) = self.slab.get_mut(key) else { return };
        // It may have been closed for what waits for it.
        if connection.phase != Phase::Open {
            return self.flush(key);
        }
        if older(now, connection.seen, self.options.idle_timeout) {
            self.flush(key);
            return self.close(key, 1001, "idle", Cause::Idle);
        }
        let last = connection.seen.max(connection.pinged);
        if older(now, last, self.options.ping_interval) {
            connection.pinged = now;
            // What waits is as good: the client is to take it.
            if connection.queued() == 0 {
                handoff_websocket::encode_control(
                    &mut self.desk.out,
                    handoff_websocket::OpCode::Ping,
                    &[],
                );
            }
        }
        if self.options.sweeps {
            let queued = connection.queued();
            let memberships = &mut connection.memberships;
            let agreement = connection.agreement;
            let desk = &mut self.desk;
            let mut context = Context { key, agreement, memberships, queued, close: None, desk };
            if let Some(state) = &mut connection.state {
                self.handler.on_sweep(state, &mut context);
            }
            if let Some((code, reason)) = context.close {
                self.flush(key);
                self.close(key, code, reason, Cause::Application);
            }
        }
        self.end_turn(key);
    }
}

/// Whether `then` is at least that long ago.
pub(crate) fn older(now: Tenths, then: Tenths, age: Option<Duration>) -> bool {
    age.is_some_and(|age| u128::from(now.wrapping_sub(then)) * 100 >= age.as_millis())
}
