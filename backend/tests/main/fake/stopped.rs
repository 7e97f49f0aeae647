//! Threads of another process that stand still while the rest of it goes on: ptrace(2) stops one at a time, which signals
//! cannot do.

use std::fs;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::PATIENCE;

/// Stopped until [`StoppedThreads::resume`], or until dropped.
pub struct StoppedThreads {
    resume: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl StoppedThreads {
    /// Stops all threads of that name of a child of this process.
    pub fn named(pid: u32, name: &str) -> StoppedThreads {
        let threads = threads(pid, name);
        assert!(!threads.is_empty(), "no thread named {name}");
        let (resume, resumed) = channel();
        let (stopped, is_stopped) = channel();
        // Who traces a thread is a thread, not a process: all that is to happen to it comes from this one.
        let tracer = std::thread::spawn(move || {
            for &thread in &threads {
                seize_and_stop(thread);
            }
            stopped.send(()).expect("somebody waits");
            let _ = resumed.recv();
            // When a tracer ends, the kernel lets go of whom it traces; they go on.
        });
        is_stopped.recv_timeout(PATIENCE).expect("all are stopped");
        StoppedThreads { resume: Some(resume), tracer: Some(tracer) }
    }

    /// Lets them go on.
    pub fn resume(self) {}
}

impl Drop for StoppedThreads {
    fn drop(&mut self) {
        drop(self.resume.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

fn threads(pid: u32, name: &str) -> Vec<libc::pid_t> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    tasks
        .flatten()
        .filter(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .map(|task| task.file_name().to_string_lossy().parse().expect("a number"))
        .collect()
}

fn seize_and_stop(thread: libc::pid_t) {
    let none = std::ptr::null_mut::<libc::c_void>();
    let mut status = 0;
    // SAFETY: no memory is passed but `status`, which outlives the calls.
    let results = unsafe {
        [
            libc::ptrace(libc::PTRACE_SEIZE, thread, none, none),
            libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none),
            libc::waitpid(thread, &mut status, libc::__WALL).into(),
        ]
    };
    assert!(
        results.iter().all(|result| *result >= 0),
        "{results:?}: {}",
        io::Error::last_os_error()
    );
    assert!(libc::WIFSTOPPED(status), "status {status:#x}");
}
