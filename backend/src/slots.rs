//! Room for offers in hand, and who gives way when there is none: a peer that has sent no complete head for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A listener's room for offers in hand.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) permits: Arc<Semaphore>,
    /// In the order in which they began; some have ended.
    readers: VecDeque<(Instant, AbortHandle)>,
    size: usize,
    /// A reader has been told to end, and its room is not free yet.
    displacing: bool,
}

/// How long a peer may take over its head while others wait. nginx has sent it before the connection is accepted.
const GRACE: Duration = Duration::from_millis(250);

impl Slots {
    pub(crate) fn new(size: usize) -> Slots {
        let permits = Arc::new(Semaphore::new(size));
        Slots { permits, readers: VecDeque::new(), size, displacing: false }
    }

    pub(crate) fn reader_began(&mut self, reader: AbortHandle) {
        if self.readers.len() >= self.size.saturating_mul(2) {
            self.readers.retain(|(_, reader)| !reader.is_finished());
        }
        self.readers.push_back((Instant::now(), reader));
    }

    pub(crate) fn reader_ended(&mut self) {
        self.displacing = false;
    }

    /// When the oldest reader has had its time; `None` if nobody can give way.
    pub(crate) fn displace_at(&mut self) -> Option<Instant> {
        if self.displacing {
            return None;
        }
        while self.readers.front().is_some_and(|(_, reader)| reader.is_finished()) {
            self.readers.pop_front();
        }
        self.readers.front().map(|(began, _)| *began + GRACE)
    }

    /// Ends the oldest reader: the room is free once its task is gone.
    pub(crate) fn displace(&mut self) {
        if let Some((_, reader)) = self.readers.pop_front() {
            reader.abort();
            self.displacing = true;
        }
    }
}
