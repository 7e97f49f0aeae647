//! Which extension is used: permessage-deflate or none (RFC 6455 section 9.1, RFC 7692 section 7.1).

use core::fmt::Write as _;

/// permessage-deflate as it was agreed on for a connection, without context takeover either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    server_window_bits: u8,
    /// Whether the client asked for a limit, which has to be answered.
    is_limited: bool,
}

impl Agreement {
    /// The base-2 logarithm of the window that the server compresses with, in bytes: 9 to 15.
    #[must_use]
    pub fn server_window_bits(self) -> u8 {
        self.server_window_bits
    }

    /// The value of `Sec-WebSocket-Extensions` in the answer.
    #[must_use]
    pub fn to_field(self) -> String {
        let mut field = format!("{NAME}; {SERVER_NO_CONTEXT}; {CLIENT_NO_CONTEXT}");
        if self.is_limited {
            // Writing to a string cannot fail.
            let _ = write!(field, "; {SERVER_BITS}={}", self.server_window_bits);
        }
        field
    }
}

/// The first acceptable one of the offers in the values of a request's `Sec-WebSocket-Extensions` fields, in their order.
///
/// `None` if there is none: of this extension, with each parameter known, valid and at most once. Declined as well is
/// `server_max_window_bits=8`, which zlib cannot keep. `client_max_window_bits` is not answered: any window is inflated.
///
/// ```
/// # use handoff_websocket::negotiate;
/// let fields: [&[u8]; 1] = [b"permessage-deflate; client_max_window_bits; server_max_window_bits=10"];
/// let agreement = negotiate(fields.into_iter()).map(|agreement| agreement.to_field());
/// let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10";
/// assert_eq!(agreement.as_deref(), Some(answer));
/// ```
pub fn negotiate<'f>(fields: impl Iterator<Item = &'f [u8]>) -> Option<Agreement> {
    fields.flat_map(|field| split(field, b',')).find_map(accept)
}

/// zlib's smallest window for a raw stream.
pub(crate) const MIN_WINDOW_BITS: u8 = 9;
pub(crate) const MAX_WINDOW_BITS: u8 = 15;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";

fn accept(offer: &[u8]) -> Option<Agreement> {
    let mut parts = split(offer, b';');
    if trim(parts.next()?) != NAME.as_bytes() {
        return None;
    }
    let [mut server_no_context, mut client_no_context, mut client_bits] = [false; 3];
    let mut server_bits = None;
    for part in parts {
        let (name, value) = parameter(part)?;
        let is_repeated = match name {
            _ if name == SERVER_NO_CONTEXT.as_bytes() => {
                none(value)?;
                core::mem::replace(&mut server_no_context, true)
            }
            _ if name == CLIENT_NO_CONTEXT.as_bytes() => {
                none(value)?;
                core::mem::replace(&mut client_no_context, true)
            }
            _ if name == SERVER_BITS.as_bytes() => {
                let bits = window_bits(&value?).filter(|&bits| bits >= MIN_WINDOW_BITS)?;
                server_bits.replace(bits).is_some()
            }
            _ if name == CLIENT_BITS.as_bytes() => {
                if let Some(value) = value {
                    window_bits(&value)?;
                }
                core::mem::replace(&mut client_bits, true)
            }
            _ => return None,
        };
        if is_repeated {
            return None;
        }
    }
    Some(Agreement {
        server_window_bits: server_bits.unwrap_or(MAX_WINDOW_BITS),
        is_limited: server_bits.is_some(),
    })
}

fn none(value: Option<Vec<u8>>) -> Option<()> {
    value.is_none().then_some(())
}

/// 8 to 15, without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match *value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// A parameter's name, and its value without quotation marks (RFC 6455 section 9.1: the value must be a token even so).
fn parameter(part: &[u8]) -> Option<(&[u8], Option<Vec<u8>>)> {
    let Some(equals) = part.iter().position(|&byte| byte == b'=') else {
        return Some((trim(part), None));
    };
    let (name, value) = part.split_at_checked(equals)?;
    let value = trim(value.get(1..)?);
    let value = match value.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?,
        None => value.to_vec(),
    };
    Some((trim(name), Some(value)))
}

/// What is quoted, if nothing follows the closing mark.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(value),
            b'\\' => value.push(*bytes.next()?),
            &byte => value.push(byte),
        }
    }
}

/// The parts of `list` between separators that are not quoted.
fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |&byte| {
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && byte == b'\\' {
            is_escaped = true;
        } else if byte == b'"' {
            is_quoted = !is_quoted;
        }
        byte == separator && !is_quoted
    })
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}
