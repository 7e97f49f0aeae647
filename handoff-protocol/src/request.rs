//! The request head that nginx sends to a backend.
//!
//! nginx's side writes it ([`RequestHead`]): without allocation, measured first and then written into a
//! buffer of the caller's. This is where it is decided which of a client's fields a backend may see. The
//! backend's side reads it ([`parse_request`]).

use crate::field::{
    FieldName, HANDOFF, Way, is_valid_name, is_valid_value, same_field_name, tokens, way_v1,
};

/// The head of the request to a backend.
///
/// Three kinds of fields go into it, in this order: the ones that the protocol itself needs (`Host`,
/// `Upgrade`, `Connection`, `Handoff`), the ones that nginx sets, and what is left of the client's. Left out
/// of the client's are all of the first two kinds (by [`same_field_name`]), what is meant for one hop only
/// or describes a body (RFC 9110 section 7.6.1, and what `proxy_pass` removes), what the client's own
/// `Connection` nominates, and what would make the head unreadable.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a, F> {
    /// The request target in origin form, escaped. Bytes above ASCII are written percent-encoded.
    pub target: &'a [u8],
    /// The value of `Host`.
    pub host: &'a [u8],
    /// The client's fields, in order.
    pub client_fields: F,
    /// Fields set by nginx, `X-Real-IP` for one: name and value. The client's fields of that name are
    /// dropped; where the value is empty, that is all.
    pub set_fields: &'a [(&'a [u8], &'a [u8])],
    /// How nginx can hand the client over by this connection, if it can: adds `Handoff: fd; v=1` or `Handoff: fd-tls; v=1`.
    pub offer: Option<Way>,
}

impl<'a, F> RequestHead<'a, F>
where
    F: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    /// The exact length in bytes of what [`encode`](Self::encode) writes.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode), but for the length of a buffer.
    pub fn encoded_len(&self) -> Result<usize, RequestHeadError> {
        let mut counter = Counter(0);
        self.write(&mut counter)?;
        Ok(counter.0)
    }

    /// Writes the head, up to and including the empty line, into the start of `out`; returns its length.
    ///
    /// # Errors
    ///
    /// [`RequestHeadError`]; `out` may then be partly written.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, RequestHeadError> {
        let room = out.len();
        let mut slice = Slice(out);
        self.write(&mut slice)?;
        Ok(room - slice.0.len())
    }

    fn write(&self, sink: &mut impl Sink) -> Result<(), RequestHeadError> {
        if !is_valid_target(self.target) {
            return Err(RequestHeadError::Target);
        }
        sink.put(b"GET ")?;
        put_target(sink, self.target)?;
        sink.put(b" HTTP/1.1\r\n")?;
        check_value(b"Host", self.host)?;
        put_field(sink, b"Host", self.host)?;
        put_field(sink, b"Upgrade", b"websocket")?;
        put_field(sink, b"Connection", b"Upgrade")?;
        if let Some(way) = self.offer {
            put_field(sink, HANDOFF.as_bytes(), way.offer())?;
        }
        for &(name, value) in self.set_fields {
            put_set_field(sink, name, value)?;
        }
        let nominated = Nominated::by(self.client_fields.clone())?;
        for (name, value) in self.client_fields.clone() {
            let set_by_nginx = self.set_fields.iter().any(|(set, _)| same_field_name(set, name));
            // A client's field that cannot be written is dropped instead of failing the request, as nginx
            // would have passed over it too: it refuses CR, LF and NUL itself, and `ignore_invalid_headers`
            // drops odd names unless it is off.
            let is_valid =
                is_valid_name(name) && is_valid_value(value) && !poses_as_validated(name);
            if is_valid && !set_by_nginx && !is_hop_by_hop(name) && !nominated.contains(name) {
                put_field(sink, name, value)?;
            }
        }
        sink.put(b"\r\n")
    }
}

/// Why a request head cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestHeadError {
    /// The target is empty or contains a space or a control byte.
    #[error("the request target is empty or contains a space or a control character")]
    Target,
    /// A value set by nginx contains a control byte other than the tab.
    #[error("the value of \"{0}\" contains a control character")]
    Value(FieldName),
    /// The name of a field set by nginx is not a token.
    #[error("\"{0}\" is not a valid field name")]
    Name(FieldName),
    /// A field that this protocol writes itself was set.
    #[error("\"{0}\" is written by the handoff itself and cannot be set")]
    Reserved(FieldName),
    /// The client's `Connection` nominates too many fields.
    #[error("client sent more than {limit} options in \"Connection\"")]
    TooManyConnectionOptions {
        /// The largest number accepted.
        limit: usize,
    },
    /// The buffer is shorter than the head.
    #[error("the buffer is too small for the request head")]
    BufferTooSmall,
}

