//! `hello`: logs each text, and sends one of its own every five seconds.

use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{Application, Outgoing};
use crate::server::greeter::{Greeter, PERIOD};
use crate::server::messages::Message;

pub(super) struct Hello {
    greeter: Greeter,
    interval: Interval,
}

impl Hello {
    pub(super) fn new(client: u64) -> Hello {
        let mut interval = interval_at(Instant::now() + PERIOD, PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Hello { greeter: Greeter::new(client), interval }
    }
}

impl Application for Hello {
    fn received(&mut self, message: Message) -> Option<Message> {
        self.greeter.received(message.is_text, &message.payload);
        None
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        ready!(self.interval.poll_tick(cx));
        let payload = self.greeter.greet().into();
        Poll::Ready(Outgoing::Message(Message { is_text: true, payload }))
    }
}
