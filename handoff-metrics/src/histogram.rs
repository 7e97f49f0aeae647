//! The times that backends take to answer, in buckets.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// The upper bounds of the buckets, inclusive: in nanoseconds, and in seconds as text. A last bucket has none.
pub const BOUNDS: [(u64, &str); 14] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// A histogram that many processes add to. Zeros are an empty one.
///
/// There is no count of its own: the buckets' sum is one, which a reader never sees at odds with them.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    pub fn record(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.iter().position(|(bound, _)| nanoseconds <= *bound);
        if let Some(bucket) = self.buckets.get(at.unwrap_or(BOUNDS.len())) {
            bucket.fetch_add(1, Relaxed);
            self.nanoseconds.fetch_add(nanoseconds, Relaxed);
        }
    }

    /// What it holds at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Distribution {
        let mut copy = Distribution::default();
        for (to, from) in copy.buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Relaxed);
        }
        copy.nanoseconds = self.nanoseconds.load(Relaxed);
        copy
    }
}

/// A histogram at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    nanoseconds: u64,
}

impl Distribution {
    /// How many times were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// Their mean, if there are any.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        self.nanoseconds.checked_div(self.count()).map(Duration::from_nanos)
    }

    /// Each bound with how many times were no longer than it; `+Inf` last.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        bounds.zip(self.buckets).scan(0u64, |sum, (bound, n)| {
            *sum = sum.wrapping_add(n);
            Some((bound, *sum))
        })
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to = to.wrapping_add(*from);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_what_their_text_says() {
        for (nanoseconds, text) in BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!((seconds * 1e9).round(), nanoseconds as f64, "{text}");
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 9_999_999, 10_000_000, 10_000_001, 60_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let copy = histogram.snapshot();
        let at = |bound| copy.cumulative().find(|(text, _)| *text == bound).unwrap().1;
        assert_eq!((at("0.0005"), at("0.001"), at("5"), at("10"), at("+Inf")), (2, 3, 3, 5, 7));
        assert_eq!(copy.count(), 7);
        assert_eq!(copy.sum(), Duration::from_micros(90_001_001));
    }

    #[test]
    fn the_longest_time_there_is_does_no_harm() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.snapshot().count(), 2);
    }

    #[test]
    fn nothing_has_no_mean() {
        assert_eq!(Distribution::default().mean(), None);
    }
}