impl RequestHeadError {
    /// The HTTP status for the client: 400 where its own bytes can be the cause, else 500.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Target | Self::Value(_) | Self::TooManyConnectionOptions { .. } => 400,
            Self::Name(_) | Self::Reserved(_) | Self::BufferTooSmall => 500,
        }
    }
}

/// Whether a field is written by [`RequestHead`] itself, or would announce a body, and so must not be among
/// its `set_fields` with a value (any `_` standing for `-`). Lets a configuration be refused early.
#[must_use]
pub fn is_reserved_field(name: &[u8]) -> bool {
    const RESERVED: [&str; 6] =
        ["Host", "Upgrade", "Connection", HANDOFF, "Content-Length", "Transfer-Encoding"];
    RESERVED.iter().any(|reserved| same_field_name(reserved.as_bytes(), name))
}

/// Whether a field could be among the `set_fields` of a [`RequestHead`]; of its value, what a configuration tells.
///
/// # Errors
///
/// [`RequestHeadError::Reserved`], [`RequestHeadError::Name`] or [`RequestHeadError::Value`].
pub fn check_set_field(name: &[u8], value: &[u8]) -> Result<(), RequestHeadError> {
    if is_reserved_field(name) {
        return Err(RequestHeadError::Reserved(FieldName::new(name)));
    }
    if !is_valid_name(name) {
        return Err(RequestHeadError::Name(FieldName::new(name)));
    }
    check_value(name, value)
}

/// Whether `value` can be that of a field at all. Apart from [`check_set_field`] for `Host`, which is reserved among the
/// `set_fields` but has a place of its own in a [`RequestHead`].
///
/// # Errors
///
/// [`RequestHeadError::Value`].
pub fn check_value(name: &[u8], value: &[u8]) -> Result<(), RequestHeadError> {
    if is_valid_value(value) { Ok(()) } else { Err(RequestHeadError::Value(FieldName::new(name))) }
}

/// A request head as the backend reads it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'h, 'b> {
    /// Length of the head in bytes, the empty line included.
    pub len: usize,
    /// The method: always `GET`.
    pub method: &'b str,
    /// The request target.
    pub target: &'b str,
    /// All fields, in order.
    pub fields: &'h [httparse::Header<'b>],
    /// Whether the answer may ask for the client's descriptor.
    pub offers_descriptor: bool,
    /// Whether the answer may ask for the descriptor and the TLS session of a client.
    pub offers_tls: bool,
}

/// Reads a request head from the start of `buf`; `None` if there is more to come.
///
/// `headers` is scratch space, and its length the largest number of fields accepted. `Handoff` may list
/// several ways to hand over, as later versions will; `offers_descriptor` and `offers_tls` say which of those known here.
///
/// # Errors
///
/// [`RequestParseError`]. Answer it with [its status](RequestParseError::status) rather than by closing: the
/// client can be at fault, and nginx would count a connection that closes without an answer as a failure
/// of this backend.
pub fn parse_request<'h, 'b>(
    buf: &'b [u8],
    headers: &'h mut [httparse::Header<'b>],
) -> Result<Option<Request<'h, 'b>>, RequestParseError> {
    let limit = headers.len();
    let mut request = httparse::Request::new(headers);
    let len = match request.parse(buf) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestParseError::TooManyFields { limit });
        }
        Err(error) => return Err(RequestParseError::Syntax(error)),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Ok(None);
    };
    let fields: &'h [httparse::Header<'b>] = request.headers;
    if version != 1 {
        return Err(RequestParseError::Version);
    }
    if method != "GET" {
        return Err(RequestParseError::Method);
    }
    if fields.iter().any(announces_body) {
        return Err(RequestParseError::Body);
    }
    let offers = |way| {
        fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(HANDOFF))
            .any(|field| tokens(field.value).any(|element| way_v1(element) == Some(way)))
    };
    let (offers_descriptor, offers_tls) = (offers(Way::Fd), offers(Way::FdTls));
    Ok(Some(Request { len, method, target, fields, offers_descriptor, offers_tls }))
}

/// Why what a backend received is no request head of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestParseError {
    /// Not HTTP/1.1 syntax.
    #[error("malformed request head: {0}")]
    Syntax(httparse::Error),
    /// More fields than there is room for.
    #[error("the request has more than {limit} fields")]
    TooManyFields {
        /// The number of headers given to [`parse_request`].
        limit: usize,
    },
    /// Not HTTP/1.1.
    #[error("the request is not HTTP/1.1")]
    Version,
    /// The method is not GET.
    #[error("the request's method is not GET")]
    Method,
    /// A body follows, which would be taken for the offer.
    #[error("the request has a body")]
    Body,
}

