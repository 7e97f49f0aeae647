//! What `ws_handoff_zone` counts: each scenario moves exactly the counters that it should, by exactly as much as it should.

use std::fs;
use std::os::unix::net::UnixListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::bare::BareBackend;
use crate::support::fake::{ABSENT, FullBacklog, socket_dir, without_handoff};
use crate::support::frame::Frame;
use crate::support::metrics::{self, LOCATION, ZONE, expect};
use crate::support::nginx::{Builder, signal_worker};
use crate::support::stuck::{Stuck, Trap};
use crate::support::{
    Backend, Client, FakeBackend, Handshake, ManualBackend, Nginx, Peer, net, proc, wait_until,
};

#[test]
fn nothing_at_first() {
    expect(&site("unix:/nowhere"), &[]);
}

#[test]
fn handed_over() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    for _ in 0..3 {
        Client::upgraded(nginx.address(), "/ws").echo("hello");
    }
    expect(&nginx, &["requests ws fd 3", "offers ws 3", "answers ws 3"]);
}

#[test]
fn early_data_is_counted_in_bytes() {
    let backend = Backend::echo();
    let nginx = site(&backend.address());
    let frame = Frame::text("early").masked();
    let mut client = Client::connect(nginx.address());
    client.send(&[Handshake::new("/ws").bytes(), frame.clone()].concat());
    client.expect_101();
    let bytes = format!("early_data ws {}", frame.len());
    expect(&nginx, &["requests ws fd 1", "offers ws 1", "answers ws 1", &bytes]);
}

#[test]
fn tunnelled() {
    let backend = FakeBackend::tcp(without_handoff);
    let nginx = site(&backend.address());
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("hello");
    // When the tunnel begins, not when it ends.
    expect(&nginx, &["requests ws tunnel 1", "answers ws 1"]);
    drop(client);
    nginx.wait_inactive();
    expect(&nginx, &["requests ws tunnel 1", "answers ws 1"]);
}

#[test]
fn refused_by_status() {
    let backend = FakeBackend::unix(|mut peer| {
        let head = peer.read_head();
        let status = head.target().rsplit('/').next().expect("a status").to_owned();
        peer.write(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"));
    });
    let nginx = site(&backend.address());
    for status in [403, 403, 404, 302, 200, 599, 777] {
        let mut client = Client::connect(nginx.address());
        let head = client.ask(&Handshake::new(&format!("/ws/{status}")));
        assert_eq!(head.status(), status);
    }
    expect(
        &nginx,
        &[
            "requests ws refused 7",
            "refusals ws 200 1",
            "refusals ws 302 1",
            "refusals ws 403 2",
            "refusals ws 404 1",
            "refusals ws 599 1",
            "refusals ws other 1",
            "answers ws 7",
        ],
    );
}

#[test]
fn refusal_whose_body_takes_long_has_begun() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    expect(&nginx, &["in_progress 1"]);
    peer.write("HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.read_head().status(), 403);
    expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]);
    // Cut short: it was a refusal all the same.
    drop(peer);
    client.expect_end();
    expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]);
}

#[test]
fn refusal_that_leads_to_the_next_peer() {
    let draining = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n");
    });
    let backend = Backend::echo();
    let nginx = with_backup(&[&draining.address()], &backend.address());
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    expect(&nginx, &["requests ws fd 1", "refusals ws 503 1", "offers ws 1", "answers ws 2"]);
}

#[test]
fn intercepted_refusal_is_one() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    });
    let nginx = counting(&backend.address())
        .server("ws_handoff_intercept_errors on; error_page 403 /page; location /page { return 200 page; }")
        .start();
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status(), 403);
    expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]);
}

#[test]
fn connect_failed() {
    let dir = socket_dir();
    let absent = format!("unix:{}/absent", dir.path().display());
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).expect("bind"));
    let full = FullBacklog::new();
    for address in [
        absent,
        format!("unix:{}", dead.display()),
        format!("unix:{}", full.path().display()),
        format!("127.0.0.1:{}", net::free_port()),
    ] {
        let nginx = counting(&address).tolerate(ABSENT).start();
        fails(&nginx, 502);
        expect(&nginx, &["requests ws failed 1", "failures ws connect 1"]);
    }
}

