//! A child process that dies with the test, and with the test program should that be killed.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::wait_for_within;

/// Held by whoever forks, until the child has called exec: before that the child has a copy of every
/// descriptor of this program, those of tests on other threads, too.
static FORKING: RwLock<()> = RwLock::new(());

/// Closes what `held` has open. Dropped instead, a descriptor may stay open for some milliseconds in a child
/// that another test forks; where it matters which of two events nginx sees first, that is too long.
pub fn close<T>(held: T) {
    let _nobody_forks = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    drop(held);
}

/// [`Command::spawn`].
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// [`Command::output`].
pub fn output(command: &mut Command) -> io::Result<Output> {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?.wait_with_output()
}

/// Runs a program to its end and insists on success; its standard output.
pub fn run(name: &'static str, mut command: Command) -> String {
    let dir = super::fake::socket_dir();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let create = |path| fs::File::create(path).expect("create a file for output");
    command.stdin(Stdio::null()).stdout(create(&out)).stderr(create(&err));
    let mut process = Process::spawn(name, &mut command, Signal::SIGKILL);
    let status = process.wait(Duration::from_secs(120));
    let read = |path| fs::read_to_string(path).expect("read the output");
    let output = read(&out);
    assert!(status.success(), "{command:?}: {status}\n{output}\n{}", read(&err));
    output
}

/// A running child; SIGKILLed when dropped, if it was not stopped in a better way.
pub struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    /// Starts `command`. `orphan_signal` is what it gets should this program die first: for a
    /// process with children of its own, one upon which it stops them.
    pub fn spawn(name: &'static str, command: &mut Command, orphan_signal: Signal) -> Process {
        // SAFETY: prctl(2) is async-signal-safe and nothing is allocated between fork and exec.
        unsafe {
            command.pre_exec(move || prctl::set_pdeathsig(orphan_signal).map_err(io::Error::from));
        }
        let child = spawn(command).unwrap_or_else(|error| panic!("start {name}: {error}"));
        Process { child, name }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid()), signal)
            .unwrap_or_else(|error| panic!("send {signal} to {}: {error}", self.name));
    }

    /// The exit status if it has exited.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Waits for the exit; panics when it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} (pid {}) exits", self.name, self.pid());
        wait_for_within(&what, limit, || self.exited())
    }

    /// Asks with `signal`, waits up to `limit`; whether it exited.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> bool {
        if self.exited().is_some() {
            return true;
        }
        self.signal(signal);
        let deadline = Instant::now() + limit;
        while self.exited().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
