//! What the tests are made of: real processes with a directory and ports of their own, a scripted
//! backend, a raw client. Everything blocks, with a deadline; nothing here knows what is being
//! tested.

pub mod backend;
pub mod bare;
pub mod client;
pub mod counting;
pub mod daemon;
pub mod fake;
pub mod frame;
pub mod head;
pub mod large;
pub mod log;
pub mod metrics;
pub mod net;
pub mod nginx;
pub mod paths;
pub mod peer;
pub mod proc;
pub mod process;
pub mod python;
pub mod rustls_client;
pub mod s_client;
pub mod sealing_client;
pub mod service;
pub mod strace;
pub mod stuck;
pub mod swarm;
pub mod tls;
pub mod tls13_client;
pub mod tls_site;

pub use backend::Backend;
pub use client::Client;
pub use fake::{FakeBackend, ManualBackend};
pub use head::{Handshake, Head};
pub use nginx::Nginx;
pub use peer::Peer;
pub use service::Service;

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that must happen may take on a loaded machine.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| Duration::from_secs(20) * factor());

/// What "promptly" means: far below every timeout of nginx that could hide a hang-up that never
/// came (the shortest default is 60 s), far above what a loaded machine needs.
pub static PROMPTLY: LazyLock<Duration> = LazyLock::new(|| Duration::from_secs(5) * factor());

/// What both are multiplied by, for an nginx that runs under something that slows it down.
fn factor() -> u32 {
    std::env::var("WS_HANDOFF_TEST_PATIENCE").map_or(1, |factor| factor.parse().expect("a number"))
}

/// Polls `probe` until it yields; panics with `what` after [`PATIENCE`].
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_for_within(what, *PATIENCE, probe)
}

/// Polls `probe` until it yields; panics with `what` after `limit`.
pub fn wait_for_within<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Polls `fact` until it is true; panics with `what` after [`PATIENCE`].
pub fn wait_until(what: &str, mut fact: impl FnMut() -> bool) {
    wait_for(what, || fact().then_some(()));
}
