//! The extractor: what a handler says of the WebSocket that it wants.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use ::axum::body::Body;
use ::axum::extract::ws::rejection::WebSocketUpgradeRejection;
use ::axum::extract::ws::{DefaultOnFailedUpgrade, OnFailedUpgrade, WebSocketUpgrade};
use ::axum::extract::{FromRequestParts, OptionalFromRequestParts};
use ::axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::socket::WebSocket;
use crate::error::HandoffError;
use crate::offer::subprotocols;
use crate::websocket::Client;

/// Extracts a WebSocket's upgrade, whichever way the client came: as an offer of nginx's that [`serve`](super::serve) has
/// made a request of, or directly. Its methods are those of axum's [`WebSocketUpgrade`], to which a direct client's
/// request goes; that one's rejections are this one's.
#[must_use = "without `on_upgrade` the client is refused"]
pub struct HandoffUpgrade<F = DefaultOnFailedUpgrade> {
    inner: Inner<F>,
    requested: Vec<HeaderValue>,
}

enum Inner<F> {
    Direct(WebSocketUpgrade<F>),
    Offered(Offered<F>),
}

struct Offered<F> {
    slot: Slot,
    config: WebSocketConfig,
    protocol: Option<HeaderValue>,
    /// `None`: ignored. axum's default cannot be made here.
    on_failed_upgrade: Option<F>,
}

impl<S: Send + Sync> FromRequestParts<S> for HandoffUpgrade {
    type Rejection = WebSocketUpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let requested = requested(&parts.headers);
        let inner = match parts.extensions.remove::<Slot>() {
            // nginx and the listener have checked the handshake.
            Some(slot) => Inner::Offered(Offered {
                slot,
                config: WebSocketConfig::default(),
                protocol: None,
                on_failed_upgrade: None,
            }),
            None => Inner::Direct(WebSocketUpgrade::from_request_parts(parts, state).await?),
        };
        Ok(HandoffUpgrade { inner, requested })
    }
}