#[test]
fn no_peer_alive() {
    let nginx = counting("unix:/nowhere down").start();
    fails(&nginx, 502);
    expect(&nginx, &["requests ws failed 1", "failures ws connect 1"]);
}

#[test]
fn timed_out() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let nginx = counting(&backend.address()).server("ws_handoff_read_timeout 100ms;").start();
    fails(&nginx, 504);
    expect(&nginx, &["requests ws failed 1", "failures ws timeout 1"]);
}

#[test]
fn closed_after_its_answer() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    // So that nginx hears of both at once.
    signal_worker(nginx.worker(), Signal::SIGSTOP);
    peer.accept();
    drop(peer);
    signal_worker(nginx.worker(), Signal::SIGCONT);
    assert_eq!(client.read_head().status(), 502);
    expect(&nginx, &["requests ws failed 1", "failures ws send 1", "answers ws 1"]);
}

#[test]
fn request_cannot_be_written() {
    // A peer whose queue nginx's connection waits in, and is lost with, while its buffer holds but half of the head.
    let backend = ManualBackend::unix();
    let nginx = counting(&backend.address())
        .http("client_header_buffer_size 512k; large_client_header_buffers 4 512k;")
        .start();
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").with("Cookie", &"c".repeat(400_000)).bytes());
    let peer = backend.accept();
    wait_until("a part of the request arrives", || peer.has_input());
    nginx.wait_read(&client);
    drop(peer);
    assert_eq!(client.read_head().status(), 502);
    expect(&nginx, &["requests ws failed 1", "failures ws send 1"]);
}

#[test]
fn bad_answers() {
    let too_big = format!("HTTP/1.1 403 No\r\n{}\r\n", "X-Long: aaaaaaaaaaaaaaa\r\n".repeat(500));
    for answer in ["", "HTTP/1.1 101 Swi", "garbage\r\n\r\n", &too_big] {
        let answer = answer.to_owned();
        let backend = FakeBackend::unix(move |mut peer| {
            peer.read_head();
            peer.try_write(&answer);
        });
        let nginx = site(&backend.address());
        fails(&nginx, 502);
        expect(&nginx, &["requests ws failed 1", "failures ws answer 1"]);
    }
}

#[test]
fn refusal_that_nginx_does_not_accept_is_none() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1");
    });
    let nginx = site(&backend.address());
    // Older versions of nginx accept it.
    match Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status() {
        502 => expect(&nginx, &["requests ws failed 1", "failures ws answer 1", "answers ws 1"]),
        403 => expect(&nginx, &["requests ws refused 1", "refusals ws 403 1", "answers ws 1"]),
        status => panic!("{status}"),
    }
}

#[test]
fn behind_the_answer() {
    let backend = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nHandoff: fd\r\n\r\nmore");
        peer.recv_to_end();
    });
    let nginx = site(&backend.address());
    fails(&nginx, 502);
    expect(&nginx, &["requests ws failed 1", "failures ws answer 1", "answers ws 1"]);
}

#[test]
fn client_leaves_while_a_backend_is_asked() {
    let backend = ManualBackend::unix();
    let nginx = site(&backend.address());
    let mut client = Client::connect(nginx.address());
    client.send(&Handshake::new("/ws").bytes());
    let mut peer = backend.accept();
    peer.read_head();
    drop(client);
    peer.recv_to_end();
    expect(&nginx, &["requests ws failed 1", "failures ws client 1"]);
}

#[test]
fn client_leaves_between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(counting(&backend.address())).start();
    let mut trap = Trap::new();
    let stuck = trap.catch(&nginx, &backend, "/ws", b"");
    let before = metrics::value(&nginx, "offers ws");
    assert_eq!(metrics::value(&nginx, "in_progress"), 1);
    stuck.let_off();
    stuck.client.reset();
    wait_until("it is counted", || metrics::value(&nginx, "failures ws client") == 1);
    assert_eq!(metrics::value(&nginx, "requests ws failed"), 1);
    assert_eq!(metrics::value(&nginx, "offers ws"), before);
    assert_eq!(metrics::value(&nginx, "in_progress"), 0);
}

