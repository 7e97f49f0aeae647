//! A service of `examples/`, which listens both ways.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::fake::socket_dir;
use super::process::Process;
use super::{PROMPTLY, net, paths, wait_until};

/// A running example with its Unix socket and its port. When dropped it is told to end, which it has to do promptly
/// and without an error.
pub struct Service {
    process: Process,
    dir: TempDir,
    address: SocketAddr,
}

impl Service {
    pub fn start(name: &'static str) -> Service {
        let dir = socket_dir();
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, net::free_port()).into();
        let log = fs::File::create(dir.path().join("log")).expect("create the service's log");
        let mut command = Command::new(paths::example(name));
        command
            .arg(dir.path().join("ws"))
            .arg(address.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's descriptor"))
            .stderr(log);
        let process = Process::spawn(name, &mut command, Signal::SIGKILL);
        let mut service = Service { process, dir, address };
        wait_until("the service listens", || {
            if let Some(status) = service.process.exited() {
                panic!("the service exited: {status}\n{}", service.log());
            }
            UnixStream::connect(service.socket()).is_ok()
                && TcpStream::connect(service.address).is_ok()
        });
        service
    }

    /// For clients that connect by themselves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As nginx's configuration names it.
    pub fn unix_address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default())
            .into_owned()
    }

    /// Tells it to end.
    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Waits until it has ended, as it should.
    pub fn wait_end(&mut self) {
        let status = self.process.wait(*PROMPTLY);
        assert!(status.success(), "the service: {status}\n{}", self.log());
    }

    /// Whether its socket's file is there.
    pub fn is_offering(&self) -> bool {
        self.socket().exists()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("ws")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let stopped = self.process.stop(Signal::SIGTERM, *PROMPTLY);
        let status = self.process.exited();
        if thread::panicking() || !status.is_some_and(|status| status.success()) {
            eprintln!("the service:\n{}", self.log());
        }
        if !thread::panicking() {
            assert!(stopped, "the service did not end promptly when told to");
            assert!(status.is_some_and(|status| status.success()), "the service: {status:?}");
        }
    }
}
