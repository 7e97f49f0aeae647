//! The WebSocket that a handler gets: the same type whichever way its client came.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::axum::Error;
use ::axum::extract::ws::{self, CloseFrame, Message, Utf8Bytes};
use bytes::Bytes;
use futures_util::sink::{Sink, SinkExt};
use futures_util::stream::{FusedStream, Stream, StreamExt};
use http::HeaderValue;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self};

use crate::stream::ClientStream;
use crate::websocket::{Client, Source};

/// A stream and a sink of axum's [`Message`]s, to be used as axum's own
/// [`WebSocket`](::axum::extract::ws::WebSocket), split included. Pings and closes are answered while it is read.
///
/// Dropping it hangs up.
#[derive(Debug)]
pub struct WebSocket {
    inner: Inner,
    protocol: Option<HeaderValue>,
    source: Source,
}

#[derive(Debug)]
enum Inner {
    Direct(ws::WebSocket),
    Client(WebSocketStream<ClientStream>),
}

impl WebSocket {
    pub(super) fn from_axum(socket: ws::WebSocket) -> WebSocket {
        let protocol = socket.protocol().cloned();
        WebSocket { inner: Inner::Direct(socket), protocol, source: Source::Direct }
    }

    pub(super) async fn from_client(client: Client, config: WebSocketConfig) -> WebSocket {
        let protocol = client.protocol().and_then(|name| HeaderValue::from_str(name).ok());
        let source = client.source();
        let stream = client.into_stream();
        let inner = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        WebSocket { inner: Inner::Client(inner), protocol, source }
    }

    /// The next message; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The connection is lost, or the client has broken the protocol or a limit: the next one is `None`.
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        self.next().await
    }

    /// Sends a message, and waits until the kernel has it.
    ///
    /// # Errors
    ///
    /// The connection is lost or closed.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        SinkExt::send(self, message).await
    }

    /// The subprotocol that was chosen.
    pub fn protocol(&self) -> Option<&HeaderValue> {
        self.protocol.as_ref()
    }

    /// By which way the client came.
    pub fn source(&self) -> Source {
        self.source
    }
}

impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = match &mut self.inner {
            Inner::Direct(socket) => return socket.poll_next_unpin(cx),
            Inner::Client(stream) => stream,
        };
        loop {
            match ready!(stream.poll_next_unpin(cx)) {
                Some(Ok(message)) => {
                    if let Some(message) = to_axum(message) {
                        return Poll::Ready(Some(message));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Error::new(error)))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl FusedStream for WebSocket {
    fn is_terminated(&self) -> bool {
        match &self.inner {
            Inner::Direct(socket) => socket.is_terminated(),
            Inner::Client(stream) => stream.is_terminated(),
        }
    }
}

impl Sink<Message> for WebSocket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.inner {
            Inner::Direct(socket) => socket.poll_ready_unpin(cx),
            Inner::Client(stream) => stream.poll_ready_unpin(cx).map_err(Error::new),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match &mut self.inner {
            Inner::Direct(socket) => socket.start_send_unpin(message),
            Inner::Client(stream) => {
                stream.start_send_unpin(from_axum(message)?).map_err(Error::new)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.inner {
            Inner::Direct(socket) => socket.poll_flush_unpin(cx),
            Inner::Client(stream) => stream.poll_flush_unpin(cx).map_err(Error::new),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.inner {
            Inner::Direct(socket) => socket.poll_close_unpin(cx),
            Inner::Client(stream) => stream.poll_close_unpin(cx).map_err(Error::new),
        }
    }
}

/// `None`: a raw frame, which is not read as such.
fn to_axum(message: tungstenite::Message) -> Option<Result<Message, Error>> {
    // Both kinds of text wrap the same bytes, but have no way into each other that does not look at them.
    let text =
        |text: tungstenite::Utf8Bytes| Utf8Bytes::try_from(Bytes::from(text)).map_err(Error::new);
    Some(match message {
        tungstenite::Message::Text(data) => text(data).map(Message::Text),
        tungstenite::Message::Binary(data) => Ok(Message::Binary(data)),
        tungstenite::Message::Ping(data) => Ok(Message::Ping(data)),
        tungstenite::Message::Pong(data) => Ok(Message::Pong(data)),
        tungstenite::Message::Close(None) => Ok(Message::Close(None)),
        tungstenite::Message::Close(Some(frame)) => text(frame.reason)
            .map(|reason| Message::Close(Some(CloseFrame { code: frame.code.into(), reason }))),
        tungstenite::Message::Frame(_) => return None,
    })
}

fn from_axum(message: Message) -> Result<tungstenite::Message, Error> {
    let text =
        |text: Utf8Bytes| tungstenite::Utf8Bytes::try_from(Bytes::from(text)).map_err(Error::new);
    Ok(match message {
        Message::Text(data) => tungstenite::Message::Text(text(data)?),
        Message::Binary(data) => tungstenite::Message::Binary(data),
        Message::Ping(data) => tungstenite::Message::Ping(data),
        Message::Pong(data) => tungstenite::Message::Pong(data),
        Message::Close(None) => tungstenite::Message::Close(None),
        Message::Close(Some(frame)) => {
            let reason = text(frame.reason)?;
            let frame = tungstenite::protocol::CloseFrame { code: frame.code.into(), reason };
            tungstenite::Message::Close(Some(frame))
        }
    })
}
