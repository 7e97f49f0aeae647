//! `--tls`: who carries on the sessions of TLS clients.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::backend::{changes_keys, is_strict, kernel_carries};
use crate::support::fake::socket_dir;
use crate::support::process::{self, Process};
use crate::support::tls_site::{Site, echo, protection, upgrade};
use crate::support::{Backend, paths, python, wait_until};
use crate::tls_handoff::PROTECTIONS;

/// The kernel's own counters of TLS.
const COUNTERS: &str = "/proc/net/tls_stat";

#[test]
fn kernel_opens_and_seals_what_every_version_and_suite_has() {
    if !kernel_carries() {
        eprintln!("NOT TESTED: make test-ktls does, under a kernel that has TLS");
        return;
    }
    for (version, suite) in PROTECTIONS {
        let before = ["TlsTxSw", "TlsRxSw", "TlsDecryptError"].map(counter);
        let backend = Backend::start(&["--app", "echo", "--max-message-size", "16m"]);
        let probed = ["TlsTxSw", "TlsRxSw"].map(counter);
        let site = Site::at(&backend.address(), &protection(version, suite));
        let url = format!("wss://127.0.0.1:{}/ws", site.port);
        python::run("echo.py", &[&url, "--cafile", &site.certificate()]);
        backend.wait_active(0);
        let after = ["TlsTxSw", "TlsRxSw", "TlsDecryptError"].map(counter);
        assert_eq!((after[0] - probed[0], after[1] - probed[1]), (1, 1), "{version} {suite}");
        assert_eq!(after[2], before[2], "{version} {suite}");
        assert_eq!(carried(&backend), (0.0, 1.0), "{version} {suite}\n{}", backend.log());
        assert_eq!(backend.metric("websocket_tls_fallbacks_total"), 0.0);
        wait_until("the kernel lets go of the session", || counter("TlsCurrRxSw") == 0);
    }
}

#[test]
fn sessions_that_the_kernel_does_not_take_are_served_all_the_same() {
    if !is_strict() {
        eprintln!("NOT TESTED: the engine tasks carries no session");
        return;
    }
    let backend = Backend::start(&["--app", "echo", "--tls", "kernel"]);
    let site = Site::at(&backend.address(), "");
    for word in ["first", "second"] {
        let mut client = site.s_client(&[]);
        upgrade(&mut client, word);
        echo(&mut client, "again");
        client.quit();
    }
    backend.wait_active(0);
    let log = backend.log();
    let complaints = log.matches("the kernel has no TLS").count();
    if Path::new(COUNTERS).exists() {
        assert_eq!((carried(&backend), complaints), ((0.0, 2.0), 0), "{log}");
    } else {
        assert_eq!((carried(&backend), complaints), ((2.0, 0.0), 1), "{log}");
        assert!(log.contains("/etc/modules-load.d/tls.conf"), "{log}");
        let unavailable = "websocket_tls_fallbacks_total{cause=\"unavailable\"}";
        assert_eq!(backend.metric(unavailable), 2.0);
    }
}

#[test]
fn kernel_is_given_the_next_keys_of_both_directions() {
    if !kernel_carries() {
        eprintln!("NOT TESTED: make test-ktls does, under a kernel that has TLS");
        return;
    }
    let backend = Backend::echo();
    if !changes_keys(&backend) {
        eprintln!("NOT TESTED: this kernel changes no keys (Linux 6.14 does)");
        return;
    }
    let counters = || ["TlsRxRekeyOk", "TlsTxRekeyOk", "TlsRxRekeyError"].map(counter);
    let before = counters();
    let site = Site::at(&backend.address(), "ssl_protocols TLSv1.3;");
    let mut client = site.s_client(&[]);
    upgrade(&mut client, "upgraded");
    // "K" asks for the server's to be changed, too.
    for (command, word) in [(b"K\n", "requested"), (b"k\n", "unasked"), (b"K\n", "again")] {
        client.send(command);
        echo(&mut client, word);
    }
    client.quit();
    backend.wait_active(0);
    let after = counters();
    let grown: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(grown, [3, 2, 0]);
    assert_eq!(backend.metric("websocket_limited_total{limit=\"tls_keys\"}"), 0.0);
}

#[test]
fn program_without_a_network_finds_out_with_its_clients() {
    if !is_strict() || !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: takes the engine parked, and root, for a network namespace");
        return;
    }
    let dir = socket_dir();
    let (socket, log) = (dir.path().join("ws"), dir.path().join("log"));
    let output = File::create(&log).expect("create the log");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(paths::backend()).args(["--tls", "kernel", "--socket"]).arg(&socket);
    command.stdin(Stdio::null()).stdout(output.try_clone().expect("a descriptor")).stderr(output);
    let _backend = Process::spawn("ws-handoff-backend", &mut command, Signal::SIGKILL);
    wait_until("the backend listens", || UnixStream::connect(&socket).is_ok());
    let has_tls = Path::new(COUNTERS).exists();
    let before = has_tls.then(|| counter("TlsRxSw"));

    let site = Site::at(&format!("unix:{}", socket.display()), "");
    for word in ["first", "second"] {
        let mut client = site.s_client(&[]);
        upgrade(&mut client, word);
        client.quit();
    }
    site.all_were("tls", "-");
    let log = fs::read_to_string(&log).expect("read");
    assert!(log.contains("giving TLS sessions to the kernel, untried"), "{log}");
    assert_eq!(log.matches("the kernel has no TLS").count(), usize::from(!has_tls), "{log}");
    if let Some(before) = before {
        assert!(counter("TlsRxSw") >= before + 2, "{log}");
    }
}

#[test]
fn backend_that_is_to_carry_no_session_is_tunnelled_to() {
    let backend = Backend::start(&["--app", "echo", "--tls", "off"]);
    let site = Site::at(&backend.address(), "");
    site.run("same_record", &[]);
    backend.wait_active(0);
    site.all_were("tunnel", "-");
    assert_eq!(carried(&backend), (0.0, 0.0));
}

#[test]
fn engine_that_carries_no_session_refuses_to_give_them_to_the_kernel() {
    let mut backend = Command::new(paths::backend());
    backend.args(["--listen", "127.0.0.1:0", "--engine", "tasks", "--tls", "kernel"]);
    let output = process::output(&mut backend).expect("run the backend");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--tls kernel needs --engine parked"), "{said}");
    assert!(!output.status.success());
}

/// Sessions that came so far: those in user space, and the kernel's.
fn carried(backend: &Backend) -> (f64, f64) {
    let of =
        |carrier| backend.metric(&format!("websocket_tls_sessions_total{{carrier=\"{carrier}\"}}"));
    (of("user"), of("kernel"))
}

fn counter(name: &str) -> u64 {
    let counters = fs::read_to_string(COUNTERS).expect("a kernel with TLS");
    let line = counters.lines().find_map(|line| line.strip_prefix(name)).expect("a counter");
    line.trim().parse().expect("a number")
}
