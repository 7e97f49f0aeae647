//! The counters as they lie in shared memory, and copies of them.
//!
//! Each is an atomic of its own that is only ever added to, in no order with the others: there is no lock that a worker
//! could die with. All-zero memory is a valid, fresh set of them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use crate::histogram::{Distribution, Histogram};
use crate::kind::{Cause, Outcome, Rejection, TlsRefusal};

/// The statuses of refusals that are counted one by one; those above share the last place.
const STATUSES: core::ops::Range<u16> = 200..600;
const PLACES: usize = (STATUSES.end - STATUSES.start) as usize + 1;

/// The most processes that one nginx has (`NGX_MAX_PROCESSES`).
pub const WORKERS: usize = 1024;

/// What is counted for one upstream.
#[derive(Debug)]
#[repr(C)]
pub struct Counters {
    results: [AtomicU64; Outcome::ALL.len()],
    offers: AtomicU64,
    failures: [AtomicU64; Cause::ALL.len()],
    refusals: [AtomicU64; PLACES],
    early_data: AtomicU64,
    answers: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            results: Default::default(),
            offers: AtomicU64::new(0),
            failures: Default::default(),
            refusals: [const { AtomicU64::new(0) }; PLACES],
            early_data: AtomicU64::new(0),
            answers: Histogram::default(),
        }
    }
}

impl Counters {
    /// A request has ended.
    pub fn ended(&self, outcome: Outcome) {
        bump(&self.results, outcome as usize);
    }

    /// A backend was sent a client's socket.
    pub fn offered(&self) {
        self.offers.fetch_add(1, Relaxed);
    }

    /// An attempt at a backend failed.
    pub fn failed(&self, cause: Cause) {
        bump(&self.failures, cause as usize);
    }

    /// A backend refused with this status.
    pub fn refused(&self, status: u16) {
        bump(&self.refusals, place(status));
    }

    /// A backend was given this many bytes that a client had sent before.
    pub fn early_data(&self, len: usize) {
        self.early_data.fetch_add(u64::try_from(len).unwrap_or(u64::MAX), Relaxed);
    }

    /// A backend took this long to answer.
    pub fn answered(&self, time: Duration) {
        self.answers.record(time);
    }

    /// Copies what they say at this moment to `to`.
    pub fn snapshot(&self, to: &mut Snapshot) {
        copy(&mut to.results, &self.results);
        to.offers = self.offers.load(Relaxed);
        copy(&mut to.failures, &self.failures);
        copy(&mut to.refusals.0, &self.refusals);
        to.early_data = self.early_data.load(Relaxed);
        to.answers = self.answers.snapshot();
    }
}

/// What [`Counters`] said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    results: [u64; Outcome::ALL.len()],
    /// Offers made.
    pub offers: u64,
    failures: [u64; Cause::ALL.len()],
    /// Refusals by status.
    pub refusals: Refusals,
    /// Bytes of early data passed.
    pub early_data: u64,
    /// The times to answer.
    pub answers: Distribution,
}

impl Snapshot {
    /// Requests with this outcome.
    #[must_use]
    pub fn results(&self, outcome: Outcome) -> u64 {
        at(&self.results, outcome as usize)
    }

    /// Attempts that failed of this cause.
    #[must_use]
    pub fn failures(&self, cause: Cause) -> u64 {
        at(&self.failures, cause as usize)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.results, &other.results);
        self.offers = self.offers.wrapping_add(other.offers);
        add(&mut self.failures, &other.failures);
        add(&mut self.refusals.0, &other.refusals.0);
        self.early_data = self.early_data.wrapping_add(other.early_data);
        self.answers.add(&other.answers);
    }
}

/// Refusals by status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals([u64; PLACES]);

impl Default for Refusals {
    fn default() -> Self {
        Self([0; PLACES])
    }
}

impl Refusals {
    /// Each status that has occurred, `None` for all above 599, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let statuses = STATUSES.map(Some).chain([None]);
        statuses.zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// Handshakes that nginx refused itself, of all upstreams together: none was chosen yet.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Rejections([AtomicU64; Rejection::ALL.len()]);

impl Rejections {
    /// Counts one.
    pub fn count(&self, rejection: Rejection) {
        bump(&self.0, rejection as usize);
    }

