//! Backends and workers that are killed, again and again, while thousands of clients come: each of these gets a
//! WebSocket, an HTTP error, or an end that it sees; none hears silence, and nginx has counted what they saw.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::metrics::{LOCATION, Snapshot, ZONE};
use crate::support::nginx::signal_worker;
use crate::support::swarm::{self, Progress};
use crate::support::{Backend, Client, Nginx, PATIENCE, proc, wait_until};

const CLIENTS: usize = 10_000;

/// So many clients come between a kill and what follows it.
const STEP: usize = 50;

/// Every so manieth client stays.
const KEEP: usize = 25;

#[test]
fn backends_are_killed_while_ten_thousand_clients_come() {
    backends_are_killed("");
}

#[test]
fn backends_are_killed_while_ten_thousand_clients_come_over_kept_connections() {
    backends_are_killed("keepalive 16;");
}

#[test]
fn workers_are_killed_while_clients_come() {
    workers_are_killed("");
}

#[test]
fn workers_are_killed_while_clients_come_over_kept_connections() {
    workers_are_killed("keepalive 16;");
}

/// Two backends: one, the other, or both are killed, and started again.
fn backends_are_killed(upstream: &str) {
    let mut backends = [Backend::echo(), Backend::echo()];
    let nginx = site(&[&backends[0], &backends[1]], upstream, "");
    let before = descriptors(&nginx);

    let mut kills = 0;
    let fates = swarm::run(nginx.address(), "/ws", CLIENTS, KEEP, |progress| {
        for victims in [[true, false], [false, true], [true, true]].into_iter().cycle() {
            if !progress.advance_served(STEP) {
                break;
            }
            let mut killed: Vec<&mut Backend> = backends
                .iter_mut()
                .zip(victims)
                .filter_map(|(b, dies)| dies.then_some(b))
                .collect();
            kills += killed.len();
            killed.iter_mut().for_each(|backend| backend.kill());
            progress.advance(STEP);
            killed.iter_mut().for_each(|backend| backend.start_again());
        }
    });
    nginx.wait_inactive();
    assert!(kills >= 20, "{kills}");
    assert!(fates.served >= CLIENTS / 10, "{fates:?}");
    assert!(fates.errors.contains(&502), "{fates:?}");
    assert!(fates.errors.iter().all(|status| [502, 503, 504].contains(status)), "{fates:?}");
    // That is what a client sees whose worker dies.
    assert_eq!(fates.hung_up, 0);

    let counted = Snapshot::at_rest(&nginx);
    let broken = counted.sum("failures", "backend");
    let (fd, failed) = (counted.sum("requests", "fd"), counted.sum("requests", "failed"));
    let refused = counted.sum("requests", "refused");
    assert_eq!(fd + failed + refused, CLIENTS, "{counted:#?}");
    assert_eq!(fates.promised(), fd + broken, "{fates:?} {counted:#?}");
    assert_eq!(fates.errors.len(), failed - broken + refused, "{fates:?} {counted:#?}");
    assert_eq!(counted.sum("offers", "ws"), fd + broken, "{counted:#?}");
    assert!(access_log_agrees(&nginx, &counted), "{counted:#?}");

    // Who was served stays until its backend dies, and then sees that.
    for backend in &mut backends {
        backend.kill();
    }
    assert!(!fates.kept.is_empty());
    for kept in fates.kept {
        Client::over(kept).expect_end();
    }
    // But for the connections to backends that nginx has not found to be closed yet.
    let limit = Instant::now() + *PATIENCE;
    while descriptors(&nginx).len() > before.len() {
        let left = descriptors(&nginx);
        assert!(Instant::now() < limit, "{before:#?} before, {left:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn workers_are_killed(upstream: &str) {
    let backend = Backend::echo();
    let nginx = site(&[&backend], upstream, "exited on signal 9");
    let before = proc::descriptors(backend.pid()).len();
    let mut served: Vec<Client> =
        (0..50).map(|_| Client::upgraded(nginx.address(), "/ws")).collect();

    let mut kills = 0;
    let clients = CLIENTS / 2;
    let mut fates = swarm::run(nginx.address(), "/ws", clients, KEEP, |progress: &Progress| {
        while progress.advance(STEP / 2) {
            // Every third time nobody is left to accept until the master has started others.
            let workers = nginx.workers();
            let victims = if kills % 4 == 2 { &workers[..] } else { &workers[..1] };
            kills += victims.len();
            for victim in victims {
                signal_worker(*victim, Signal::SIGKILL);
            }
            for client in &mut served {
                client.echo("through it all");
            }
            wait_until("other workers run", || {
                let now = nginx.workers();
                now.len() == workers.len() && victims.iter().all(|victim| !now.contains(victim))
            });
        }
    });
    assert!(kills >= 10, "{kills}");
    // The backend is well, and nginx has nothing to complain of.
    assert!(fates.errors.is_empty(), "{:?}", fates.errors);
    let kept = std::mem::take(&mut fates.kept);
    for mut client in kept.into_iter().map(Client::over).chain(served) {
        client.echo("still there");
    }

    let counted = Snapshot::at_rest(&nginx);
    let (ended, broken) = (counted.ended(), counted.sum("failures", "backend"));
    let fd = counted.sum("requests", "fd") - 50;
    assert_eq!((counted.sum("requests", "failed"), broken), (0, 0), "{counted:#?}");
    // One may have been killed between writing a commit and counting it.
    assert!((fates.served - kills..=fates.served).contains(&fd), "{fd} {fates:?} {counted:#?}");
    // Those that a worker took with it have no result.
    assert!(ended - 50 + fates.hung_up + fates.broken_off <= clients, "{fates:?} {counted:#?}");
    // No worker has left anything behind that the others would stumble over.
    let after = swarm::run(nginx.address(), "/ws", 200, 0, |_| ());
    assert_eq!(after.served, 200);
    assert_eq!(Snapshot::at_rest(&nginx).ended(), ended + 200);
    backend.wait_active(0);
    // With nginx go the connections that it keeps.
    drop(nginx);
    backend.wait_descriptors(before);
}

/// Two workers; an upstream `ws` of these backends, and counters.
fn site(backends: &[&Backend], upstream: &str, tolerated: &'static str) -> Nginx {
    let servers: String = backends
        .iter()
        .map(|backend| format!("server {} max_fails=0; ", backend.address()))
        .collect();
    let builder = Nginx::builder()
        .workers(2)
        .http(ZONE)
        .http(format!("upstream ws {{ {servers} {upstream} }}"))
        .server(LOCATION)
        .server("location /ws { ws_handoff ws; }");
    if tolerated.is_empty() { builder.start() } else { builder.tolerate(tolerated).start() }
}

/// Whether each result has as many lines in the access log as it was counted.
fn access_log_agrees(nginx: &Nginx, counted: &Snapshot) -> bool {
    let log = nginx.access_log();
    ["fd", "tunnel", "refused", "failed"].iter().all(|result| {
        let lines = log.iter().filter(|line| line.get("result") == *result).count();
        lines == counted.sum("requests", result)
    })
}

/// Of all workers.
fn descriptors(nginx: &Nginx) -> Vec<(u32, String)> {
    nginx.workers().into_iter().flat_map(proc::descriptors).collect()
}
