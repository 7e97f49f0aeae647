//! An offer and its two answers: accept, which gives a [`Client`], or refuse.

pub(crate) mod answer;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use handoff_protocol::{Way, tokens};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::answer::{Answer, LastWord, Unanswered};
use crate::engine::{Agreement, Request};
use crate::error::{AnswerError, HandoffError};
use crate::head::Head;
use crate::options::OfferOptions;
use crate::peer::{Peer, PeerCredentials};
use crate::receive::{self, Owned, Taken};
use crate::reuse::Reuse;
use crate::stream::{ClientStream, Socket};
use crate::websocket::{Client, DetachedClient, Source};

/// A WebSocket client that nginx (or, over TCP, the client itself) offers.
///
/// Dropping it answers 500: nginx does not take that for a failure of this peer, nor try the next one.
pub struct Offer {
    // In one box: an offer is moved about by tasks that live on as connections.
    inner: Box<Inner>,
}

struct Inner {
    head: Head,
    behind_head: Bytes,
    socket: Unanswered,
    peer: Peer,
    client_addr: Option<IpAddr>,
    options: Arc<OfferOptions>,
    permits: Permits,
    reuse: Option<Reuse>,
}

/// What an offer takes of the listener's bounds.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Held until it is answered.
    pub(crate) pending: OwnedSemaphorePermit,
    /// Where it has to take a place while it waits for the commit.
    pub(crate) handovers: Arc<Semaphore>,
}

impl Offer {
    pub(crate) fn new(
        (head, behind_head): (Head, Bytes),
        mut socket: Unanswered,
        peer: Peer,
        options: Arc<OfferOptions>,
        permits: Permits,
        reuse: Option<Reuse>,
    ) -> Offer {
        socket.unless_answered(LastWord::Failed);
        let peer_ip = socket.socket().and_then(|socket| socket.peer_ip());
        let client_addr = head.client_addr(peer_ip);
        let inner = Inner { head, behind_head, socket, peer, client_addr, options, permits, reuse };
        Offer { inner: Box::new(inner) }
    }

    /// The request target. (The method is GET: anything else is refused before it becomes an offer.)
    pub fn uri(&self) -> &Uri {
        &self.inner.head.uri
    }

    /// The request's fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.inner.head.headers
    }

    /// The client's IP address: `X-Real-IP`, which nginx sets. Over TCP the peer's address; `X-Real-IP` there
    /// counts only from this host.
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.inner.client_addr
    }

    /// Whether the client's own socket will come. Otherwise its bytes pass through the peer, or the peer is the client.
    pub fn offers_descriptor(&self) -> bool {
        self.inner.head.offers_descriptor
    }

    /// The process that connected; `None` over TCP.
    pub fn peer(&self) -> Option<PeerCredentials> {
        self.inner.peer.credentials
    }

    /// Whether a TLS session is offered by a peer who is not trusted with one, so that it is not taken: nginx keeps it and
    /// tunnels. [`OfferOptions::allow_uids`] says from whom sessions are taken.
    pub fn withholds_tls(&self) -> bool {
        self.inner.head.offers_tls && !self.inner.peer.brings_tls
    }

    /// The subprotocols that the client offers, most wanted first. Those that are not ASCII are passed over.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        subprotocols(self.headers())
    }

    /// To accept: see [`Acceptance::send`].
    pub fn accept(self) -> Acceptance {
        let answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS);
        let (protocol, compression, carries_tls, error) = (None, None, false, None);
        Acceptance { offer: self, answer, protocol, compression, carries_tls, error }
    }

    /// To refuse: the client gets this status, once the refusal is awaited.
    ///
    /// 503 makes nginx try its next peer, unless `ws_handoff_next_upstream` says otherwise.
    pub fn refuse(self, status: StatusCode) -> Refusal {
        let error = (status.as_u16() < 200 || status.as_u16() > 599)
            .then_some(AnswerError::NotARefusal(status));
        Refusal { offer: self, answer: Answer::new(status), error }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("uri", self.uri())
            .field("client_addr", &self.client_addr())
            .field("offers_descriptor", &self.offers_descriptor())
            .finish_non_exhaustive()
    }
}

/// A 101 in the making.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Acceptance {
    offer: Offer,
    answer: Answer,
    protocol: Option<String>,
    compression: Option<Agreement>,
    carries_tls: bool,
    error: Option<AnswerError>,
}

