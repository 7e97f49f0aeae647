//! One offer: the request that it becomes, and what the response makes of it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use ::axum::body::{Body, to_bytes};
use ::axum::extract::ConnectInfo;
use ::axum::response::Response;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use tokio::time::timeout;
use tower_service::Service;

use super::upgrade::{Slot, Upgrade};
use crate::error::HandoffError;
use crate::offer::Offer;

/// Most bytes of a refusal's body.
const MAX_BODY: usize = 1 << 20;

/// How long the body of a refusal may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks the service, and answers the offer with what it says. Where the service panics the offer is dropped: a 500.
pub(super) async fn answer<S>(offer: Offer, mut service: S)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let slot = Slot::default();
    let request = request(&offer, slot.clone());
    let response = match poll_fn(|cx| service.poll_ready(cx)).await {
        Ok(()) => service.call(request).await,
        Err(never) => match never {},
    };
    let response = match response {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // Not held by whoever waits for its client.
    drop(service);
    let upgrade = slot.take();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refuse(offer, response).await;
    }
    match upgrade {
        Some(upgrade) => accept(offer, response.headers(), upgrade).await,
        None => {
            tracing::error!(uri = %offer.uri(), "a 101 that HandoffUpgrade::on_upgrade has not made: answering 500");
            send(offer.refuse(StatusCode::INTERNAL_SERVER_ERROR)).await;
        }
    }
}

fn request(offer: &Offer, slot: Slot) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = offer.uri().clone();
    *request.headers_mut() = offer.headers().clone();
    // Between nginx and this listener.
    request.headers_mut().remove("handoff");
    let extensions = request.extensions_mut();
    extensions.insert(slot);
    if let Some(address) = offer.client_addr() {
        extensions.insert(ConnectInfo(SocketAddr::new(address, 0)));
    }
    if let Some(peer) = offer.peer() {
        extensions.insert(peer);
    }
    request
}

async fn accept(offer: Offer, fields: &HeaderMap, upgrade: Upgrade) {
    let mut acceptance = offer.accept();
    for (name, value) in fields {
        if name == header::SEC_WEBSOCKET_PROTOCOL {
            acceptance = acceptance.protocol(value.to_str().unwrap_or_default());
        } else if !OWN.contains(name) {
            acceptance = acceptance.header(name, value);
        }
    }
    let arrived = acceptance.send().await;
    match &arrived {
        Ok(_) => (),
        Err(error) if error.is_departure() => tracing::debug!("no client: {error}"),
        Err(error @ HandoffError::Answer(_)) => tracing::error!("no client: {error}"),
        Err(error) => tracing::warn!("no client: {error}"),
    }
    // A task of its own, which is as large as the handler needs and no larger.
    tokio::spawn(upgrade.finish(arrived));
}

async fn refuse(offer: Offer, response: Response) {
    let (parts, body) = response.into_parts();
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return without_body(offer, &error.to_string()).await,
        Err(_) => return without_body(offer, &format!("not complete in {BODY_TIMEOUT:?}")).await,
    };
    let mut refusal = offer.refuse(parts.status).body(body);
    for (name, value) in &parts.headers {
        if !OWN.contains(name) {
            refusal = refusal.header(name, value);
        }
    }
    send(refusal).await;
}

async fn without_body(offer: Offer, error: &str) {
    tracing::error!(uri = %offer.uri(), "the body of a response to a WebSocket's handshake: {error}; answering 500");
    send(offer.refuse(StatusCode::INTERNAL_SERVER_ERROR)).await;
}

async fn send(refusal: crate::offer::Refusal) {
    if let Err(error) = refusal.await {
        tracing::debug!("a refusal was not delivered: {error}");
    }
}

/// Fields that the offer's answers write themselves, or that mean something to this connection alone.
const OWN: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::SEC_WEBSOCKET_ACCEPT,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("handoff"),
];
