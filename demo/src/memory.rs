//! How much memory nginx occupies.

use std::fs;
use std::path::PathBuf;

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// nginx's master and its children.
#[derive(Debug)]
pub(crate) struct Nginx {
    pid_file: PathBuf,
    page_size: u64,
}

/// What they occupy together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Anonymous memory (heap and stacks), not the program's file or what the processes share.
    pub(crate) memory_bytes: u64,
    pub(crate) processes: usize,
}

impl Nginx {
    pub(crate) fn new(pid_file: PathBuf) -> Nginx {
        let page_size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let page_size = page_size.and_then(|size| size.try_into().ok()).unwrap_or(4096);
        Nginx { pid_file, page_size }
    }

    /// None if nginx does not run. The files are readable by every user; those of processes that end meanwhile are
    /// left out.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let master = parse_pid(&fs::read_to_string(&self.pid_file).ok()?)?;
        let mut memory = Memory { memory_bytes: self.anonymous_bytes(master)?, processes: 1 };
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(parse_pid) else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            if parse_parent(&stat) == Some(master) {
                if let Some(bytes) = self.anonymous_bytes(pid) {
                    memory.memory_bytes += bytes;
                    memory.processes += 1;
                }
            }
        }
        Some(memory)
    }

    fn anonymous_bytes(&self, pid: u32) -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        Some(parse_anonymous_pages(&statm)? * self.page_size)
    }
}

fn parse_pid(text: &str) -> Option<u32> {
    text.trim_ascii().parse().ok().filter(|pid| *pid > 0)
}

/// From proc_pid_stat(5): `pid (name) state ppid …`. The name may hold spaces and parentheses.
fn parse_parent(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// From proc_pid_statm(5): `size resident shared …`, in pages. What is resident and not shared is anonymous.
fn parse_anonymous_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1);
    let resident: u64 = fields.next()?.parse().ok()?;
    let shared: u64 = fields.next()?.parse().ok()?;
    // The kernel does not read both at the same instant.
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use nix::unistd::getppid;

    use super::*;

    #[test]
    fn a_pid_file_holds_a_number_and_a_newline() {
        assert_eq!(parse_pid("4711\n"), Some(4711));
        for bad in ["", "\n", "0", "-1", "self", "12 13"] {
            assert_eq!(parse_pid(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_name_cannot_pose_as_a_parent() {
        assert_eq!(parse_parent("12 (nginx) S 11 12 12 0 -1 4194560"), Some(11));
        assert_eq!(parse_parent("12 (a) S 1 (b) R 11 12"), Some(11));
        for bad in ["", "12 nginx S 11", "12 (nginx)", "12 (nginx) S"] {
            assert_eq!(parse_parent(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn anonymous_is_resident_less_shared() {
        assert_eq!(parse_anonymous_pages("2600 900 700 250 0 300 0\n"), Some(200));
        assert_eq!(parse_anonymous_pages("2600 700 900 250 0 300 0\n"), Some(0));
        for bad in ["", "2600", "2600 900", "2600 x 700"] {
            assert_eq!(parse_anonymous_pages(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_process_and_its_child_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let pid_file = directory.path().join("nginx.pid");
        let nginx = Nginx::new(pid_file.clone());
        assert_eq!(nginx.memory(), None, "no pid file");

        // In the place of nginx, whoever started these tests; one of its children is this process.
        fs::write(&pid_file, format!("{}\n", getppid())).expect("writes");
        let memory = nginx.memory();
        let memory = memory.expect("it runs");
        assert!(memory.processes >= 2 && memory.memory_bytes > 4096, "{memory:?}");
    }
}
