//! What /proc tells of a process: its children, descriptors and memory.

use std::fs;

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

/// Resident memory of `pid` in bytes.
pub fn resident(pid: i32) -> u64 {
    let rollup =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("Rss in smaps_rollup");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("Rss value");
    kib * 1024
}

/// State letter and parent of `pid`. The command in parentheses may hold anything: the fields
/// begin after the last one.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
