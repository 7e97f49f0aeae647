//! Messages at a steady rate, whatever the server does: when each is due, and a timer that tells of it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

pub(crate) struct Pace {
    // epoll_wait's timeout counts in milliseconds.
    timer: TimerFd,
    step: Duration,
    due: Instant,
}

impl Pace {
    /// The first is due at once.
    pub(crate) fn new(step: Duration) -> nix::Result<Pace> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let step = step.max(Duration::from_nanos(1));
        let every = Expiration::Interval(TimeSpec::from_duration(step));
        timer.set(every, TimerSetTimeFlags::empty())?;
        Ok(Pace { timer, step, due: Instant::now() })
    }

    /// When the next message was due, if that is not in the future.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due;
        (due <= now).then(|| {
            self.due += self.step;
            due
        })
    }

    /// Has the timer tell again.
    pub(crate) fn acknowledge(&self) {
        // Nonblocking: it may not have expired again.
        let _ = self.timer.wait();
    }
}

impl AsFd for Pace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
