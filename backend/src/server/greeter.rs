//! What `hello` logs and says, with either engine.

use std::time::Duration;

/// From one greeting to the next.
pub(crate) const PERIOD: Duration = Duration::from_secs(5);

/// As much of a text as is logged.
const LOGGED_BYTES: usize = 1024;

/// One client's.
#[derive(Debug)]
pub(crate) struct Greeter {
    client: u64,
    sent: u64,
}

impl Greeter {
    pub(crate) fn new(client: u64) -> Greeter {
        Greeter { client, sent: 0 }
    }

    /// Logs a message that came.
    pub(crate) fn received(&self, is_text: bool, payload: &[u8]) {
        let len = payload.len();
        if is_text {
            let shown = payload.get(..LOGGED_BYTES).unwrap_or(payload);
            // Escaped: a client does not write lines of its own into the log.
            let text = String::from_utf8_lossy(shown);
            tracing::info!(client = self.client, len, text = ?text, "text received");
        } else {
            tracing::info!(client = self.client, len, "binary message received");
        }
    }

    /// The next greeting.
    pub(crate) fn greet(&mut self) -> String {
        self.sent += 1;
        format!("Hello number {} from the backend", self.sent)
    }
}
