//! The stretch of time that is measured.
//!
//! Connections' threads count and send for as long as they are told to; one more thread, which sleeps, looks at clock,
//! counts and CPU times at both ends of the stretch, so that all three speak of the same messages.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cpu;

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Control {
    /// Messages that arrived, as they should.
    pub(crate) arrived: AtomicU64,
    /// Whether to send more.
    pub(crate) sending: AtomicBool,
    /// Whether latencies count.
    pub(crate) measuring: AtomicBool,
    /// Threads that have come to their end.
    pub(crate) ended: AtomicU64,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) per_second: f64,
    /// By process.
    pub(crate) cpu_seconds: BTreeMap<u32, f64>,
    pub(crate) own_cpu_seconds: f64,
}

struct Moment {
    at: Instant,
    arrived: u64,
    cpu: BTreeMap<u32, u64>,
    own: u64,
}

impl Control {
    pub(crate) fn new() -> Control {
        Control {
            arrived: AtomicU64::new(0),
            sending: AtomicBool::new(true),
            measuring: AtomicBool::new(false),
            ended: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending.load(Ordering::Relaxed)
    }

    pub(crate) fn is_measuring(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    /// Waits for `warm_up` and then for `span`, or, without one, for the end of `threads`. Nothing more is sent after it.
    pub(crate) fn measure(
        &self,
        warm_up: Duration,
        span: Option<Duration>,
        threads: u64,
        pids: &[u32],
    ) -> io::Result<Window> {
        self.sleep(Some(warm_up), threads);
        let begin = self.moment(pids);
        self.measuring.store(true, Ordering::Relaxed);
        self.sleep(span, threads);
        let end = self.moment(pids);
        self.measuring.store(false, Ordering::Relaxed);
        self.sending.store(false, Ordering::Relaxed);
        let (begin, end) = (begin?, end?);
        let seconds = (end.at - begin.at).as_secs_f64();
        let messages = end.arrived - begin.arrived;
        // A thread that has ended is no longer counted.
        let spent = |pid: &u32, now: u64| {
            now.saturating_sub(begin.cpu.get(pid).copied().unwrap_or(0)) as f64 / 1e9
        };
        Ok(Window {
            seconds,
            messages,
            per_second: messages as f64 / seconds,
            cpu_seconds: end.cpu.iter().map(|(pid, now)| (*pid, spent(pid, *now))).collect(),
            own_cpu_seconds: (end.own - begin.own) as f64 / 1e9,
        })
    }

    /// Ends early when all threads have: their connections have failed.
    fn sleep(&self, span: Option<Duration>, threads: u64) {
        let begin = Instant::now();
        while self.ended.load(Ordering::Acquire) < threads {
            let left = span.map(|span| span.saturating_sub(begin.elapsed()));
            match left {
                Some(Duration::ZERO) => return,
                _ => thread::sleep(left.unwrap_or(Duration::MAX).min(Duration::from_millis(20))),
            }
        }
    }

    fn moment(&self, pids: &[u32]) -> io::Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            arrived: self.arrived.load(Ordering::Relaxed),
            cpu: cpu::of(pids)?,
            own: cpu::own()?,
        })
    }
}
