//! Reading the request head of one connection: bounded in bytes and time, and answered at once where it is no offer.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use handoff_protocol::{OpeningHandshake, RequestLine, parse_request, validate};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::error::AcceptError;
use crate::offer::answer::{self, Answer};
use crate::options::OfferOptions;
use crate::receive;
use crate::stream::Socket;

/// What a request head said.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) offers_descriptor: bool,
    /// The same of a client that speaks TLS, with its session.
    pub(crate) offers_tls: bool,
    pub(crate) handshake: OpeningHandshake,
}

impl Head {
    /// The client's address: what a proxy says it is, if the connection comes from one.
    ///
    /// Whoever may connect to the Unix socket is trusted to be one, and on TCP this very host is.
    pub(crate) fn client_addr(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        let told = || {
            let value = self.headers.get("x-real-ip")?.to_str().ok()?;
            let address: IpAddr = value.trim().parse().ok()?;
            Some(address.to_canonical())
        };
        match peer {
            Some(address) if !address.is_loopback() => Some(address),
            _ => told().or(peer),
        }
    }
}

/// Reads the head; also returns the bytes behind it. Where there is no offer in it, the peer gets its answer here.
///
/// `begun` are bytes of it that have been read already.
pub(crate) async fn read(
    socket: &mut Socket,
    begun: Bytes,
    options: &OfferOptions,
) -> Result<(Head, Bytes), AcceptError> {
    let reading = read_patiently(socket, &begun, options.max_head);
    let error = match timeout(options.head_timeout, reading).await {
        Ok(Ok(head)) => return Ok(head),
        Ok(Err(error)) => error,
        Err(_) => AcceptError::Slow(options.head_timeout),
    };
    if let Some(refusal) = answer_to(&error) {
        // The error that counts is the one that led here.
        let _ = answer::send_last(socket, refusal, options.answer_timeout).await;
    }
    Err(error)
}

/// Most fields in a head; nginx passes on what it accepted, and that is 4 buffers of 8 kB unless configured higher.
const MAX_FIELDS: usize = 128;

async fn read_patiently(
    socket: &mut Socket,
    begun: &[u8],
    max_head: usize,
) -> Result<(Head, Bytes), AcceptError> {
    let mut buf = vec![0; max_head.min(4096).max(begun.len())];
    for (to, from) in buf.iter_mut().zip(begun) {
        *to = *from;
    }
    let mut filled = begun.len();
    let mut searched = 0;
    let mut parse_at = 0;
    loop {
        // The parser starts over each time: call it when the head can be complete, and as the head doubles, so that
        // a head that comes byte by byte costs its length and not its square.
        let read = buf.get(..filled).unwrap_or_default();
        if filled >= parse_at || ends_head(read.get(searched..).unwrap_or_default()) {
            parse_at = 2 * filled;
            if let Some((mut head, len)) = parse(read)? {
                // Over TCP the kernel would swallow the descriptor, whoever says that it follows.
                let is_unix = matches!(socket, Socket::Unix(_));
                head.offers_descriptor &= is_unix;
                head.offers_tls &= is_unix;
                let behind = Bytes::copy_from_slice(read.get(len..).unwrap_or_default());
                if (head.offers_descriptor || head.offers_tls) && !behind.is_empty() {
                    return Err(AcceptError::Invalid("bytes came before the answer"));
                }
                return Ok((head, behind));
            }
        }
        if filled >= max_head {
            return Err(AcceptError::TooLarge(max_head));
        }
        if filled == buf.len() {
            buf.resize(max_head.min(2 * filled), 0);
        }
        let room = buf.get_mut(filled..).unwrap_or_default();
        let len = read_some(socket, room).await?;
        if len == 0 {
            return Err(AcceptError::Left(None));
        }
        searched = filled.saturating_sub(3);
        filled += len;
    }
}

/// A Unix connection is read with recvmsg(2) from its first byte: nothing that could hold a descriptor is ever read
/// without looking for one.
async fn read_some(socket: &mut Socket, room: &mut [u8]) -> Result<usize, AcceptError> {
    let left = |error: io::Error| AcceptError::Left(Some(error));
    match socket {
        Socket::Tcp(tcp) => tcp.read(room).await.map_err(left),
        Socket::Unix(unix) => {
            let received = receive::receive(unix, room).await.map_err(left)?;
            if received.truncated || !received.descriptors.is_empty() {
                return Err(AcceptError::Invalid("a descriptor came before the answer"));
            }
            Ok(received.len)
        }
    }
}

fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn parse(buf: &[u8]) -> Result<Option<(Head, usize)>, AcceptError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Some(request) = parse_request(buf, &mut fields)? else {
        return Ok(None);
    };
    let line = RequestLine { method: request.method.as_bytes(), version: (1, 1), has_body: false };
    let pairs = request.fields.iter().map(|field| (field.name.as_bytes(), field.value));
    let handshake = validate(&line, pairs).map_err(AcceptError::Handshake)?;

    let uri = request.target.parse().map_err(|_| AcceptError::Invalid("the target is no URI"))?;
    let mut headers = HeaderMap::with_capacity(request.fields.len());
    for field in request.fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(AcceptError::Invalid("a field is not valid"));
        };
        headers
            .try_append(name, value)
            .map_err(|_| AcceptError::Invalid("there are too many fields"))?;
    }
    let handoff_protocol::Request { offers_descriptor, offers_tls, len, .. } = request;
    Ok(Some((Head { uri, headers, offers_descriptor, offers_tls, handshake }, len)))
}

/// What to tell a peer whose head is no offer; nothing to one that has left.
fn answer_to(error: &AcceptError) -> Option<Answer> {
    let (status, field) = match error {
        AcceptError::Slow(_) => (408, None),
        AcceptError::TooLarge(_) => (431, None),
        AcceptError::Malformed(error) => {
            let allow = (error.status() == 405).then_some(("Allow", "GET"));
            (error.status(), allow)
        }
        AcceptError::Invalid(_) => (400, None),
        AcceptError::Handshake(error) => (error.status(), error.response_field()),
        AcceptError::Forbidden { .. } | AcceptError::Unidentified { .. } => (403, None),
        AcceptError::Closed
        | AcceptError::Accept(_)
        | AcceptError::Left(_)
        | AcceptError::Displaced
        | AcceptError::Internal => return None,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Some(Answer::refusal(status, field))
}

/// Answers a peer that may not connect at all. Its head is awaited for a moment: closed before it has written that, the
/// peer would take the refusal for a failed connection.
pub(crate) async fn turn_away(socket: &mut Socket, error: &AcceptError, options: &OfferOptions) {
    let patience = options.head_timeout.min(Duration::from_secs(1));
    let _ = timeout(patience, read_patiently(socket, &[], options.max_head)).await;
    if let Some(refusal) = answer_to(error) {
        let _ = answer::send_last(socket, refusal, options.answer_timeout).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Head {
        let text = format!(
            "GET /a?b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        parse(text.as_bytes()).expect("valid").expect("complete").0
    }

    #[test]
    fn the_proxys_word_counts_only_from_a_proxy() {
        let told: IpAddr = "198.51.100.7".parse().expect("address");
        let direct: IpAddr = "203.0.113.9".parse().expect("address");
        let local: IpAddr = "127.0.0.1".parse().expect("address");
        let head_told = head("X-Real-IP: 198.51.100.7\r\n");
        assert_eq!(head_told.client_addr(None), Some(told));
        assert_eq!(head_told.client_addr(Some(local)), Some(told));
        assert_eq!(head_told.client_addr(Some(direct)), Some(direct));
        assert_eq!(head("").client_addr(None), None);
        assert_eq!(head("").client_addr(Some(local)), Some(local));
        let mapped = head("X-Real-IP: ::ffff:198.51.100.7\r\n");
        assert_eq!(mapped.client_addr(None), Some(told), "one client, one address");
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_are_judged(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let _ = parse(&bytes);
            let mut fields = b"GET /".to_vec();
            fields.extend(&bytes);
            fields.extend(b"\r\n\r\n");
            let _ = parse(&fields);
        }
    }

    #[test]
    fn a_head_end_is_found_across_reads() {
        assert!(ends_head(b"\n\r\n"));
        assert!(ends_head(b"a\n\nb"));
        assert!(!ends_head(b"\r\n\r"));
    }
}
