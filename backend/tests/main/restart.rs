//! Draining, and the successor that starts meanwhile.

use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fake::client::Client;
use crate::fake::nginx::Nginx;
use crate::fake::program::{Program, command, exists, fails, get, wait_until};
use crate::fake::{PATIENCE, is_at_end, status};

#[test]
fn a_drain_does_not_wait_for_the_silent() {
    let mut program = Program::start(&["--drain-timeout", "20"]);
    let mut silent = Nginx::connect(&program.socket());
    let mut idle = TcpStream::connect(program.listen).expect("connect");
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(status(&silent.head()), 503);
    assert_eq!(status(&crate::fake::read_head(&mut idle)), 503);
    assert!(program.status().success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_drain_ends_however_many_connect() {
    let mut program = Program::start(&["--drain-timeout", "20"]);
    let address = program.listen;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let begin = Instant::now();
                while !stop.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
                    drop(TcpStream::connect(address));
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        let begin = Instant::now();
        program.signal(Signal::SIGTERM);
        let status = program.status();
        stop.store(true, Ordering::Relaxed);
        assert!(status.success());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    });
}

#[test]
fn a_successor_starts_with_the_same_arguments() {
    let mut program = Program::start(&["--drain-timeout", "8"]);
    let mut stubborn = Client::connect(program.listen, "/");
    let socket = program.socket();
    let (listen, admin) = (program.listen.to_string(), program.admin.to_string());
    let arguments =
        ["--socket", socket.to_str().expect("text"), "--listen", &listen, "--admin", &admin];
    assert!(fails(&arguments).contains(&admin), "not before the drain");

    program.signal(Signal::SIGTERM);
    assert_eq!(stubborn.receive_close(), 1001);
    wait_until("the port is closed", || TcpStream::connect(program.listen).is_err());
    assert_eq!(status(&program.admin("/readyz").0), 503, "still to be watched");

    let mut next = command();
    next.args(arguments);
    let next = Program::spawn(next, tempfile::tempdir().expect("directory"));
    program.wait_for_log("admin endpoint taken over");
    for _ in 0..20 {
        assert_eq!(status(&next.admin("/readyz").0), 200, "all requests are the successor's");
    }
    assert_eq!(status(&Nginx::offering(&socket, "/", "").head()), 101);
    assert!(fails(&arguments).contains(&admin), "it shares with nobody");
    assert!(program.status().success());
    assert!(is_at_end(&mut stubborn.stream));
    assert!(exists(&socket), "the successor's");
}

#[test]
fn a_unix_admin_socket_is_taken_over_too() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("admin");
    let address = format!("unix:{}", path.display());
    let mut program = Program::start(&["--drain-timeout", "5", "--admin", &address]);
    let mut stubborn = Client::connect(program.listen, "/");
    let ready = || status(&get(UnixStream::connect(&path).expect("connect"), "/readyz").0);
    program.signal(Signal::SIGTERM);
    assert_eq!(stubborn.receive_close(), 1001);
    wait_until("it drains", || ready() == 503);
    let next = Program::start(&["--admin", &address]);
    assert_eq!(ready(), 200);
    assert!(program.status().success());
    assert_eq!(ready(), 200, "the successor's file is not removed");
    drop(next);
}

#[test]
fn a_start_that_fails_takes_nothing_over() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("socket");
    // Served by somebody who knows nothing of the lock.
    let _other = UnixListener::bind(&path).expect("bind");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let socket = path.to_str().expect("text");
    for option in ["--admin", "--listen"] {
        fails(&["--socket", socket, option, &address]);
        assert!(UnixStream::connect(&path).is_ok(), "{option}: still the other's");
    }
}