impl Acceptance {
    /// Chooses a subprotocol. One that is not among [`Offer::subprotocols`] is passed over: a client that did not offer it
    /// would have to fail the connection (RFC 6455 4.1).
    pub fn protocol(mut self, name: &str) -> Acceptance {
        if self.offer.subprotocols().any(|offered| offered == name) {
            self.protocol = Some(name.to_owned());
        }
        self
    }

    /// Agrees to permessage-deflate (RFC 7692) if the client offers it, without context takeover. For
    /// [`send_detached`](Self::send_detached) and an [`Engine`](crate::engine::Engine), which compresses: fastwebsockets does
    /// not, and with [`send`](Self::send) nothing is agreed to.
    pub fn compress(mut self) -> Acceptance {
        let offers = self.offer.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS);
        self.compression =
            handoff_websocket::negotiate(offers.iter().map(|value| value.as_bytes()));
        self
    }

    /// Takes the TLS session along with a client that speaks TLS, where nginx offers it: for
    /// [`send_detached`](Self::send_detached) and an [`Engine`](crate::engine::Engine), which carries the session on. Without
    /// this, with [`send`](Self::send), and from a peer who [is not trusted](Offer::withholds_tls), nginx keeps the session and
    /// tunnels.
    pub fn carry_tls(mut self) -> Acceptance {
        self.carries_tls = true;
        self
    }

    /// Adds a field, `Set-Cookie` for one, for the client. What the handshake itself says is reserved: subprotocols and
    /// extensions have methods of their own.
    pub fn header<N, V>(mut self, name: N, value: V) -> Acceptance
    where
        N: TryInto<HeaderName> + fmt::Debug,
        V: TryInto<HeaderValue>,
    {
        const RESERVED: [HeaderName; 7] = [
            header::CONNECTION,
            header::UPGRADE,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::SEC_WEBSOCKET_ACCEPT,
            header::SEC_WEBSOCKET_EXTENSIONS,
            header::SEC_WEBSOCKET_PROTOCOL,
        ];
        add_header(&mut self.answer, &mut self.error, &RESERVED, name, value);
        self
    }

    /// Sends the 101 and waits for the client: for its socket where it was offered, else it is there at once.
    ///
    /// # Errors
    ///
    /// [`HandoffError`]; the connection to the peer, and whatever came over it, is closed. The same if the future
    /// is dropped. Until the offer that costs the client nothing; after it, nginx hangs up on the client. A 101 that
    /// cannot be made ([`HandoffError::Answer`]) is answered 500 instead, and one too many
    /// ([`HandoffError::Full`]) 503.
    pub async fn send(mut self) -> Result<Client, HandoffError> {
        self.compression = None;
        self.carries_tls = false;
        let (arrived, request) = self.arrive().await?;
        let stream = match arrived {
            Arrived::Descriptor(taken) => taken.attach()?,
            Arrived::Here(socket, early) => ClientStream::new(socket, early),
        };
        Ok(Client::new(stream, request))
    }

    /// The same for a client that is not to be served by this runtime: an [`Engine`](crate::engine::Engine) has an epoll of
    /// its own.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_detached(self) -> Result<DetachedClient, HandoffError> {
        let (arrived, request) = self.arrive().await?;
        let (owned, early, tls) = match arrived {
            Arrived::Descriptor(taken) => taken.detach(),
            Arrived::Here(socket, early) => {
                let fd = socket.into_fd();
                (
                    Owned::new(
                        fd.map_err(|source| HandoffError::Client { call: "epoll_ctl", source })?,
                    ),
                    early,
                    None,
                )
            }
        };
        Ok(DetachedClient::new(owned, early, request, tls))
    }

    async fn arrive(mut self) -> Result<(Arrived, Request), HandoffError> {
        let Inner { head, behind_head, mut socket, peer, client_addr, options, permits, reuse } =
            *self.offer.inner;
        if let Some(error) = self.error {
            answer::send_error(socket, &options).await;
            return Err(error.into());
        }
        // A client whose session stays with nginx is tunnelled.
        let way = if head.offers_tls && self.carries_tls && peer.brings_tls {
            Some(Way::FdTls)
        } else {
            head.offers_descriptor.then_some(Way::Fd)
        };
        let handover = if way.is_some() {
            socket.unless_answered(LastWord::Unavailable);
            Some(permits.handovers.try_acquire_owned().map_err(|_| HandoffError::Full)?)
        } else {
            None
        };

        let fields = &mut self.answer.headers;
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(way) = way {
            let keepalive = reuse.as_ref().is_some_and(Reuse::has_room);
            let handoff = match (way, keepalive) {
                (Way::Fd, true) => "fd; keepalive",
                (Way::Fd, false) => "fd",
                (Way::FdTls, true) => "fd-tls; keepalive",
                (Way::FdTls, false) => "fd-tls",
            };
            fields.insert(HANDOFF, HeaderValue::from_static(handoff));
        } else if let Ok(accept) = HeaderValue::from_bytes(&head.handshake.accept) {
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = &self.protocol {
            // It came in a field value.
            if let Ok(value) = HeaderValue::from_str(protocol) {
                fields.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
            }
        }
        if let Some(value) = self.compression.map(Agreement::to_field) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                fields.insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
            }
        }
        let socket = answer::send_upgrade(socket, &self.answer, &options).await?;
        drop((self.answer, permits.pending));

        let (arrived, source) = match socket {
            Socket::Unix(nginx) if way.is_some() => {
                let has_tls = way == Some(Way::FdTls);
                let (taken, behind) = receive::client(&nginx, has_tls, &options).await?;
                if let Some(reuse) = &reuse {
                    reuse.keep(nginx, peer, behind);
                }
                (Arrived::Descriptor(taken), Source::Handoff)
            }
            Socket::Unix(_) => (Arrived::Here(socket, behind_head), Source::Tunnel),
            Socket::Tcp(_) => (Arrived::Here(socket, behind_head), Source::Direct),
        };
        drop(handover);
        let Head { uri, headers, .. } = head;
        let Acceptance { protocol, compression, .. } = self;
        Ok((arrived, Request { uri, headers, client_addr, protocol, compression, source }))
    }
}

