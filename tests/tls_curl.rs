//! wss with curl: as a client of HTTP/1.1 that asks for the upgrade by itself, and by its own WebSocket, which Debian 12's curl
//! (7.88) was built without and Debian 13's (8.14) has. It shows what comes, and sends nothing.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::fake::socket_dir;
use crate::support::process::{self, Process};
use crate::support::rustls_client::{self, RustlsClient, all_suites};
use crate::support::tls_site::Site;
use crate::support::{Backend, wait_until};
use crate::tls_engine::all_were_served;

#[test]
fn curl_that_asks_for_the_upgrade_gets_frames() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let (backend, site) = room(version);
        let curl = Curl::start(&site, "https", &["--http1.1", "--include"], &UPGRADE);
        speak(&site, |text| curl.output().contains(text));
        assert!(curl.output().starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        drop(curl);
        all_were_served(&site, &backend);
    }
}

#[test]
fn curls_own_websocket_gets_messages() {
    if !knows_wss() {
        eprintln!("NOT TESTED: this curl has no wss ({})", version().lines().next().unwrap_or(""));
        return;
    }
    for version in ["TLSv1.2", "TLSv1.3"] {
        let (backend, site) = room(version);
        let curl = Curl::start(&site, "wss", &[], &[]);
        speak(&site, |text| curl.output().contains(text));
        assert!(curl.output().chars().all(|c| c.is_ascii_graphic() || c == ' '), "messages alone");
        drop(curl);
        all_were_served(&site, &backend);
    }
}

/// The fields of a handshake, for a curl that knows nothing of WebSockets.
const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// A backend whose clients are all in one room, and nginx before it.
fn room(version: &str) -> (Backend, Site) {
    let backend = Backend::start(&["--app", "broadcast"]);
    let site = Site::at(&backend.address(), &format!("ssl_protocols {version};"));
    (backend, site)
}

/// Another client says something to the room until it has been heard: a member may not be in yet.
fn speak(site: &Site, mut is_heard: impl FnMut(&str) -> bool) {
    let certificate = PathBuf::from(site.certificate());
    let config = rustls_client::config(&[certificate], &all_suites());
    let mut speaker = RustlsClient::connect(site.port, "localhost", &Arc::new(config));
    wait_until("curl hears the room", || {
        speaker.send_text("said to the room");
        is_heard("said to the room")
    });
    let long = "a long message ".repeat(4000);
    speaker.send_text(&long);
    wait_until("curl hears a message of several records", || is_heard(&long));
}

fn version() -> String {
    let mut command = Command::new("curl");
    command.arg("--version");
    process::run("curl", command)
}

fn knows_wss() -> bool {
    let version = version();
    let protocols = version.lines().find_map(|line| line.strip_prefix("Protocols: "));
    protocols.expect("a list of protocols").split(' ').any(|name| name == "wss")
}

/// A running one.
struct Curl {
    _process: Process,
    output: PathBuf,
    _dir: TempDir,
}

impl Curl {
    fn start(site: &Site, scheme: &str, options: &[&str], fields: &[&str]) -> Curl {
        let dir = socket_dir();
        let output = dir.path().join("output");
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--no-buffer", "--max-time", "60"])
            .args(["--cacert", &site.certificate(), "--noproxy", "*"])
            .args(options)
            .args(fields.iter().flat_map(|field| ["--header", *field]))
            .arg(format!("{scheme}://127.0.0.1:{}/ws", site.port))
            .stdin(Stdio::null())
            .stdout(File::create(&output).expect("create a file for output"));
        let process = Process::spawn("curl", &mut command, Signal::SIGKILL);
        Curl { _process: process, output, _dir: dir }
    }

    /// What it has shown so far.
    fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).expect("read the output")).into_owned()
    }
}
