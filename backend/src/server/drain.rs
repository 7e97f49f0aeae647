//! Ending: when it began, and which client is to be closed when.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Where every part of the program learns that it is to end.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    started: CancellationToken,
    plan: OnceLock<Plan>,
}

#[derive(Debug)]
struct Plan {
    begin: Instant,
    span: Duration,
}

impl Drain {
    /// Begins; `clients` are to be closed within the first four fifths of `limit`, but not more slowly than 100 a second:
    /// they come back at once, to the next peer, and that is whom spreading them out is good for.
    ///
    /// Returns the time over which they are spread.
    pub(crate) fn begin(&self, clients: usize, limit: Duration) -> Duration {
        let unhurried =
            Duration::from_millis(10).saturating_mul(clients.try_into().unwrap_or(u32::MAX));
        let span = unhurried.min(limit.mul_f64(0.8));
        // A second call finds the plan made.
        let _ = self.plan.set(Plan { begin: Instant::now(), span });
        self.started.cancel();
        span
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.started.is_cancelled()
    }

    pub(crate) async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Ends when the `number`th client is to be closed.
    pub(crate) async fn turn(&self, number: u64) {
        self.started().await;
        if let Some(plan) = self.plan.get() {
            sleep_until(plan.begin + plan.span.mul_f64(fraction(number))).await;
        }
    }
}

/// Spreads consecutive numbers evenly over 0..1, whatever subset of them is left (Fibonacci hashing).
fn fraction(number: u64) -> f64 {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The upper 32 bits convert exactly.
    f64::from((hash >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_evenly() {
        let mut tenths = [0; 10];
        for number in 0..1000 {
            tenths[(fraction(number) * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (80..=120).contains(count)), "{tenths:?}");
    }

    #[tokio::test]
    async fn a_few_clients_do_not_wait_for_the_timeout() {
        let drain = Drain::default();
        let begin = Instant::now();
        drain.begin(2, Duration::from_secs(1000));
        drain.turn(1).await;
        drain.turn(2).await;
        assert!(drain.is_draining());
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
