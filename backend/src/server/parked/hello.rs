//! `hello`: logs each text, and sends one of its own about every five seconds.

use std::time::{Duration, Instant};

use crate::engine::{Context, Message};

const PERIOD: Duration = Duration::from_secs(5);

/// As much of a text as is logged.
const LOGGED_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct Hello {
    client: u64,
    sent: u64,
    next: Instant,
}

impl Hello {
    pub(super) fn new(client: u64) -> Hello {
        Hello { client, sent: 0, next: Instant::now() + PERIOD }
    }

    pub(super) fn received(&self, message: Message<'_>) {
        let len = message.len();
        match message {
            Message::Text(text) => {
                let most = text.len().min(LOGGED_BYTES);
                let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
                // Escaped: a client does not write lines of its own into the log.
                let text = text.get(..end.unwrap_or(0)).unwrap_or(text);
                tracing::info!(client = self.client, len, text = ?text, "text received");
            }
            Message::Binary(_) => {
                tracing::info!(client = self.client, len, "binary message received");
            }
        }
    }

    pub(super) fn due(&mut self, context: &mut Context<'_>) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = (self.next + PERIOD).max(now);
        self.sent += 1;
        context.send_text(&format!("Hello number {} from the backend", self.sent));
    }
}