/// How an accepted client is there.
enum Arrived {
    /// Its own socket came.
    Descriptor(Taken),
    /// It is the connection that the offer came on; with what came behind the head.
    Here(Socket, Bytes),
}

/// A refusal in the making; awaiting it sends it, or a 500 if it cannot be made.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Refusal {
    offer: Offer,
    answer: Answer,
    error: Option<AnswerError>,
}

impl Refusal {
    /// Adds a field for the client.
    pub fn header<N, V>(mut self, name: N, value: V) -> Refusal
    where
        N: TryInto<HeaderName> + fmt::Debug,
        V: TryInto<HeaderValue>,
    {
        const RESERVED: [HeaderName; 3] =
            [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        add_header(&mut self.answer, &mut self.error, &RESERVED, name, value);
        self
    }

    /// Sets the body; `Content-Length` follows it. Not sent with 204 and 304.
    pub fn body(mut self, body: impl Into<Bytes>) -> Refusal {
        self.answer.body = body.into();
        self
    }
}

impl IntoFuture for Refusal {
    type Output = Result<(), AnswerError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Inner { mut socket, options, permits: _permits, .. } = *self.offer.inner;
            if let Some(error) = self.error {
                answer::send_error(socket, &options).await;
                return Err(error);
            }
            let Some(mut socket) = socket.take() else {
                return Ok(());
            };
            answer::send_last(&mut socket, self.answer, options.answer_timeout).await
        })
    }
}

const HANDOFF: HeaderName = HeaderName::from_static("handoff");

pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .flat_map(|value| tokens(value.as_bytes()))
        .filter_map(|token| std::str::from_utf8(token).ok())
}

fn add_header<N, V>(
    answer: &mut Answer,
    error: &mut Option<AnswerError>,
    reserved: &[HeaderName],
    name: N,
    value: V,
) where
    N: TryInto<HeaderName> + fmt::Debug,
    V: TryInto<HeaderValue>,
{
    let shown = format!("{name:?}");
    match (name.try_into(), value.try_into()) {
        (Ok(name), Ok(_)) if name == HANDOFF || reserved.contains(&name) => {
            error.get_or_insert(AnswerError::ReservedField(name));
        }
        (Ok(name), Ok(value)) => {
            if answer.headers.try_append(name, value).is_err() {
                error.get_or_insert(AnswerError::InvalidField(shown));
            }
        }
        _ => {
            error.get_or_insert(AnswerError::InvalidField(shown));
        }
    }
}