    /// How many there were of each.
    #[must_use]
    pub fn snapshot(&self) -> [u64; Rejection::ALL.len()] {
        let mut to = [0; Rejection::ALL.len()];
        copy(&mut to, &self.0);
        to
    }
}

/// TLS sessions that were not fit to be handed over, of all upstreams together: none was chosen yet.
#[derive(Debug, Default)]
#[repr(C)]
pub struct TlsRefusals([AtomicU64; TlsRefusal::ALL.len()]);

impl TlsRefusals {
    /// Counts one.
    pub fn count(&self, refusal: TlsRefusal) {
        bump(&self.0, refusal as usize);
    }

    /// How many there were of each.
    #[must_use]
    pub fn snapshot(&self) -> [u64; TlsRefusal::ALL.len()] {
        let mut to = [0; TlsRefusal::ALL.len()];
        copy(&mut to, &self.0);
        to
    }
}

/// Requests that have no outcome yet, by worker: what a worker that was killed has left behind is forgotten when another
/// process takes its place.
#[derive(Debug)]
#[repr(C)]
pub struct Gauge([AtomicU32; WORKERS]);

impl Default for Gauge {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; WORKERS])
    }
}

impl Gauge {
    /// The process in this place starts anew.
    pub fn reset(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.store(0, Relaxed);
        }
    }

    /// A request has begun in this worker.
    pub fn increment(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A request has its outcome.
    pub fn decrement(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.fetch_sub(1, Relaxed);
        }
    }

    /// In all workers together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.wrapping_add(count.load(Relaxed).into()))
    }
}

fn place(status: u16) -> usize {
    if STATUSES.contains(&status) { usize::from(status - STATUSES.start) } else { PLACES - 1 }
}

fn bump(counters: &[AtomicU64], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.fetch_add(1, Relaxed);
    }
}

fn at(counts: &[u64], at: usize) -> u64 {
    counts.get(at).copied().unwrap_or_default()
}

fn copy(to: &mut [u64], from: &[AtomicU64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.load(Relaxed);
    }
}

fn add(to: &mut [u64], from: &[u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.wrapping_add(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_where_it_belongs() {
        let counters = Counters::default();
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            (0..=at).for_each(|_| counters.ended(outcome));
        }
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            (0..=at).for_each(|_| counters.failed(cause));
        }
        for status in [200, 403, 403, 599, 600, 999, 0] {
            counters.refused(status);
        }
        counters.offered();
        counters.early_data(7);
        counters.answered(Duration::from_millis(1));

        let mut copy = Snapshot::default();
        counters.snapshot(&mut copy);
        let mut twice = copy;
        twice.add(&copy);
        for (factor, copy) in [(1, &copy), (2, &twice)] {
            for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
                assert_eq!(copy.results(outcome), factor * (at as u64 + 1));
            }
            for (at, cause) in Cause::ALL.into_iter().enumerate() {
                assert_eq!(copy.failures(cause), factor * (at as u64 + 1));
            }
            let refusals: Vec<_> = copy.refusals.iter().collect();
            let expected = [(Some(200), 1), (Some(403), 2), (Some(599), 1), (None, 3)];
            assert_eq!(refusals, expected.map(|(status, n)| (status, n * factor)));
            assert_eq!((copy.offers, copy.early_data), (factor, 7 * factor));
            assert_eq!(copy.answers.count(), factor);
        }
    }

    #[test]
    fn a_set_fits_a_page() {
        // So that an upstream takes exactly one of nginx's slab.
        assert!(size_of::<Counters>() <= 4096);
    }

    #[test]
    fn a_gauge_forgets_a_worker_that_was_replaced() {
        let gauge = Gauge::default();
        gauge.increment(3);
        gauge.increment(3);
        gauge.increment(1023);
        gauge.increment(1024);
        gauge.decrement(3);
        assert_eq!(gauge.sum(), 2);
        gauge.reset(3);
        assert_eq!(gauge.sum(), 1);
    }

    #[test]
    fn rejections_are_kept_apart() {
        let rejections = Rejections::default();
        rejections.count(Rejection::Origin);
        rejections.count(Rejection::Origin);
        rejections.count(Rejection::Malformed);
        assert_eq!(rejections.snapshot(), [1, 0, 0, 2, 0]);
    }
}