#[test]
fn backend_dies_between_offer_and_commit() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(counting(&backend.address())).start();
    let mut trap = Trap::new();
    for n in 1..=3 {
        let Stuck { mut client, peer, offer, .. } = {
            let stuck = trap.catch(&nginx, &backend, "/ws", b"");
            stuck.let_off();
            stuck
        };
        drop((peer, offer));
        client.expect_end();
        wait_until("it is counted", || metrics::value(&nginx, "failures ws backend") == n);
        assert_eq!(metrics::value(&nginx, "requests ws failed"), n);
    }
    // Those that the trap failed to catch were handed over.
    let offers = metrics::value(&nginx, "offers ws");
    let fd = metrics::value(&nginx, "requests ws fd");
    assert_eq!(offers, fd + 3);
    let requests = metrics::nonzero(&nginx);
    assert!(!requests.iter().any(|sample| sample.starts_with("in_progress")), "{requests:#?}");
}

#[test]
fn nginx_out_of_descriptors() {
    let backend = Backend::echo();
    let nginx = counting(&backend.address()).tolerate("(24: Too many open files)").start();
    let mut client = Client::connect(nginx.address());
    nginx.serve_others();
    let worker = nginx.worker();
    let before = proc::limit_descriptors(worker, 0);
    client.send(&Handshake::new("/ws").bytes());
    assert_eq!(client.read_head().status(), 500);
    proc::limit_descriptors(worker, before);
    expect(&nginx, &["requests ws failed 1", "failures ws local 1"]);
}

#[test]
fn rejected_by_nginx() {
    let nginx = site("unix:/nowhere");
    for (handshake, status) in [
        (Handshake::new("/ws").without("Sec-WebSocket-Key"), 400),
        (Handshake::new("/ws").version("HTTP/1.0"), 400),
        (Handshake::new("/ws").method("POST"), 405),
        (Handshake::new("/ws").without("Upgrade"), 426),
        (Handshake::new("/ws").set("Sec-WebSocket-Version", "8"), 426),
        (Handshake::new("/ws").set("Sec-WebSocket-Version", "9"), 426),
    ] {
        assert_eq!(Client::connect(nginx.address()).ask(&handshake).status(), status);
    }
    expect(
        &nginx,
        &["rejected handshake 400 2", "rejected handshake 405 1", "rejected handshake 426 3"],
    );
}

#[test]
fn every_attempt_counts_where_it_failed() {
    let dir = socket_dir();
    let absent = |name| format!("unix:{}/{name}", dir.path().display());
    let garbage = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.try_write("garbage\r\n\r\n");
    });
    let silent = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.recv_to_end();
    });
    let draining = FakeBackend::unix(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n");
    });
    let backend = Backend::echo();
    let failing = [
        absent("a"),
        garbage.address(),
        absent("b"),
        silent.address(),
        draining.address(),
        absent("c"),
    ];
    let failing: Vec<&str> = failing.iter().map(String::as_str).collect();
    let attempts =
        "failures ws connect 3,failures ws answer 1,failures ws timeout 1,refusals ws 503 1";

    let nginx = with_backup(&failing, &backend.address());
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    let mut expected: Vec<&str> = attempts.split(',').collect();
    expected.extend(["requests ws fd 1", "offers ws 1", "answers ws 2"]);
    expect(&nginx, &expected);

    // The last one's failure is the request's.
    let nginx = with_backup(&failing, &absent("d"));
    fails(&nginx, 502);
    let mut expected: Vec<&str> = attempts.split(',').collect();
    expected[0] = "failures ws connect 4";
    expected.extend(["requests ws failed 1", "answers ws 1"]);
    expect(&nginx, &expected);
}

#[test]
fn request_that_comes_again_by_error_page_is_two() {
    let backend = Backend::echo();
    let nginx = counting("unix:/nowhere")
        .http(format!("upstream other {{ server {}; }}", backend.address()))
        .server("error_page 502 = @other; location @other { ws_handoff other; }")
        .tolerate(ABSENT)
        .start();
    Client::upgraded(nginx.address(), "/ws").echo("hello");
    expect(
        &nginx,
        &[
            "requests ws failed 1",
            "failures ws connect 1",
            "requests other fd 1",
            "offers other 1",
            "answers other 1",
        ],
    );
}

