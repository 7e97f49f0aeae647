//! Which backends get TLS sessions: those that only trusted users can have put where they are. Others are tunnelled to.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::unistd::Uid;

use crate::support::backend::is_strict;
use crate::support::fake::{self, socket_dir};
use crate::support::nginx::Builder;
use crate::support::tls_site::{HANDSHAKE, Site, echo, upgrade};
use crate::support::{Backend, Client, FakeBackend, ManualBackend, frame, metrics, tls};

/// Users who are neither root nor nginx's.
const STRANGER: u32 = 12_345;
const OTHER: u32 = 12_346;

fn is_root() -> bool {
    let yes = Uid::effective().is_root();
    if !yes {
        eprintln!("NOT TESTED: only root can give files away");
    }
    yes
}

/// A backend's socket, and the directories that are the test's.
struct Place {
    backend: FakeBackend,
    socket: PathBuf,
    directory: PathBuf,
}

impl Place {
    fn new() -> Place {
        let backend = tls::echo();
        let socket = path_of(&backend.address());
        let directory = socket.parent().expect("a directory").to_owned();
        Place { backend, socket, directory }
    }

    fn is_tunnelled_to(&self, complaint: &str) {
        self.site_is_tunnelled_to(&Site::new(&self.backend, ""), complaint);
    }

    fn site_is_tunnelled_to(&self, site: &Site, complaint: &str) {
        let mut client = site.s_client(&[]);
        upgrade(&mut client, "tunnelled");
        echo(&mut client, "again");
        drop(client);
        site.was_tunnelled(&self.backend, "trust");
        let log = site.nginx.error_log();
        assert!(log.contains(complaint), "no {complaint:?} in {log}");
        metrics::expect(&site.nginx, &["answers ws 1", "requests ws tunnel 1", "tls_kept trust 1"]);
    }
}

fn path_of(address: &str) -> PathBuf {
    address.strip_prefix("unix:").expect("a Unix socket").into()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("change a mode");
}

/// Lets pass what a worker remembers of a path that it has trusted.
fn a_second_later() {
    thread::sleep(Duration::from_millis(1_100));
}

/// Gives a file to another user, and not what it leads to.
fn give(path: &Path, uid: u32) {
    lchown(path, Some(uid), None).expect("change an owner");
}

fn is_handed_over_to(backend: &FakeBackend, server: &str) {
    let site = Site::new(backend, server);
    site.run("same_record", &[]);
    site.all_were("tls", "-");
    assert_eq!(backend.descriptors(), 1);
}

#[test]
fn directory_that_others_may_write_to_is_not_trusted() {
    // The sticky bit keeps the socket from being replaced, and not its place from being taken while the backend is away.
    for mode in [0o777, 0o770, 0o702, 0o1777] {
        let place = Place::new();
        chmod(&place.directory, mode);
        let shown = place.directory.display();
        place.is_tunnelled_to(&format!(
            "the TLS session stays in nginx: its socket is not trusted, \"{shown}\" is writable by \
             others than its owner (mode {mode:04o})"
        ));
    }
}

#[test]
fn directory_above_that_others_may_write_to_is_not_trusted() {
    let above = socket_dir();
    chmod(above.path(), 0o770);
    let place = Place::new();
    // The same socket, by a name in a directory that is as it should be.
    let inner = above.path().join("inner");
    fs::create_dir(&inner).expect("make a directory");
    let socket = inner.join("ws");
    fs::hard_link(&place.socket, &socket).expect("link");
    let site = Site::at(&format!("unix:{}", socket.display()), "");
    let shown = above.path().display();
    place.site_is_tunnelled_to(&site, &format!("\"{shown}\" is writable by others"));
}

#[test]
fn socket_that_everybody_may_write_to_is_not_trusted() {
    let place = Place::new();
    chmod(&place.socket, 0o666);
    let shown = place.socket.display();
    place.is_tunnelled_to(&format!("\"{shown}\" is writable by others than its owner (mode 0666)"));
}

