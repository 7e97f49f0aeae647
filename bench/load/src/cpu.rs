//! CPU time of processes: user and system, in nanoseconds.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Of each process, all threads that it has: what the scheduler counted.
pub(crate) fn of(pids: &[u32]) -> io::Result<BTreeMap<u32, u64>> {
    pids.iter().map(|pid| Ok((*pid, of_one(*pid)?))).collect()
}

fn of_one(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum +=
            first.ok_or_else(|| io::Error::other(format!("no CPU time in schedstat: {text:?}")))?;
    }
    Ok(sum)
}

/// Of this process, with threads that have ended.
pub(crate) fn own() -> io::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let sum = usage.user_time() + usage.system_time();
    Ok(u64::try_from(sum.num_microseconds()).unwrap_or(0) * 1000)
}