#[test]
fn upstreams_are_counted_apart() {
    let handed = Backend::echo();
    let tunnelled = FakeBackend::tcp(without_handoff);
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {}; }}", handed.address()))
        .server(LOCATION)
        .server(format!(
            "location /a {{ ws_handoff ws; }} location /b {{ ws_handoff {}; }} \
             location /c {{ ws_handoff {}; }} location /d {{ if ($arg_x) {{ ws_handoff WS; }} }}",
            handed.address(),
            tunnelled.address()
        ))
        .start();
    for target in ["/a", "/a", "/b", "/c", "/d?x=1"] {
        Client::upgraded(nginx.address(), target).echo("hello");
    }
    let (unix, tcp) = (handed.address(), tunnelled.address());
    let mut expected =
        vec!["requests ws fd 3".to_owned(), "offers ws 3".into(), "answers ws 3".into()];
    expected.extend(
        ["requests {} fd 1", "offers {} 1", "answers {} 1"].map(|s| s.replace("{}", &unix)),
    );
    expected.extend(["requests {} tunnel 1", "answers {} 1"].map(|s| s.replace("{}", &tcp)));
    expect(&nginx, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn upstreams_that_variables_name() {
    let backend = Backend::echo();
    let path = backend.address();
    let nginx = Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {path}; }} upstream unused {{ server {path}; }}"))
        .server(LOCATION)
        .server(format!(
            "location /ws {{ ws_handoff $arg_to; }} location /path {{ set $path {path}; ws_handoff $path; }}",
        ))
        .start();
    Client::upgraded(nginx.address(), "/ws?to=ws").echo("hello");
    Client::upgraded(nginx.address(), "/path").echo("hello");
    Client::upgraded(nginx.address(), "/path").echo("hello");
    assert_eq!(
        Client::connect(nginx.address()).ask(&Handshake::new("/ws?to=no/such")).status(),
        500
    );
    expect(
        &nginx,
        &[
            "requests ws fd 1",
            "offers ws 1",
            "answers ws 1",
            "requests variable fd 2",
            "offers variable 2",
            "answers variable 2",
            "requests variable failed 1",
            "failures variable local 1",
        ],
    );
    let text = metrics::text(&nginx);
    assert!(text.contains("upstream=\"unused\""), "{text}");
}

#[test]
fn origin_that_is_not_admitted() {
    let nginx = counting("unix:/nowhere").server("ws_handoff_origin https://example.org;").start();
    let other = Handshake::new("/ws").with("Origin", "https://example.com");
    assert_eq!(Client::connect(nginx.address()).ask(&other).status(), 403);
    expect(&nginx, &["rejected origin 403 1"]);
    let line = nginx.logged("GET /ws");
    assert_eq!((line.get("result"), line.get("error")), ("refused", "origin"));
}

#[test]
fn bare_backend_is_offered_a_socket_and_answers_nothing() {
    let backend = BareBackend::echo();
    let nginx = counting(&backend.address()).server("ws_handoff_protocol bare;").start();
    drop(Client::upgraded(nginx.address(), "/ws"));
    expect(&nginx, &["requests ws fd 1", "offers ws 1"]);
}

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

/// An upstream `ws` of one server, and a zone.
fn counting(server: &str) -> Builder {
    Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ server {server}; }}"))
        .server(LOCATION)
        .server("location /ws { ws_handoff ws; }")
}

fn site(server: &str) -> Nginx {
    counting(server).start()
}

/// An upstream `ws` whose last peer is asked when all others have failed.
fn with_backup(servers: &[&str], backup: &str) -> Nginx {
    let servers: String =
        servers.iter().map(|server| format!("server {server} max_fails=0; ")).collect();
    Nginx::builder()
        .http(ZONE)
        .http(format!("upstream ws {{ {servers} server {backup} backup; }}"))
        .server(LOCATION)
        // Long for the one that is silent, so that the others have time on a busy machine.
        .server("location /ws { ws_handoff_read_timeout 1s; ws_handoff ws; }")
        .tolerate(ABSENT)
        .start()
}

fn fails(nginx: &Nginx, status: u16) {
    assert_eq!(Client::connect(nginx.address()).ask(&Handshake::new("/ws")).status(), status);
}

/// Changes nginx.conf; what is replaced occurs there.
fn edit(nginx: &Nginx, from: &str, to: &str) {
    let path = nginx.dir().join("nginx.conf");
    let text = fs::read_to_string(&path).expect("read nginx.conf");
    assert!(text.contains(from), "no {from} in {text}");
    fs::write(path, text.replace(from, to)).expect("write nginx.conf");
}
