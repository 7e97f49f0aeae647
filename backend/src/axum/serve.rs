//! Serving a listener's offers with a router.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::{Pin, pin};

use ::axum::body::Body;
use ::axum::response::Response;
use http::Request;
use tokio::sync::mpsc;
use tower_service::Service;

use super::answer;
use crate::error::AcceptError;
use crate::listener::HandoffListener;

/// Serves the listener's offers with a service: an axum `Router` whose state has been given, best the one that
/// [`axum::serve`](::axum::serve) gets as well.
///
/// Each offer becomes a request with nginx's fields and, among its extensions:
///
/// - [`ConnectInfo<SocketAddr>`](::axum::extract::ConnectInfo), with the address that nginx tells in `X-Real-IP`, and
///   port 0, which it does not tell; missing for the clients of a Unix socket of nginx's;
/// - [`PeerCredentials`](crate::PeerCredentials) of the process that made the offer, over a Unix socket.
///
/// A response of up to 1 MiB refuses the client. A longer one, and one that takes more than 30 seconds, become a 500: a
/// refusal is no download.
///
/// A handler may take its time, but nginx waits no longer than `ws_handoff_read_timeout`, and each offer in hand counts for
/// [`OfferOptions::max_pending`](crate::OfferOptions::max_pending).
pub fn serve<S>(listener: HandoffListener, service: S) -> Serve<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    Serve { listener, service }
}

/// What [`serve`] returns; awaiting it serves for ever.
#[must_use = "nothing is served before it is awaited"]
pub struct Serve<S> {
    listener: HandoffListener,
    service: S,
}

impl<S> Serve<S> {
    /// Serves until `signal` is ready. Then the listener [retires](HandoffListener::retire), so that nginx goes to the next
    /// peer, and what has been offered is answered. WebSockets are not waited for: whoever is to end them in an
    /// orderly way tells their handlers, and waits for these.
    pub fn with_graceful_shutdown<F>(self, signal: F) -> ServeGracefully<S, F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        ServeGracefully { serve: self, signal }
    }
}

/// What [`Serve::with_graceful_shutdown`] returns.
#[must_use = "nothing is served before it is awaited"]
pub struct ServeGracefully<S, F> {
    serve: Serve<S>,
    signal: F,
}

impl<S> IntoFuture for Serve<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// As axum's: there is no error.
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        self.with_graceful_shutdown(std::future::pending()).into_future()
    }
}

impl<S, F> IntoFuture for ServeGracefully<S, F>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    F: Future<Output = ()> + Send + 'static,
{
    /// As axum's: there is no error.
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let ServeGracefully { serve: Serve { listener, service }, signal } = self;
        Box::pin(async move {
            run(listener, service, signal).await;
            Ok(())
        })
    }
}

async fn run<S>(mut listener: HandoffListener, service: S, signal: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // Held by each offer until it is answered.
    let (answering, mut answered) = mpsc::channel::<Infallible>(1);
    let mut signal = pin!(signal);
    let mut retired = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut signal, if !retired => {
                listener.retire();
                retired = true;
                continue;
            }
        };
        match accepted {
            Ok(offer) => {
                let (service, answering) = (service.clone(), answering.clone());
                tokio::spawn(async move {
                    answer::answer(offer, service).await;
                    drop(answering);
                });
            }
            Err(AcceptError::Closed) => break,
            Err(error @ AcceptError::Accept(_)) => tracing::error!("{error}"),
            Err(error) => tracing::debug!("no offer: {error}"),
        }
    }
    drop(answering);
    answered.recv().await;
}

impl<S> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl<S, F> fmt::Debug for ServeGracefully<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeGracefully").field("serve", &self.serve).finish_non_exhaustive()
    }
}
