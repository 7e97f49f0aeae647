//! CPU time of processes: what the scheduler counted, user and system, in nanoseconds.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Of each process, all of its threads.
pub(crate) fn of(pids: &[u32]) -> io::Result<BTreeMap<u32, u64>> {
    pids.iter().map(|pid| Ok((*pid, of_one(&pid.to_string())?))).collect()
}

/// Of this process.
pub(crate) fn own() -> io::Result<u64> {
    of_one("self")
}

fn of_one(pid: &str) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum +=
            first.ok_or_else(|| io::Error::other(format!("no CPU time in schedstat: {text:?}")))?;
    }
    Ok(sum)
}
