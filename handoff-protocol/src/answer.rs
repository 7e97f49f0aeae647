//! The answer of a backend: the head of an HTTP response, by which it asks for the client's descriptor,
//! serves the WebSocket over nginx, or refuses it.
//!
//! nginx's side reads it ([`parse_answer`]), the backend's side writes it ([`encode_answer`]).

use crate::field::{
    FieldName, HANDOFF, Way, has_keepalive, is_valid_name, is_valid_value, tokens, way_v1,
};

/// What a backend wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// 101 with `Handoff: fd` or `Handoff: fd-tls`: the client's descriptor, and for the latter its TLS session.
    Handoff(Way),
    /// 101 without `Handoff`: to speak to the client through nginx, as an ordinary WebSocket server does.
    Tunnel,
    /// Any other status: the client is to get this response.
    Refusal,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'h, 'b> {
    /// Length in bytes up to the head's end, interim responses before it included.
    pub len: usize,
    /// The status: 101, or 200 to 999.
    pub status: u16,
    /// The reason phrase; empty if there is none, or if it contains bytes above ASCII.
    pub reason: &'b [u8],
    /// What the backend wants. Whether it was offered a descriptor at all is for the caller to check.
    pub kind: AnswerKind,
    /// Whether the backend reads another request from this connection once the descriptor is its own (`Handoff: fd;
    /// keepalive`). Only with [`AnswerKind::Handoff`].
    pub keepalive: bool,
    /// All fields, in order. `Handoff` is among them and is not for the client, whatever the status.
    pub fields: &'h [httparse::Header<'b>],
}

/// Reads the head of an answer from the start of `buf`; `None` if there is more to come.
///
/// Interim responses (1xx other than 101) before it are skipped, and say nothing. `headers` is scratch
/// space, and its length the largest number of fields accepted in one head.
///
/// # Errors
///
/// [`AnswerError`]: this is no answer, and the connection is of no further use.
pub fn parse_answer<'h, 'b>(
    buf: &'b [u8],
    headers: &'h mut [httparse::Header<'b>],
) -> Result<Option<AnswerHead<'h, 'b>>, AnswerError> {
    let limit = headers.len();
    let mut len: usize = 0;
    loop {
        let rest = buf.get(len..).unwrap_or_default();
        let mut response = httparse::Response::new(&mut *headers);
        let head_len = match response.parse(rest) {
            Ok(httparse::Status::Complete(head_len)) => head_len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(AnswerError::TooManyFields { limit });
            }
            Err(error) => return Err(AnswerError::Syntax(error)),
        };
        len = len.saturating_add(head_len);
        let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or_default());
        let count = response.headers.len();
        match status {
            0..100 | 1000.. => return Err(AnswerError::Status(status)),
            100 | 102..200 => {}
            101 | 200..1000 => {
                // httparse fills the slots in place, from the first one on.
                let fields = headers.get(..count).unwrap_or_default();
                let (kind, keepalive) = kind(status, fields)?;
                return Ok(Some(AnswerHead {
                    len,
                    status,
                    reason: reason.as_bytes(),
                    kind,
                    keepalive,
                    fields,
                }));
            }
        }
    }
}

/// Appends the head of an answer, up to and including the empty line, to `out`.
///
/// # Errors
///
/// [`AnswerError`] if `status` has not three digits, or if the reason or a field would break the head
/// apart; `out` is then as it was.
pub fn encode_answer<'a>(
    out: &mut Vec<u8>,
    status: u16,
    reason: &str,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), AnswerError> {
    let start = out.len();
    let result = append_answer(out, status, reason, fields);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Why an answer cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Not HTTP/1 syntax.
    #[error("malformed answer: {0}")]
    Syntax(httparse::Error),
    /// More fields than there is room for.
    #[error("the answer has more than {limit} fields")]
    TooManyFields {
        /// The number of headers given to [`parse_answer`].
        limit: usize,
    },
    /// A status outside 100 to 999.
    #[error("the answer has status {0}")]
    Status(u16),
    /// A 101 whose `Handoff` is not a single `fd` or `fd-tls` of version 1.
    #[error("the answer's \"Handoff\" is neither \"fd\" nor \"fd-tls\" of version 1")]
    Handoff,
    /// The reason phrase contains a control character.
    #[error("the reason phrase contains a control character")]
    Reason,
    /// The name of a field is not a token.
    #[error("\"{0}\" is not a valid field name")]
    Name(FieldName),
    /// The value of a field contains a control character.
    #[error("the value of \"{0}\" contains a control character")]
    Value(FieldName),
}

fn kind(status: u16, fields: &[httparse::Header<'_>]) -> Result<(AnswerKind, bool), AnswerError> {
    if status != 101 {
        return Ok((AnswerKind::Refusal, false));
    }
    let mut lines = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(HANDOFF));
    match (lines.next(), lines.next()) {
        (None, _) => Ok((AnswerKind::Tunnel, false)),
        (Some(line), None) => {
            let mut elements = tokens(line.value);
            match (elements.next(), elements.next()) {
                (Some(element), None) => {
                    let way = way_v1(element).ok_or(AnswerError::Handoff)?;
                    Ok((AnswerKind::Handoff(way), has_keepalive(element)))
                }
                _ => Err(AnswerError::Handoff),
            }
        }
        // An answer chooses one of the ways that were offered.
        (Some(_), Some(_)) => Err(AnswerError::Handoff),
    }
}

fn append_answer<'a>(
    out: &mut Vec<u8>,
    status: u16,
    reason: &str,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), AnswerError> {
    if !(100..1000).contains(&status) {
        return Err(AnswerError::Status(status));
    }
    if !is_valid_value(reason.as_bytes()) {
        return Err(AnswerError::Reason);
    }
    out.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
    for (name, value) in fields {
        if !is_valid_name(name.as_bytes()) {
            return Err(AnswerError::Name(FieldName::new(name.as_bytes())));
        }
        if !is_valid_value(value) {
            return Err(AnswerError::Value(FieldName::new(name.as_bytes())));
        }
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}
