//! From an offer to a client being served, or to a refusal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::mpsc;

use super::parked::Ticket;
use super::{Shared, session};
use crate::engine::Request;
use crate::error::{AcceptError, AnswerError, HandoffError};
use crate::listener::HandoffListener;
use crate::offer::Offer;

/// Held by everything that the end of the program waits for.
pub(crate) type Alive = mpsc::Sender<()>;

/// Takes offers until the listener has none left, which is after the drain began.
pub(crate) async fn take(mut listener: HandoffListener, shared: Arc<Shared>, alive: Alive) {
    let mut retired = false;
    let mut reports = Reports::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.drain.started(), if !retired => {
                listener.retire();
                retired = true;
                continue;
            }
        };
        match accepted {
            Ok(offer) => {
                if shared.engine.is_some() && shared.settings.carries_tls {
                    reports.report_withheld(&offer);
                }
                let (shared, alive) = (Arc::clone(&shared), alive.clone());
                tokio::spawn(async move { answer(offer, shared, alive).await });
            }
            Err(AcceptError::Closed) => return,
            Err(error) => {
                shared.metrics.failed(error.cause());
                reports.report(&error);
            }
        }
    }
}

/// Answers an offer. The client gets a task of its own: this one's size is that of an offer.
async fn answer(offer: Offer, shared: Arc<Shared>, alive: Alive) {
    if shared.drain.is_draining() {
        return refuse(offer, StatusCode::SERVICE_UNAVAILABLE, &shared).await;
    }
    let Some(route) = shared.router.route(offer.uri()) else {
        return refuse(offer, StatusCode::NOT_FOUND, &shared).await;
    };
    let admission = match shared.limits.admit(offer.client_addr()) {
        Ok(admission) => admission,
        Err(status) => return refuse(offer, status, &shared).await,
    };
    let protocol = choose(&shared.settings.subprotocols, &offer);
    let mut acceptance = offer.accept();
    if let Some(protocol) = &protocol {
        acceptance = acceptance.protocol(protocol);
    }
    if shared.settings.compression {
        acceptance = acceptance.compress();
    }
    let number = shared.next_client.fetch_add(1, Ordering::Relaxed);
    match &shared.engine {
        Some(engine) => {
            if shared.settings.carries_tls {
                acceptance = acceptance.carry_tls();
            }
            let Some(client) = arrived(acceptance.send_detached().await, &shared) else { return };
            connected(client.request(), number, &shared);
            if engine.serve(client, Ticket { route, number, admission }).is_err() {
                tracing::error!(client = number, "no thread is left to serve it");
            }
        }
        None => {
            let Some(client) = arrived(acceptance.send().await, &shared) else { return };
            connected(client.request(), number, &shared);
            let app = shared.router.start(route, number);
            let stream = client.into_stream();
            tokio::spawn(async move {
                session::serve(stream, app, shared, number).await;
                drop((admission, alive));
            });
        }
    }
}

/// The client, or a line that says why there is none.
fn arrived<T>(client: Result<T, HandoffError>, shared: &Shared) -> Option<T> {
    let error = match client {
        Ok(client) => return Some(client),
        Err(error) => error,
    };
    if matches!(error, HandoffError::Full) {
        shared.metrics.refused(StatusCode::SERVICE_UNAVAILABLE.as_u16());
        tracing::debug!("{error}");
        return None;
    }
    shared.metrics.failed(error.cause());
    if error.is_departure() {
        tracing::info!("{error}");
    } else {
        tracing::warn!("offer failed: {error}");
    }
    None
}

fn connected(request: &Request, number: u64, shared: &Shared) {
    shared.metrics.connected(request.source);
    tracing::debug!(
        client = number,
        source = ?request.source,
        address = ?request.client_addr,
        uri = %request.uri,
        protocol = request.protocol,
        "connected"
    );
}

async fn refuse(offer: Offer, status: StatusCode, shared: &Shared) {
    shared.metrics.refused(status.as_u16());
    tracing::debug!(%status, uri = %offer.uri(), address = ?offer.client_addr(), "refused");
    let mut refusal = offer.refuse(status).header("content-type", "text/plain");
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        refusal = refusal.header("retry-after", "5");
    }
    let body = format!("{status}\n");
    match refusal.body(body).await {
        // Gone before it was refused.
        Ok(()) | Err(AnswerError::Write(_)) => (),
        Err(error) => tracing::warn!("refusal failed: {error}"),
    }
}

/// The first of this server's subprotocols that the client offers.
fn choose(ours: &[String], offer: &Offer) -> Option<String> {
    ours.iter().find(|name| offer.subprotocols().any(|offered| offered == name.as_str())).cloned()
}

/// Logs what became no offer: what others can cause at any rate, once a second.
#[derive(Debug, Default)]
struct Reports {
    last: Option<Instant>,
    suppressed: u64,
    has_withheld: bool,
}

impl Reports {
    /// Whoever runs this has to hear of it, once.
    fn report_withheld(&mut self, offer: &Offer) {
        if offer.withholds_tls() && !std::mem::replace(&mut self.has_withheld, true) {
            let uid = offer.peer().map(|peer| peer.uid);
            tracing::warn!(
                uid,
                "TLS sessions are not taken from this user, and nginx tunnels: name it with --allow-uid"
            );
        }
    }

    fn report(&mut self, error: &AcceptError) {
        match error {
            // Health checks and scanners.
            AcceptError::Left(_) | AcceptError::Handshake(_) | AcceptError::Displaced => {
                tracing::debug!("{error}");
                return;
            }
            AcceptError::Internal => {
                tracing::error!("{error}");
                return;
            }
            _ => (),
        }
        if self.last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            self.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut self.suppressed);
        self.last = Some(Instant::now());
        if matches!(error, AcceptError::Accept(_)) {
            tracing::error!(suppressed, "{error}");
        } else {
            tracing::warn!(suppressed, "{error}");
        }
    }
}
