//! What becomes of nginx's hold on a socket that lives on elsewhere: a registration with epoll belongs to the open file
//! description, so that close(2) alone does not end it.

use crate::support::strace::Strace;
use crate::support::stuck::Trap;
use crate::support::{Client, FakeBackend, ManualBackend, Nginx, proc, wait_until};

#[test]
fn handed_over_clients_are_not_registered() {
    let backend = FakeBackend::echo();
    let nginx = site(&format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    let before = idle_registrations(&nginx);
    let mut clients: Vec<Client> =
        (0..50).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    wait_registrations(&nginx, before);
    for client in &mut clients {
        client.echo("still here");
    }
    wait_registrations(&nginx, before);
}

#[test]
fn post_action_and_lingering_close_leave_no_registration() {
    let backend = FakeBackend::echo();
    let nginx = site(&format!(
        "lingering_close always; \
         location /ws {{ post_action /after; ws_handoff {0}; }} \
         location /after {{ proxy_pass http://127.0.0.1:1; }}",
        backend.address()
    ));
    let before = idle_registrations(&nginx);
    let mut clients: Vec<Client> =
        (0..20).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();
    nginx.wait_inactive();
    wait_registrations(&nginx, before);
    for client in &mut clients {
        client.echo("still here");
    }
}

#[test]
fn failed_handovers_leave_no_registration_although_the_backend_keeps_the_socket() {
    let backend = ManualBackend::unix();
    let nginx = Trap::configure(Nginx::builder())
        .server(format!("location /ws {{ ws_handoff {}; }}", backend.address()))
        .start();
    let before = idle_registrations(&nginx);
    let mut trap = Trap::new();
    let kept: Vec<_> = (0..10)
        .map(|_| {
            let stuck = trap.catch(&nginx, &backend, "/ws", b"");
            drop(stuck.peer);
            (stuck.client, stuck.offer)
        })
        .collect();
    nginx.wait_inactive();
    wait_registrations(&nginx, before);
    drop(kept);
}

#[test]
fn letting_go_takes_the_registration_away_and_puts_a_dummy_in_place() {
    let backend = FakeBackend::echo();
    let nginx = site(&format!("location /ws {{ ws_handoff {}; }}", backend.address()));
    drop(Client::upgraded(nginx.address(), "/ws"));
    nginx.wait_inactive();

    let trace = Strace::attach(nginx.worker());
    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("one");
    nginx.wait_inactive();
    let lines = trace.detach();

    let position = |what: &str, from: usize| {
        let found = lines[from..].iter().position(|line| line.contains(what));
        from + found.unwrap_or_else(|| panic!("no {what} behind line {from} of {lines:#?}"))
    };
    let offer = position("SCM_RIGHTS", 0);
    let number = lines[offer]
        .split_once("cmsg_data=[")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(number, _)| number.to_owned())
        .expect("the descriptor in the offer");
    let commit = position("\"C\\0", offer);
    let deleted = position(&format!("EPOLL_CTL_DEL, {number},"), commit);
    let replaced = position(&format!(", {number}, O_CLOEXEC)"), deleted);
    assert!(lines[replaced].contains("dup3("), "{}", lines[replaced]);
    // Between the commit, from which on the backend may write, and the dummy nothing else touches the client.
    assert_eq!(replaced - commit, 2, "{:#?}", &lines[commit..=replaced]);
    position(&format!("close({number})"), replaced);
}

#[test]
fn peer_that_fails_after_the_offer_is_charged_with_it() {
    let (first, second) = (ManualBackend::unix(), FakeBackend::echo());
    let nginx = Trap::configure(Nginx::builder())
        .http(format!(
            "upstream peers {{ server {} max_fails=1 fail_timeout=1h; server {} backup; }}",
            first.address(),
            second.address()
        ))
        .server("location /ws { ws_handoff peers; }")
        .start();
    let stuck = Trap::new().catch(&nginx, &first, "/ws", b"");
    drop(stuck.peer);
    nginx.wait_inactive();
    let failed = nginx.access_log().into_iter().filter(|line| line.get("upstream_status") == "502");
    assert_eq!(failed.count(), 1);

    let mut client = Client::upgraded(nginx.address(), "/ws");
    client.echo("from the other one");
    assert!(first.try_accept().is_none());
}

fn site(server: &str) -> Nginx {
    Nginx::builder().server(server).start()
}

/// The number of registrations while nobody is connected.
fn idle_registrations(nginx: &Nginx) -> usize {
    nginx.wait_inactive();
    let mut last = proc::registrations(nginx.worker());
    wait_until("the worker's registrations settle", || {
        let now = proc::registrations(nginx.worker());
        std::mem::replace(&mut last, now) == now
    });
    assert!(last > 0, "an event loop without a listening socket");
    last
}

/// Waits until there are no more than `before`, which on a busy machine may have counted one that was about to go.
fn wait_registrations(nginx: &Nginx, before: usize) {
    wait_until("the worker has no more registrations than before", || {
        proc::registrations(nginx.worker()) <= before
    });
}
