//! `hello`: logs each text, and sends one of its own every five seconds.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{Application, Outgoing};
use crate::server::messages::Message;

const PERIOD: Duration = Duration::from_secs(5);

/// As much of a text as is logged.
const LOGGED_BYTES: usize = 1024;

pub(super) struct Hello {
    client: u64,
    sent: u64,
    interval: Interval,
}

impl Hello {
    pub(super) fn new(client: u64) -> Hello {
        let mut interval = interval_at(Instant::now() + PERIOD, PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Hello { client, sent: 0, interval }
    }
}

impl Application for Hello {
    fn received(&mut self, message: Message) -> Option<Message> {
        let len = message.payload.len();
        if message.is_text {
            let shown = message.payload.get(..LOGGED_BYTES).unwrap_or(&message.payload);
            // Escaped: a client does not write lines of its own into the log.
            let text = String::from_utf8_lossy(shown);
            tracing::info!(client = self.client, len, text = ?text, "text received");
        } else {
            tracing::info!(client = self.client, len, "binary message received");
        }
        None
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        ready!(self.interval.poll_tick(cx));
        self.sent += 1;
        let payload = format!("Hello number {} from the backend", self.sent).into();
        Poll::Ready(Outgoing::Message(Message { is_text: true, payload }))
    }
}