#[test]
fn files_of_other_users_are_not_trusted() {
    if !is_root() {
        return;
    }
    for of_the_socket in [true, false] {
        let place = Place::new();
        let path = if of_the_socket { &place.socket } else { &place.directory };
        give(path, STRANGER);
        place.is_tunnelled_to(&format!(
            "\"{}\" belongs to user {STRANGER}, whom \"ws_handoff_tls_trust\" does not name",
            path.display()
        ));
    }
}

#[test]
fn users_that_are_named_are_trusted() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    give(&place.directory, STRANGER);
    // Debian's `daemon` is number 1.
    give(&place.socket, 1);
    is_handed_over_to(&place.backend, &format!("ws_handoff_tls_trust {STRANGER} daemon;"));
}

#[test]
fn level_of_its_own_names_all_of_them() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    give(&place.directory, STRANGER);
    let inherited = |builder: Builder, _| builder.http(format!("ws_handoff_tls_trust {STRANGER};"));
    let site = Site::with(&place.backend.address(), "", "", inherited);
    site.run("same_record", &[]);
    site.all_were("tls", "-");
    let place = Place::new();
    give(&place.directory, STRANGER);
    let server = format!("ws_handoff_tls_trust {OTHER};");
    let site = Site::with(&place.backend.address(), "", &server, inherited);
    place.site_is_tunnelled_to(&site, &format!("belongs to user {STRANGER}"));
}

#[test]
fn socket_of_roots_that_the_workers_group_connects_to_is_trusted() {
    if !is_root() {
        return;
    }
    // As systemd makes it for the packages.
    let place = Place::new();
    chmod(&place.directory, 0o755);
    chown(&place.socket, Some(0), Some(65_534)).expect("change a group");
    chmod(&place.socket, 0o660);
    let site = Site::with(&place.backend.address(), "", "", |builder, _| builder.unprivileged());
    site.run("same_record", &[]);
    site.all_were("tls", "-");
}

#[test]
fn user_of_nginxs_workers_is_trusted() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for path in [&place.directory, &place.socket] {
        // `nobody`.
        give(path, 65_534);
    }
    let site = Site::with(&place.backend.address(), "", "", |builder, _| builder.unprivileged());
    site.run("same_record", &[]);
    site.all_were("tls", "-");
}

#[test]
fn links_count_by_whoever_made_them() {
    let above = socket_dir();
    for whole in [true, false] {
        let place = Place::new();
        let link = above.path().join(if whole { "socket" } else { "directory" });
        let (target, address) = if whole {
            (&place.socket, link.clone())
        } else {
            (&place.directory, link.join("fake"))
        };
        symlink(target, &link).expect("link");
        let address = format!("unix:{}", address.display());
        let site = Site::at(&address, "");
        site.run("same_record", &[]);
        site.all_were("tls", "-");
        if is_root() {
            let place = Place::new();
            let target = if whole { &place.socket } else { &place.directory };
            fs::remove_file(&link).expect("remove");
            symlink(target, &link).expect("link");
            give(&link, STRANGER);
            let shown = link.display();
            let complaint = format!("\"{shown}\" belongs to user {STRANGER}");
            place.site_is_tunnelled_to(&Site::at(&address, ""), &complaint);
        }
    }
}

#[test]
fn who_listens_counts_too() {
    if !is_root() {
        return;
    }
    // Somebody has changed the owner of the file; that does not change who has made the socket.
    let backend = ManualBackend::unix();
    backend.listen_as(STRANGER);
    let site = Site::at(&backend.address(), "");
    let mut client = site.s_client(&[]);
    client.send(HANDSHAKE);
    let mut peer = backend.accept();
    assert_eq!(peer.read_head().field("Handoff"), None);
    peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    client.wait_for("101 Switching Protocols");
    drop((peer, client));
    site.all_were("tunnel", "trust");
    let path = path_of(&backend.address());
    let complaint = format!(
        "\"{}\" is listened at by user {STRANGER}, whom \"ws_handoff_tls_trust\" does not name",
        path.display()
    );
    assert!(site.nginx.error_log().contains(&complaint), "{}", site.nginx.error_log());
}