/// `Option<HandoffUpgrade>`: `None` for a request that asks for no upgrade at all.
impl<S: Send + Sync> OptionalFromRequestParts<S> for HandoffUpgrade {
    type Rejection = WebSocketUpgradeRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        // Over HTTP/2 a direct client asks by CONNECT.
        if !parts.headers.contains_key(header::UPGRADE) && parts.method != Method::CONNECT {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// The same call on the direct client's upgrade and on the offered one's settings.
macro_rules! set {
    ($self:ident, $direct:ident => $on_direct:expr, $offered:ident => $on_offered:expr) => {{
        $self.inner = match $self.inner {
            Inner::Direct($direct) => Inner::Direct($on_direct),
            Inner::Offered(mut $offered) => {
                $on_offered;
                Inner::Offered($offered)
            }
        };
        $self
    }};
}

impl<F> HandoffUpgrade<F> {
    /// Bytes of the read buffer, which each WebSocket has for itself: 128 KiB unless set.
    pub fn read_buffer_size(mut self, bytes: usize) -> Self {
        set!(self, direct => direct.read_buffer_size(bytes), offered => offered.config.read_buffer_size = bytes)
    }

    /// Bytes that are gathered before they are written, unless flushed: 128 KiB unless set.
    pub fn write_buffer_size(mut self, bytes: usize) -> Self {
        set!(self, direct => direct.write_buffer_size(bytes), offered => offered.config.write_buffer_size = bytes)
    }

    /// Most bytes that wait to be written: no limit unless set. More than
    /// [`write_buffer_size`](Self::write_buffer_size).
    pub fn max_write_buffer_size(mut self, bytes: usize) -> Self {
        set!(self, direct => direct.max_write_buffer_size(bytes), offered => offered.config.max_write_buffer_size = bytes)
    }

    /// Most bytes of a message, all of its frames together: 64 MiB unless set. A larger one is an error of
    /// [`WebSocket::recv`].
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        set!(self, direct => direct.max_message_size(bytes), offered => offered.config.max_message_size = Some(bytes))
    }

    /// Most bytes of a frame: 16 MiB unless set.
    pub fn max_frame_size(mut self, bytes: usize) -> Self {
        set!(self, direct => direct.max_frame_size(bytes), offered => offered.config.max_frame_size = Some(bytes))
    }

    /// Chooses the first of these subprotocols that the client offers.
    pub fn protocols<I>(mut self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Cow<'static, str>>,
    {
        let chosen = protocols
            .into_iter()
            .filter_map(|name| HeaderValue::from_str(&name.into()).ok())
            .find(|name| self.requested.contains(name));
        match chosen {
            Some(name) => {
                self.set_selected_protocol(name);
                self
            }
            // As axum's own: one that was chosen before is chosen no longer.
            None => {
                set!(self, direct => direct.protocols([""; 0]), offered => offered.protocol = None)
            }
        }
    }

    /// The subprotocols that the client offers, most wanted first.
    pub fn requested_protocols(&self) -> impl Iterator<Item = &HeaderValue> {
        self.requested.iter()
    }

    /// Chooses a subprotocol. An offered client that has not asked for it gets none.
    pub fn set_selected_protocol(&mut self, protocol: HeaderValue) {
        match &mut self.inner {
            Inner::Direct(direct) => direct.set_selected_protocol(protocol),
            Inner::Offered(offered) => offered.protocol = Some(protocol),
        }
    }

    /// The subprotocol that is chosen so far.
    pub fn selected_protocol(&self) -> Option<&HeaderValue> {
        match &self.inner {
            Inner::Direct(direct) => direct.selected_protocol(),
            Inner::Offered(offered) => offered.protocol.as_ref(),
        }
    }

    /// Whether nginx offers this client: its socket, or a tunnel where that cannot move.
    pub fn is_offered(&self) -> bool {
        matches!(self.inner, Inner::Offered(_))
    }

    /// What to do when the client does not come: it has left, or the socket could not be passed. Ignored unless set.
    pub fn on_failed_upgrade<C: OnFailedUpgrade>(self, callback: C) -> HandoffUpgrade<C> {
        let inner = match self.inner {
            Inner::Direct(direct) => Inner::Direct(direct.on_failed_upgrade(callback)),
            Inner::Offered(Offered { slot, config, protocol, .. }) => {
                let on_failed_upgrade = Some(callback);
                Inner::Offered(Offered { slot, config, protocol, on_failed_upgrade })
            }
        };
        HandoffUpgrade { inner, requested: self.requested }
    }

    /// Says yes: returns the response that the handler has to return, and calls `callback` with the WebSocket once it is
    /// this process's.
    ///
    /// Fields that middleware adds to the response reach the client, `Set-Cookie` for one.
    #[must_use = "the client is accepted by returning this response"]
    pub fn on_upgrade<C, Fut>(self, callback: C) -> Response
    where
        C: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
        F: OnFailedUpgrade,
    {
        match self.inner {
            Inner::Direct(direct) => {
                direct.on_upgrade(|socket| callback(WebSocket::from_axum(socket)))
            }
            Inner::Offered(offered) => offered.on_upgrade(callback),
        }
    }
}

impl<F: OnFailedUpgrade> Offered<F> {
    fn on_upgrade<C, Fut>(self, callback: C) -> Response
    where
        C: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Offered { slot, config, protocol, on_failed_upgrade } = self;
        slot.put(Upgrade(Box::new(move |arrived| {
            Box::pin(async move {
                match arrived {
                    Ok(client) => callback(WebSocket::from_client(client, config).await).await,
                    Err(error) => {
                        if let Some(on_failed_upgrade) = on_failed_upgrade {
                            on_failed_upgrade.call(::axum::Error::new(error));
                        }
                    }
                }
            })
        })));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(protocol) = protocol {
            fields.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

impl<F> fmt::Debug for HandoffUpgrade<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffUpgrade")
            .field("is_offered", &self.is_offered())
            .field("requested_protocols", &self.requested)
            .field("selected_protocol", &self.selected_protocol())
            .finish_non_exhaustive()
    }
}

/// Where a handler leaves what is to become of its client. In the request's extensions it is the sign of an offer.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Upgrade>>>);

impl Slot {
    fn put(&self, upgrade: Upgrade) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    pub(super) fn take(&self) -> Option<Upgrade> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What to do with the client, or for want of it.
pub(super) struct Upgrade(Box<dyn FnOnce(Arrived) -> Finishing + Send>);

type Arrived = Result<Client, HandoffError>;
type Finishing = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Upgrade {
    pub(super) fn finish(self, arrived: Arrived) -> Finishing {
        (self.0)(arrived)
    }
}

fn requested(headers: &HeaderMap) -> Vec<HeaderValue> {
    subprotocols(headers).filter_map(|name| HeaderValue::from_str(name).ok()).collect()
}
