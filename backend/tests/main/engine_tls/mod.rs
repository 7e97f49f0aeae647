//! Clients that speak TLS, whose sessions the engine carries on. The other engine has them tunnelled, so that none of this is
//! about it.

mod compression; // permessage-deflate within records
mod endings; // who says goodbye, and who is cut off
mod flow; // none lost, none doubled, none reordered, whatever the records are
mod forged; // records that nobody sealed, or not as the next; alerts
mod handed; // sessions that make no sense
mod slow; // clients that stop reading

use crate::fake::client::Client;
use crate::fake::program::{Program, wait_until};
use crate::fake::tls::{Tls, Way, suites};

/// A client by rustls, of which it makes no difference which protection it has.
fn wss(program: &Program, target: &str) -> Client<Tls> {
    Way::default().bring(&program.socket(), target, suites()[0])
}

/// What this is about is the record layer in user space, whoever carries sessions otherwise.
const IN_USER_SPACE: [&str; 2] = ["--tls", "user"];

/// Whether the kernel carries sessions (`make test-ktls`): its records are as long as it likes, and its alerts fewer.
fn kernel_carries() -> bool {
    std::env::var("WS_HANDOFF_TEST_TLS").is_ok_and(|carrier| carrier == "kernel")
}

/// Nobody is left.
fn all_are_gone(program: &Program) {
    wait_until("all are gone", || program.metric("websocket_connections_active") == 0.0);
}

fn closed(program: &Program, by: &str) -> f64 {
    program.metric(&format!("websocket_closed_total{{by=\"{by}\"}}"))
}
