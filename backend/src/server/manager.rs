//! What the service manager is told, by the protocol of sd_notify(3): that the program is ready, how many clients it serves,
//! that it drains, and, where a watchdog waits for it, that the threads which serve clients are alive.
//!
//! Without `NOTIFY_SOCKET` in the environment there is nobody to tell.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Shared;

/// How often the number of clients is told, if it has changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Sockets are being listened on.
pub(crate) fn ready(shared: &Shared) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(shared))]);
}

/// The drain has begun. Does not wait: a manager that does not read its messages is no reason to end later.
pub(crate) fn stopping(shared: &Shared) {
    let status = status(shared);
    spawn_blocking(move || tell(&[NotifyState::Stopping, NotifyState::Status(&status)]));
}

/// Goes on until the program ends: in a drain the watchdog waits as before.
pub(crate) async fn keep_informed(shared: Arc<Shared>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // Twice as often as asked for, as sd_watchdog_enabled(3) recommends.
    let watchdog = sd_notify::watchdog_enabled().map(|within| within / 2);
    let period = watchdog.map_or(STATUS_INTERVAL, |watchdog| watchdog.min(STATUS_INTERVAL));
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let is_alive = watchdog.is_some() && sign_of_life(&shared, period).await;
        let status = status(&shared);
        let changed = (status != told).then(|| status.clone());
        told = status;
        // A manager whose queue is full would block a thread that takes offers; waited for, so that messages stay in order.
        let _ = spawn_blocking(move || {
            let status = changed.as_deref().map(NotifyState::Status);
            let watchdog = is_alive.then_some(NotifyState::Watchdog);
            let states: Vec<_> = status.into_iter().chain(watchdog).collect();
            if !states.is_empty() {
                tell(&states);
            }
        })
        .await;
    }
}

/// Waits until those who serve clients have got round to something: each thread of an engine, or the runtime of the tasks.
/// That this runs at all shows that the runtime which takes offers is alive. False if nobody is left.
async fn sign_of_life(shared: &Shared, patience: Duration) -> bool {
    let mut sign = pin!(async {
        match &shared.engine {
            Some(engine) => engine.responds().await,
            None => tokio::spawn(async {}).await.is_ok(),
        }
    });
    let is_alive = match timeout(patience, &mut sign).await {
        Ok(is_alive) => is_alive,
        Err(_) => {
            tracing::error!(after = ?patience, "a thread that serves clients does not respond: nothing for the watchdog");
            sign.await
        }
    };
    if !is_alive {
        tracing::error!("no thread is left that serves clients: nothing for the watchdog");
    }
    is_alive
}

fn status(shared: &Shared) -> String {
    let doing = if shared.drain.is_draining() { "Draining" } else { "Serving" };
    match shared.limits.clients() {
        1 => format!("{doing} 1 client"),
        clients => format!("{doing} {clients} clients"),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("NOTIFY_SOCKET: {error}");
    }
}
