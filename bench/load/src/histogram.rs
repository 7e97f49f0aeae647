//! Latencies by their order of magnitude: 1.6 % exact, however many there are.

use serde::Serialize;

/// Values of the same highest bit are told apart by the next six.
const BITS: u32 = 6;
const SUB: usize = 1 << BITS;

/// Of durations in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    max: u64,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
pub(crate) struct Percentiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p99_9: f64,
    max: f64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: vec![0; SUB * (64 - BITS as usize + 1)], total: 0, sum: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.counts[index(nanoseconds)] += 1;
        self.total += 1;
        self.sum += u128::from(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.total += other.total;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// None of nothing.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let mean = self.sum.checked_div(u128::from(self.total))? as f64 / 1e3;
        Some(Percentiles {
            mean,
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p99_9: self.quantile(0.999),
            max: self.max as f64 / 1e3,
        })
    }

    /// In microseconds.
    fn quantile(&self, part: f64) -> f64 {
        let rank = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(index).min(self.max) as f64 / 1e3;
            }
        }
        self.max as f64 / 1e3
    }
}

fn index(value: u64) -> usize {
    let magnitude = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    magnitude as usize * SUB + (value >> magnitude) as usize
}

/// The highest value that is counted there.
fn highest(index: usize) -> u64 {
    if index < 2 * SUB {
        return index as u64;
    }
    let magnitude = index / SUB - 1;
    let lowest = ((index - magnitude * SUB) as u64) << magnitude;
    lowest + ((1 << magnitude) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_that_is_near_it() {
        for shift in 0..64 {
            for value in
                [1u64 << shift, (1u64 << shift) | (1u64 << shift) >> 3, (1u64 << shift) - 1]
            {
                let most = highest(index(value));
                assert!(most >= value && most - value <= value / 64, "{value}: {most}");
            }
        }
        assert!(index(u64::MAX) < Histogram::new().counts.len());
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentiles(), None);
        for microseconds in 1..=1000 {
            histogram.record(microseconds * 1000);
        }
        let p = histogram.percentiles().expect("of a thousand");
        for (got, exact) in [(p.p50, 500.0), (p.p90, 900.0), (p.p99, 990.0), (p.p99_9, 999.0)] {
            assert!((got - exact).abs() <= exact / 60.0, "{got} for {exact}");
        }
        assert_eq!((p.max, p.mean), (1000.0, 500.5));
    }
}