#[test]
fn each_second_it_is_another_question_and_only_the_first_doubt_is_a_warning() {
    let place = Place::new();
    let site = Site::new(&place.backend, "");
    let results = || {
        site.nginx.wait_inactive();
        let lines = site.nginx.access_log();
        let sockets = lines.iter().filter(|line| line.get("request").starts_with("GET /ws"));
        sockets.map(|line| line.get("result").to_owned()).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for (mode, result) in
        [(0o700, "tls"), (0o770, "tunnel"), (0o700, "tls"), (0o770, "tunnel"), (0o770, "tunnel")]
    {
        chmod(&place.directory, mode);
        if expected.last() == Some(&"tls") {
            a_second_later();
        }
        site.run("same_record", &[]);
        expected.push(result);
        assert_eq!(results(), expected);
    }
    let log = site.nginx.error_log();
    let levels = |level: &str| {
        let said = log.lines().filter(|line| line.contains("its socket is not trusted"));
        said.filter(|line| line.contains(level)).count()
    };
    assert_eq!((levels("[warn]"), levels("[info]")), (1, 2), "{log}");
}

#[test]
fn what_one_location_trusts_is_not_trusted_by_another() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    give(&place.directory, STRANGER);
    // The location of the site itself trusts nobody else.
    let server = format!(
        "location /ws/v {{ ws_handoff_tls on; ws_handoff_tls_trust {STRANGER}; ws_handoff {}; }}",
        place.backend.address()
    );
    let site = Site::new(&place.backend, &server);
    let handshake = String::from_utf8_lossy(HANDSHAKE).replace("/ws", "/ws/v");
    for (request, result) in [(handshake.as_bytes(), "tls"), (HANDSHAKE, "tunnel")].repeat(2) {
        let mut client = site.s_client(&[]);
        client.send(request);
        client.wait_for("101 Switching Protocols");
        echo(&mut client, result);
        drop(client);
        site.nginx.wait_inactive();
        let lines = site.nginx.access_log();
        assert_eq!(lines.last().expect("a line of the access log").get("result"), result);
    }
}

#[test]
fn relative_path_begins_where_nginx_stands() {
    for (mode, result, error) in [(0o700, "tls", "-"), (0o770, "tunnel", "trust")] {
        let place = Place::new();
        chmod(&place.directory, mode);
        let directory = place.directory.display();
        let site = Site::with("unix:fake", "", "", |builder, _| {
            builder.main(format!("working_directory {directory};"))
        });
        site.run("same_record", &[]);
        site.all_were(result, error);
        let complaint = format!("\"{directory}\" is writable by others");
        assert_eq!(site.nginx.error_log().contains(&complaint), result == "tunnel");
    }
}

#[test]
fn path_that_a_variable_makes_is_looked_at_as_well() {
    let place = Place::new();
    let server = format!(
        "set $directory {}; location /ws/v {{ ws_handoff_tls on; ws_handoff unix:$directory/fake; }}",
        place.directory.display()
    );
    let site = Site::new(&place.backend, &server);
    let handshake = String::from_utf8_lossy(HANDSHAKE).replace("/ws", "/ws/v");
    for (mode, result) in [(0o700, "tls"), (0o777, "tunnel")] {
        chmod(&place.directory, mode);
        if result == "tunnel" {
            a_second_later();
        }
        let mut client = site.s_client(&[]);
        client.send(handshake.as_bytes());
        client.wait_for("101 Switching Protocols");
        echo(&mut client, result);
        drop(client);
        site.nginx.wait_inactive();
        let lines = site.nginx.access_log();
        let last = lines.last().expect("a line of the access log");
        assert_eq!((last.get("request"), last.get("result")), ("GET /ws/v HTTP/1.1", result));
    }
}

