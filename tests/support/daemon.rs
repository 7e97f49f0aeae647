//! An nginx that is no child of the tests: `daemon on`, or started by another nginx. Known by its pid alone.

use std::net::TcpStream;
use std::path::Path;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::nginx::Builder;
use super::{PATIENCE, log, nginx, proc, process, wait_for, wait_for_within, wait_until};

/// An nginx master; stopped gracefully when dropped.
pub struct Daemon {
    pid: i32,
}

impl Daemon {
    /// Starts nginx with `builder`'s configuration, which says `daemon on`.
    pub fn start(builder: &Builder) -> Daemon {
        builder.write_config();
        let mut starting = process::spawn(&mut builder.command()).expect("start nginx");
        let status = starting.wait().expect("wait for nginx");
        assert!(status.success(), "{status}");
        let daemon = Daemon::of(&builder.dir().join("nginx.pid"));
        wait_until("it listens", || TcpStream::connect(builder.address()).is_ok());
        daemon.wait_workers(1);
        daemon
    }

    /// The process whose pid is written in `file`, which it may be about to write.
    pub fn of(file: &Path) -> Daemon {
        let pid = wait_for(&format!("{} names a process", file.display()), || {
            let text = std::fs::read_to_string(file).ok()?;
            text.strip_suffix('\n')?.parse().ok().filter(|pid| proc::alive(*pid))
        });
        Daemon { pid }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn workers(&self) -> Vec<i32> {
        nginx::workers_of(self.pid)
    }

    /// Waits until it has at least `count` workers.
    pub fn wait_workers(&self, count: usize) {
        wait_until("workers run", || self.workers().len() >= count);
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid), signal).expect("signal the daemon");
    }

    /// Asks for a graceful stop and insists on it.
    pub fn quit(&self) {
        self.signal(Signal::SIGQUIT);
        wait_gone(&[self.pid]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !proc::alive(self.pid) {
            return;
        }
        if std::thread::panicking() {
            // Upon SIGTERM a master stops its workers.
            let _ = signal::kill(Pid::from_raw(self.pid), Signal::SIGTERM);
            return;
        }
        self.quit();
    }
}

/// Waits until these processes have exited.
pub fn wait_gone(pids: &[i32]) {
    wait_for_within(&format!("{pids:?} exit"), *PATIENCE, || {
        pids.iter().all(|pid| !proc::alive(*pid)).then_some(())
    });
}

/// Insists that nobody complained in the error log of what ran with this configuration.
pub fn check_log(builder: &Builder) {
    let text = std::fs::read_to_string(builder.dir().join("error.log")).expect("a log");
    assert_eq!(log::complaints(&text, false, &[]), Vec::<String>::new());
}
