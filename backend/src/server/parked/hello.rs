//! `hello`: logs each text, and sends one of its own about every five seconds.

use std::time::Instant;

use crate::engine::{Context, Message};
use crate::server::greeter::{Greeter, PERIOD};

#[derive(Debug)]
pub(super) struct Hello {
    greeter: Greeter,
    next: Instant,
}

impl Hello {
    pub(super) fn new(client: u64) -> Hello {
        Hello { greeter: Greeter::new(client), next: Instant::now() + PERIOD }
    }

    pub(super) fn received(&self, message: Message<'_>) {
        self.greeter.received(matches!(message, Message::Text(_)), message.payload());
    }

    pub(super) fn due(&mut self, context: &mut Context<'_>) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = (self.next + PERIOD).max(now);
        context.send_text(&self.greeter.greet());
    }
}
