//! What /proc tells of a process: its children, descriptors and memory; and the limit of its descriptors.

use std::fs;
use std::io;
use std::time::Duration;

/// Pids of the live children of `parent`.
pub fn children(parent: i32) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_dir("/proc")
        .expect("list /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(state, ppid)| state != 'Z' && ppid == parent))
        .collect();
    found.sort_unstable();
    found
}

/// Whether `pid` runs (a zombie does not).
pub fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Whether `pid` is stopped by a signal.
pub fn stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// The command line, arguments joined by spaces.
pub fn command_line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}

/// What each open descriptor of `pid` refers to, sorted by number.
pub fn descriptors(pid: i32) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list descriptors")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// How many descriptors `pid` has registered with its epoll instances.
pub fn registrations(pid: i32) -> usize {
    descriptors(pid)
        .iter()
        .filter(|(_, target)| target == "anon_inode:[eventpoll]")
        .map(|(number, _)| {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            info.unwrap_or_default().lines().filter(|line| line.starts_with("tfd:")).count()
        })
        .sum()
}

/// Whether nginx runs under what looks for errors of memory, and so keeps what it has freed, and frames of functions that have
/// returned: `WS_HANDOFF_TEST_WEIGHT` is `any` then.
pub fn keeps_what_it_frees() -> bool {
    std::env::var_os("WS_HANDOFF_TEST_WEIGHT").is_some_and(|value| value == "any")
}

/// How much memory a process had at some moment.
pub struct Weight {
    pid: i32,
    resident: u64,
}

impl Weight {
    pub fn of(pid: i32) -> Weight {
        Weight { pid, resident: resident(pid) }
    }

    /// Insists that it has grown by less than so many bytes, unless it [keeps what it frees](keeps_what_it_frees).
    pub fn has_grown_by_less_than(&self, limit: u64, what: &str) {
        if keeps_what_it_frees() {
            return;
        }
        let grown = resident(self.pid).saturating_sub(self.resident);
        assert!(grown < limit, "{what}: grown by {grown} bytes");
    }
}

/// Resident memory of `pid` in bytes.
fn resident(pid: i32) -> u64 {
    let rollup =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("Rss in smaps_rollup");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("Rss value");
    kib * 1024
}

/// CPU time that `pid` has used, in user and kernel mode.
pub fn cpu_time(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read stat");
    let (_, fields) = text.rsplit_once(')').expect("a command in parentheses");
    // The 14th and 15th field of proc_pid_stat(5); the command is the second.
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>());
    let ticks: u64 = ticks.map(|ticks| ticks.expect("a number")).sum();
    // SAFETY: sysconf(3) only returns a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).expect("clock ticks per second");
    Duration::from_millis(ticks * 1000 / per_second)
}

/// Sets the soft limit of the descriptors of `pid`, which are those below it; the limit before.
pub fn limit_descriptors(pid: i32, limit: u64) -> u64 {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null pointer for "change nothing", and room for the old limits.
    let got = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &mut old) };
    assert_eq!(got, 0, "prlimit: {}", io::Error::last_os_error());
    let new = libc::rlimit { rlim_cur: limit, rlim_max: old.rlim_max };
    // SAFETY: limits, and a null pointer for "no matter what they were".
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &new, std::ptr::null_mut()) };
    assert_eq!(set, 0, "prlimit: {}", io::Error::last_os_error());
    old.rlim_cur
}

/// Leaves `pid` room for `count` more descriptors; the limit before.
pub fn leave_descriptors(pid: i32, count: usize) -> u64 {
    let used: Vec<u32> = descriptors(pid).into_iter().map(|(number, _)| number).collect();
    let free = (0..).filter(|number| !used.contains(number));
    // The first number that may not be taken any more.
    let limit = free.clone().nth(count).expect("numbers do not end");
    limit_descriptors(pid, limit.into())
}

/// State letter and parent of `pid`. The command in parentheses may hold anything: the fields
/// begin after the last one.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