impl RequestParseError {
    /// The HTTP status to refuse the request with.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Syntax(_) | Self::Body => 400,
            Self::Method => 405,
            Self::TooManyFields { .. } => 431,
            Self::Version => 505,
        }
    }
}

fn announces_body(field: &httparse::Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("Transfer-Encoding")
        || (field.name.eq_ignore_ascii_case("Content-Length") && field.value != b"0")
}

/// Fields of a client that are for nginx alone: those RFC 9110 section 7.6.1 wants removed, those that
/// belong to a body, which an opening handshake does not have, and what nginx writes itself.
fn is_hop_by_hop(name: &[u8]) -> bool {
    const HOP_BY_HOP: [&str; 6] =
        ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Expect", "HTTP2-Settings"];
    is_reserved_field(name) || HOP_BY_HOP.iter().any(|hop| same_field_name(hop.as_bytes(), name))
}

/// Most options a client may list in its `Connection` fields.
///
/// Browsers send one or two. The limit lets the list stand on the stack, and keeps a head full of options and
/// fields from costing the worker their product in comparisons.
const MAX_CONNECTION_OPTIONS: usize = 32;

/// The fields that a client's `Connection` declares to be for one hop only.
struct Nominated<'a> {
    names: [&'a [u8]; MAX_CONNECTION_OPTIONS],
    len: usize,
}

impl<'a> Nominated<'a> {
    fn by(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, RequestHeadError> {
        let mut nominated = Self { names: [&[]; MAX_CONNECTION_OPTIONS], len: 0 };
        for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case(b"Connection")) {
            for option in tokens(value).filter(|option| !is_protected(option)) {
                let slot = nominated.names.get_mut(nominated.len);
                *slot.ok_or(RequestHeadError::TooManyConnectionOptions {
                    limit: MAX_CONNECTION_OPTIONS,
                })? = option;
                nominated.len += 1;
            }
        }
        Ok(nominated)
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.names.iter().take(self.len).any(|option| option.eq_ignore_ascii_case(name))
    }
}

/// The WebSocket's own fields are end-to-end: nginx judged the handshake by them, and a backend that answers as
/// an ordinary WebSocket server must find what nginx found. A nomination does not remove them.
fn is_protected(option: &[u8]) -> bool {
    let prefix = b"Sec-WebSocket-";
    option.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Another spelling (`Sec_WebSocket_Key`) of a field that nginx has validated: backends that fold `_` into `-`, as CGI
/// does, would take one for the other.
fn poses_as_validated(name: &[u8]) -> bool {
    let prefix = b"Sec-WebSocket-";
    let start = name.get(..prefix.len()).unwrap_or_default();
    same_field_name(start, prefix) && name.contains(&b'_')
}

/// A space would end the target early, a control byte the head.
fn is_valid_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|&byte| byte != b' ' && !byte.is_ascii_control())
}

/// Percent-encodes what is not ASCII. nginx passes such bytes on as they came (`unparsed_uri`), but no URI may
/// contain them (RFC 3986 section 2), and parsers differ in what they do with them.
fn put_target(sink: &mut impl Sink, target: &[u8]) -> Result<(), RequestHeadError> {
    for run in target.chunk_by(|a, b| a.is_ascii() == b.is_ascii()) {
        if run.is_ascii() {
            sink.put(run)?;
        } else {
            run.iter().try_for_each(|&byte| sink.put(&[b'%', hex(byte >> 4), hex(byte & 15)]))?;
        }
    }
    Ok(())
}

fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'A' + (digit - 10) }
}

fn put_set_field(sink: &mut impl Sink, name: &[u8], value: &[u8]) -> Result<(), RequestHeadError> {
    if value.is_empty() {
        return Ok(());
    }
    check_set_field(name, value)?;
    put_field(sink, name, value)
}

fn put_field(sink: &mut impl Sink, name: &[u8], value: &[u8]) -> Result<(), RequestHeadError> {
    [name, b": ", value, b"\r\n"].into_iter().try_for_each(|part| sink.put(part))
}

/// Where a head is written to. Measuring and writing share one writer, so that they cannot disagree.
trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), RequestHeadError>;
}

struct Counter(usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) -> Result<(), RequestHeadError> {
        self.0 = self.0.checked_add(bytes.len()).ok_or(RequestHeadError::BufferTooSmall)?;
        Ok(())
    }
}

/// The room that is left.
struct Slice<'o>(&'o mut [u8]);

impl Sink for Slice<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), RequestHeadError> {
        let room = core::mem::take(&mut self.0);
        let (place, rest) =
            room.split_at_mut_checked(bytes.len()).ok_or(RequestHeadError::BufferTooSmall)?;
        place.copy_from_slice(bytes);
        self.0 = rest;
        Ok(())
    }
}
