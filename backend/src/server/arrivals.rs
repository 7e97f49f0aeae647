//! When bytes last came from a client, and how many: known to whoever reads, and to whoever watches over the reading.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// One task reads and watches: the atomics are there so that it may move between threads.
#[derive(Debug)]
pub(crate) struct Arrivals {
    begin: Instant,
    bytes: AtomicU64,
    last_ms: AtomicU64,
}

impl Arrivals {
    pub(crate) fn new() -> Arrivals {
        Arrivals { begin: Instant::now(), bytes: AtomicU64::new(0), last_ms: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, len: u64) {
        // No other thread can come between.
        self.bytes.store(self.bytes().wrapping_add(len), Relaxed);
        self.sign_of_life();
    }

    /// The client is there, though no bytes came: it took some.
    pub(crate) fn sign_of_life(&self) {
        let elapsed = self.begin.elapsed().as_millis();
        self.last_ms.store(elapsed.try_into().unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// When the client last gave a sign of life; at first, the beginning.
    pub(crate) fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last_ms.load(Relaxed))
    }
}