#[test]
fn plain_clients_are_handed_over_whoever_owns_the_socket() {
    let place = Place::new();
    chmod(&place.directory, 0o777);
    let site = Site::with(&place.backend.address(), "", "", |builder, _| {
        builder.server("location /ws { ws_handoff_tls on; ws_handoff ws; }")
    });
    Client::upgraded(site.nginx.address(), "/ws").echo("plain");
    site.all_were("fd", "-");
}

#[test]
fn where_tunnelling_is_off_a_peer_is_not_asked() {
    let backend = ManualBackend::unix();
    let directory = path_of(&backend.address()).parent().expect("a directory").to_owned();
    chmod(&directory, 0o777);
    let site = Site::at(&backend.address(), "ws_handoff_fallback off;");
    let mut client = site.s_client(&[]);
    client.send(HANDSHAKE);
    client.wait_for("502 Bad Gateway");
    drop(client);
    site.all_were("failed", "local");
    assert_eq!(metrics::value(&site.nginx, "tls_kept trust"), 1);
    assert!(backend.accept().at_end(), "the backend was asked");
    assert!(site.nginx.error_log().contains("its socket is not trusted"));
}

#[test]
fn peer_by_tcp_is_never_offered_a_session() {
    let backend = FakeBackend::tcp(fake::without_handoff);
    let site = Site::new(&backend, "");
    let mut client = site.s_client(&[]);
    upgrade(&mut client, "tunnelled");
    drop(client);
    site.all_were("tunnel", "-");
    assert_eq!(backend.only_head().field("Handoff"), None);
}

#[test]
fn refusal_of_a_backend_that_is_not_trusted_reaches_the_client() {
    let backend = FakeBackend::unix(|mut peer| {
        assert_eq!(peer.read_head().field("Handoff"), None);
        peer.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry");
    });
    let directory = path_of(&backend.address()).parent().expect("a directory").to_owned();
    chmod(&directory, 0o777);
    let site = Site::new(&backend, "");
    let mut client = site.s_client(&[]);
    client.send(HANDSHAKE);
    client.wait_for("no entry");
    drop(client);
    site.all_were("refused", "-");
    metrics::expect(&site.nginx, &["answers ws 1", "refusals ws 403 1", "requests ws refused 1"]);
}

#[test]
fn first_peer_that_is_not_trusted_leaves_the_next_one_its_sessions() {
    // The first one is full, and says so: what was thought of it is forgotten.
    let full = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    });
    let directory = path_of(&full.address()).parent().expect("a directory").to_owned();
    chmod(&directory, 0o777);
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        let mut taken = tls::take_over(&mut peer);
        frame::echo(&mut taken.stream, &taken.early_data);
        taken.stream.close();
    });
    let site = Site::at(&format!("{}; server {} backup", full.address(), backend.address()), "");
    site.run("same_record", &[]);
    site.all_were("tls", "-");
    assert_eq!((full.descriptors(), backend.descriptors()), (0, 1));
}

#[test]
fn backend_takes_sessions_from_users_that_it_was_told_of() {
    if !is_root() {
        return;
    }
    if !is_strict() {
        eprintln!("NOT TESTED: this engine carries no session on");
        return;
    }
    // nginx's workers are nobody's, whom the socket's group lets in.
    const COMPLAINT: &str = "TLS sessions are not taken from this user";
    for (more, result) in
        [(&[][..], "tunnel"), (&["--allow-uid", "65534"], "tls"), (&["--allow-uid=0,65534"], "tls")]
    {
        let arguments = ["--app", "echo", "--socket-group", "nogroup"];
        let backend = Backend::start(&[&arguments, more].concat());
        let socket = path_of(&backend.address());
        chmod(socket.parent().expect("a directory"), 0o711);
        let site = Site::with(&backend.address(), "", "", |builder, _| builder.unprivileged());
        for _ in 0..2 {
            site.run("same_record", &[]);
        }
        site.all_were(result, "-");
        let expected = usize::from(result == "tunnel");
        assert_eq!(backend.log().matches(COMPLAINT).count(), expected, "{}", backend.log());
    }
}
