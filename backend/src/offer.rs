//! An offer and its two answers: accept, which gives a [`Client`], or refuse.

pub(crate) mod answer;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use handoff_protocol::tokens;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use tokio::sync::OwnedSemaphorePermit;

use self::answer::Answer;
use crate::error::{AnswerError, HandoffError};
use crate::head::Head;
use crate::options::OfferOptions;
use crate::peer::PeerCredentials;
use crate::receive;
use crate::stream::{ClientStream, Socket};
use crate::websocket::{Client, Source};

/// A WebSocket client that nginx (or, over TCP, the client itself) offers.
///
/// Dropping it closes the connection without an answer: nginx tries its next peer.
pub struct Offer {
    // In one box: an offer is moved about by tasks that live on as connections.
    inner: Box<Inner>,
}

struct Inner {
    head: Head,
    behind_head: Bytes,
    socket: Socket,
    peer: Option<PeerCredentials>,
    client_addr: Option<IpAddr>,
    options: Arc<OfferOptions>,
    permit: OwnedSemaphorePermit,
}

impl Offer {
    pub(crate) fn new(
        (head, behind_head): (Head, Bytes),
        socket: Socket,
        peer: Option<PeerCredentials>,
        options: Arc<OfferOptions>,
        permit: OwnedSemaphorePermit,
    ) -> Offer {
        let client_addr = head.client_addr(socket.peer_ip());
        let inner = Inner { head, behind_head, socket, peer, client_addr, options, permit };
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
        self.inner.peer
    }

    /// The subprotocols that the client offers, most wanted first. Those that are not ASCII are passed over.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        subprotocols(self.headers())
    }

    /// To accept: see [`Acceptance::send`].
    pub fn accept(self) -> Acceptance {
        let answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS);
        Acceptance { offer: self, answer, protocol: None, error: None }
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
    error: Option<AnswerError>,
}

impl Acceptance {
    /// Chooses a subprotocol, one of [`Offer::subprotocols`].
    pub fn protocol(mut self, name: &str) -> Acceptance {
        if self.offer.subprotocols().any(|offered| offered == name) {
            self.protocol = Some(name.to_owned());
        } else {
            self.error.get_or_insert(AnswerError::SubprotocolNotOffered(name.to_owned()));
        }
        self
    }

    /// Adds a field, `Set-Cookie` for one, for the client.
    pub fn header<N, V>(mut self, name: N, value: V) -> Acceptance
    where
        N: TryInto<HeaderName> + fmt::Debug,
        V: TryInto<HeaderValue>,
    {
        const RESERVED: [HeaderName; 6] = [
            header::CONNECTION,
            header::UPGRADE,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::SEC_WEBSOCKET_ACCEPT,
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
    /// is dropped. Until the offer that costs the client nothing; after it, nginx hangs up on the client.
    pub async fn send(mut self) -> Result<Client, HandoffError> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let Inner { head, behind_head, mut socket, client_addr, options, permit, .. } =
            *self.offer.inner;

        let fields = &mut self.answer.headers;
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if head.offers_descriptor {
            fields.insert(HANDOFF, HeaderValue::from_static("fd"));
        } else if let Ok(accept) = HeaderValue::from_bytes(&head.handshake.accept) {
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = &self.protocol {
            let value = HeaderValue::from_str(protocol)
                .map_err(|_| AnswerError::InvalidField(protocol.clone()))?;
            fields.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        answer::send_upgrade(&mut socket, &self.answer, options.answer_timeout).await?;
        drop(self.answer);

        let (stream, source) = match socket {
            Socket::Unix(nginx) if head.offers_descriptor => {
                (receive::client(&nginx, &options).await?, Source::Handoff)
            }
            Socket::Unix(_) => (ClientStream::new(socket, behind_head), Source::Tunnel),
            Socket::Tcp(_) => (ClientStream::new(socket, behind_head), Source::Direct),
        };
        drop(permit);
        Ok(Client::new(stream, source, head.uri, head.headers, client_addr, self.protocol))
    }
}

/// A refusal in the making; awaiting it sends it.
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
            if let Some(error) = self.error {
                return Err(error);
            }
            let mut inner = self.offer.inner;
            answer::send_last(&mut inner.socket, self.answer, inner.options.answer_timeout).await
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
