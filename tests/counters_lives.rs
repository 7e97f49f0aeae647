//! What `ws_handoff_zone` counts outlives workers and reloads, and adds up.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::counting::{counting, edit, site};
use crate::support::fake::{ABSENT, socket_dir};
use crate::support::metrics::{self, LOCATION, ZONE, expect};
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, Peer, net, wait_until,
};

#[test]
fn all_workers_count_together() {
    let backend = Backend::echo();
    let nginx = counting(&backend.address()).workers(3).start();
    for _ in 0..30 {
        Client::upgraded(nginx.address(), "/ws").echo("hello");
    }
    expect(&nginx, &["requests ws fd 30", "offers ws 30", "answers ws 30"]);
}

#[test]
fn values_survive_a_reload() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    let one = ["requests ws fd 1", "offers ws 1", "answers ws 1"];
    expect(&nginx, &one);
    nginx.reload();
    expect(&nginx, &one);

    // A new upstream begins at 0, and one that is gone keeps its counts.
    edit(
        &nginx,
        "upstream ws {",
        &format!("upstream other {{ server {}; }} upstream ws {{", backend.address()),
    );
    edit(&nginx, "ws_handoff ws;", "ws_handoff other;");
    nginx.reload();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    let both = [&one[..], &["requests other fd 1", "offers other 1", "answers other 1"]].concat();
    expect(&nginx, &both);

    edit(&nginx, "ws_handoff other;", "ws_handoff ws;");
    nginx.reload();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    let mut more = both.clone();
    more.splice(0..3, ["requests ws fd 2", "offers ws 2", "answers ws 2"]);
    expect(&nginx, &more);

    // nginx makes a zone of another size anew.
    edit(&nginx, "counters:64k", "counters:128k");
    nginx.reload();
    expect(&nginx, &[]);
}

#[test]
fn request_of_an_old_worker_is_counted_too() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    let old = nginx.worker();
    nginx.signal(Signal::SIGHUP);
    wait_until("a new worker runs", || nginx.workers().iter().any(|pid| *pid != old));
    wait_until("the new worker answers", || metrics::nonzero(&nginx) == ["in_progress 1"]);
    let taken = peer.take_over();
    client.expect_101();
    expect(&nginx, &["requests ws fd 1", "offers ws 1", "answers ws 1"]);
    drop(taken);
}

#[test]
fn killed_worker_leaves_nothing_in_progress() {
    let backend = ManualBackend::unix();
    let nginx = counting(&backend.address()).tolerate("exited on signal 9").start();
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    expect(&nginx, &["in_progress 1"]);
    let worker = nginx.worker();
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("kill the worker");
    wait_until("another worker runs", || {
        let workers = nginx.workers();
        workers.len() == 1 && workers[0] != worker
    });
    expect(&nginx, &[]);
}

#[test]
fn without_a_zone_everything_works() {
    let backend = Backend::echo();
    let nginx = Nginx::start(format!(
        "location /ws {{ ws_handoff {}; }} location /none {{ ws_handoff unix:/nowhere; }}",
        backend.address()
    ));
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    let head = Client::connect(nginx.address()).ask(&Handshake::new("/ws").without("Upgrade"));
    assert_eq!(head.status(), 426);
    assert_eq!(nginx.logged("GET /ws").get("result"), "fd");
    nginx.reload();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
}

/// Under a mixed load each right handshake has one outcome, and what is counted agrees with what the clients saw.
#[test]
fn sum_of_outcomes_is_the_number_of_requests() {
    const CLIENTS: usize = 40;
    const EACH: usize = 20;
    let dir = socket_dir();
    let taking = Backend::echo();
    let plain = FakeBackend::unix(|mut peer: Peer| {
        peer.read_head();
        peer.try_write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    });
    let moody = FakeBackend::unix(|mut peer: Peer| {
        let head = peer.read_head();
        match head.target().rsplit('/').next().expect("a mood") {
            "refuse" => peer.try_write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
            "garbage" => peer.try_write("garbage\r\n\r\n"),
            "drain" => peer.try_write("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            "die" => peer.try_write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\n"),
            _ => {}
        }
    });
    let nginx = Nginx::builder()
        .workers(2)
        .http(ZONE)
        .http(format!(
            "upstream taking {{ server {}; }} upstream plain {{ server {}; }} \
             upstream moody {{ server {} max_fails=0; server unix:{}/absent max_fails=0; }}",
            taking.address(),
            plain.address(),
            moody.address(),
            dir.path().display()
        ))
        .server(LOCATION)
        .server(
            "location /taking { ws_handoff taking; } location /plain { ws_handoff plain; } \
             location /moody { ws_handoff moody; }",
        )
        .tolerate(ABSENT)
        .start();

    let targets = [
        "/taking",
        "/plain",
        "/moody/refuse",
        "/moody/garbage",
        "/moody/drain",
        "/moody/die",
        "/moody/close",
    ];
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let nginx = &nginx;
            scope.spawn(move || {
                for m in 0..EACH {
                    let target = targets[(n + m) % targets.len()];
                    let mut client = Client::connect_from(net::source(n), nginx.address());
                    let close = Handshake::new(target).set("Connection", "Upgrade, close");
                    client.send(&close.bytes());
                    if target == "/taking" {
                        client.expect_101();
                    } else if n % 10 != 9 || target == "/moody/die" {
                        client.expect_end();
                    }
                    // Some leave at once.
                    client.reset();
                }
            });
        }
    });
    nginx.wait_inactive();

    let samples = metrics::nonzero(&nginx);
    let sum = |start: &str, end: &str| -> u64 {
        let counts = samples.iter().filter_map(|sample| sample.rsplit_once(' '));
        let wanted = counts.filter(|(name, _)| name.starts_with(start) && name.ends_with(end));
        wanted.map(|(_, count)| count.parse::<u64>().expect("a count")).sum()
    };
    // Of those that left at once, nginx may not have read the handshake.
    let logged: Vec<_> = nginx
        .access_log()
        .into_iter()
        .filter(|line| line.get("request").contains("HTTP"))
        .collect();
    for result in ["fd", "tunnel", "refused", "failed"] {
        let lines = logged.iter().filter(|line| line.get("result") == result).count();
        assert_eq!(lines as u64, sum("requests ", result), "{result}: {samples:#?}");
        assert!(lines > 0, "no {result}: {samples:#?}");
    }
    assert!(logged.len() >= CLIENTS * EACH * 9 / 10);
    assert_eq!(logged.len() as u64, sum("requests ", ""), "{samples:#?}");
    assert_eq!((sum("in_progress", ""), sum("rejected", "")), (0, 0));
    // What was offered was handed over, or the backend died before it was.
    assert_eq!(
        sum("offers", ""),
        sum("requests ", "fd") + sum("failures ", "backend"),
        "{samples:#?}"
    );
    assert!(sum("failures ", "") >= sum("requests ", "failed"), "{samples:#?}");
}
