//! Writing an answer to a peer: its head, the body of a refusal, and an end that does not destroy either.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use bytes::Bytes;
use handoff_protocol::encode_answer;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use nix::sys::socket::{MsgFlags, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::AnswerError;
use crate::options::OfferOptions;
use crate::stream::Socket;

/// A status, fields in order, and a body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: StatusCode) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn refusal(
        status: StatusCode,
        field: Option<(&'static str, &'static str)>,
    ) -> Answer {
        let mut answer = Answer::new(status);
        if let Some((name, value)) = field {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                answer.headers.insert(name, HeaderValue::from_static(value));
            }
        }
        answer
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), AnswerError> {
        let reason = self.status.canonical_reason().unwrap_or("");
        let fields = self.headers.iter().map(|(name, value)| (spelling(name), value.as_bytes()));
        Ok(encode_answer(out, self.status.as_u16(), reason, fields)?)
    }
}

/// A connection whose peer waits for an answer. Dropped without one, it answers on the way out, as far as that goes
/// without waiting: a connection that is just closed counts in nginx as a failure of this peer (`max_fails`), and no
/// client may be able to bring that about.
#[derive(Debug)]
pub(crate) struct Unanswered {
    socket: Option<Socket>,
    last_word: LastWord,
}

/// What a dropped connection's peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// 503: there is no room, or the listener ends; another peer may have room.
    Unavailable,
    /// 500: the request was at fault, or the code that handled it. Another peer would fare no better.
    Failed,
}

impl Unanswered {
    pub(crate) fn new(socket: Socket) -> Unanswered {
        Unanswered { socket: Some(socket), last_word: LastWord::Unavailable }
    }

    pub(crate) fn socket(&mut self) -> Option<&mut Socket> {
        self.socket.as_mut()
    }

    /// For whoever answers now.
    pub(crate) fn take(&mut self) -> Option<Socket> {
        self.socket.take()
    }

    pub(crate) fn unless_answered(&mut self, last_word: LastWord) {
        self.last_word = last_word;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        const UNAVAILABLE: &[u8] =
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

        if let Some(socket) = &self.socket {
            let answer = match self.last_word {
                LastWord::Unavailable => UNAVAILABLE,
                LastWord::Failed => ERROR,
            };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(socket.as_fd().as_raw_fd(), answer, flags);
        }
    }
}

/// Writes the head of a 101.
pub(crate) async fn send_upgrade(
    mut socket: Unanswered,
    answer: &Answer,
    options: &OfferOptions,
) -> Result<Socket, AnswerError> {
    let mut bytes = Vec::new();
    if let Err(error) = answer.encode(&mut bytes) {
        send_error(socket, options).await;
        return Err(error);
    }
    let mut socket = socket.take().ok_or(io::ErrorKind::NotConnected).map_err(io::Error::from)?;
    write(&mut socket, &bytes, options.answer_timeout).await?;
    Ok(socket)
}

/// Writes a 500 in place of an answer that cannot be made.
pub(crate) async fn send_error(mut socket: Unanswered, options: &OfferOptions) {
    if let Some(mut socket) = socket.take() {
        let answer = Answer::new(StatusCode::INTERNAL_SERVER_ERROR);
        // The error that counts is the one that led here.
        let _ = send_last(&mut socket, answer, options.answer_timeout).await;
    }
}

/// Writes a refusal, after which the connection is of no use.
pub(crate) async fn send_last(
    socket: &mut Socket,
    mut answer: Answer,
    limit: Duration,
) -> Result<(), AnswerError> {
    // A 204 or 304 has no body, and RFC 9110 8.6 forbids a 204 to announce one.
    let has_body = !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_body {
        answer.headers.insert(http::header::CONTENT_LENGTH, answer.body.len().into());
    }
    answer.headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    let mut bytes = Vec::new();
    if let Err(error) = answer.encode(&mut bytes) {
        write(socket, ERROR, limit).await?;
        return Err(error);
    }
    if has_body {
        bytes.extend_from_slice(&answer.body);
    }
    write(socket, &bytes, limit).await?;
    linger(socket).await;
    Ok(())
}

const ERROR: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

async fn write(socket: &mut Socket, bytes: &[u8], limit: Duration) -> Result<(), AnswerError> {
    timeout(limit, socket.write_all(bytes)).await.map_err(|_| AnswerError::Slow(limit))??;
    Ok(())
}

/// Closing a TCP socket with unread bytes in it makes the kernel send a reset, which can overtake the answer: read what
/// the peer still sends, for a moment. A Unix socket's peer can read the answer in any case.
async fn linger(socket: &mut Socket) {
    const PATIENCE: Duration = Duration::from_secs(1);
    const MOST_BYTES: usize = 256 * 1024;

    let Socket::Tcp(tcp) = socket else {
        return;
    };
    if tcp.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let mut buf = vec![0; 4096];
        let mut total = 0;
        while total < MOST_BYTES {
            match tcp.read(&mut buf).await {
                Ok(0) | Err(_) => return,
                Ok(len) => total += len,
            }
        }
    };
    let _ = timeout(PATIENCE, discard).await;
}

/// Field names as RFC 6455 spells them: some clients compare them as they are, against the rules.
fn spelling(name: &HeaderName) -> &str {
    match name.as_str() {
        "upgrade" => "Upgrade",
        "connection" => "Connection",
        "content-length" => "Content-Length",
        "sec-websocket-accept" => "Sec-WebSocket-Accept",
        "sec-websocket-protocol" => "Sec-WebSocket-Protocol",
        "sec-websocket-version" => "Sec-WebSocket-Version",
        "handoff" => "Handoff",
        other => other,
    }
}
