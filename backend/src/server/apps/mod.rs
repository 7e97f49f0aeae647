//! The applications, and which one a URI means.

mod broadcast;
mod demo;
mod echo;
mod hello;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Uri;

use self::broadcast::Rooms;
use super::cli::AppKind;
use super::messages::Message;
use super::metrics::Metrics;

/// One client's side of an application.
pub(crate) trait Application: Send {
    /// A message came; the answer is sent before the next one is read.
    fn received(&mut self, message: Message) -> Option<Message>;

    /// What to send on its own account. Cancel-safe: what is returned as ready is sent.
    fn poll_outgoing(&mut self, _cx: &mut Context<'_>) -> Poll<Outgoing> {
        Poll::Pending
    }

    /// Ready with a close code once the client is to be closed whatever is on its way to it.
    fn poll_expelled(&mut self, _cx: &mut Context<'_>) -> Poll<u16> {
        Poll::Pending
    }
}

/// What an application sends without being asked.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(Message),
    /// A frame encoded once for many clients.
    Encoded {
        frame: Bytes,
        /// Its payload's bytes, for metrics.
        payload_len: usize,
    },
    /// Close code and reason.
    Close(u16, &'static str),
}

/// What a URI stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Echo,
    Hello,
    Room(Box<str>),
}

/// Finds the application for a URI and starts it for a client.
#[derive(Debug)]
pub(crate) struct Router {
    kind: AppKind,
    rooms: Arc<Rooms>,
}

impl Router {
    pub(crate) fn new(kind: AppKind, metrics: Arc<Metrics>) -> Router {
        Router { kind, rooms: Arc::new(Rooms::new(metrics)) }
    }

    /// `None`: there is nothing at this path.
    pub(crate) fn route(&self, uri: &Uri) -> Option<Route> {
        match self.kind {
            AppKind::Echo => Some(Route::Echo),
            AppKind::Hello => Some(Route::Hello),
            AppKind::Broadcast => Some(Route::Room(uri.path().into())),
            AppKind::Demo => demo::route(uri.path()),
        }
    }

    /// Whether some path leads to `hello`.
    pub(crate) fn has_hello(&self) -> bool {
        matches!(self.kind, AppKind::Hello | AppKind::Demo)
    }

    /// `number` tells clients apart.
    pub(crate) fn start(&self, route: Route, number: u64) -> Box<dyn Application> {
        match route {
            Route::Echo => Box::new(echo::Echo),
            Route::Hello => Box::new(hello::Hello::new(number)),
            Route::Room(name) => Box::new(self.rooms.join(name)),
        }
    }
}
