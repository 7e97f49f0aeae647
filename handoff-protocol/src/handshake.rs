//! The opening handshake of a WebSocket client: which requests nginx upgrades (RFC 6455 section 4.2.1),
//! and how the others are refused.
//!
//! Only what the head says is judged here. `Host` is nginx's own business (it refuses an HTTP/1.1 request
//! without one), and `Origin` a policy of the site.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::field::{has_token, trim};

/// What [`validate`] needs besides the fields.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method, as sent: methods are case-sensitive.
    pub method: &'a [u8],
    /// HTTP version, major and minor: `(1, 1)`, `(2, 0)`.
    pub version: (u16, u16),
    /// Whether a body follows: a `Content-Length` other than 0, or any `Transfer-Encoding`.
    pub has_body: bool,
}

/// A handshake that may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpeningHandshake {
    /// The value of the 101's `Sec-WebSocket-Accept`.
    pub accept: [u8; 28],
}

/// Judges a client's opening handshake.
///
/// `fields` are the request's fields: names and values, in any order. Names are compared without regard to
/// case, and to nothing else: `Sec_WebSocket_Key` is no key.
///
/// # Errors
///
/// The first rule that the request breaks, in this order: HTTP/2 or later, method, no upgrade asked for,
/// HTTP version, body, key, WebSocket version. A request that never meant to be a WebSocket is thus told
/// so, and not that its key is missing.
pub fn validate<'a, I>(
    line: &RequestLine<'_>,
    fields: I,
) -> Result<OpeningHandshake, HandshakeError>
where
    I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    if line.version.0 >= 2 {
        return Err(HandshakeError::MultiplexedHttp { major: line.version.0 });
    }
    if line.method != b"GET" {
        return Err(HandshakeError::Method);
    }

    let mut seen = Seen::default();
    for (name, value) in fields {
        seen.field(name, value);
    }
    if !(seen.upgrade && seen.connection) {
        return Err(HandshakeError::NoUpgrade);
    }
    if line.version < (1, 1) {
        return Err(HandshakeError::HttpVersion { major: line.version.0, minor: line.version.1 });
    }
    if line.has_body {
        return Err(HandshakeError::Body);
    }
    let key = match seen.key {
        Field::Absent => return Err(HandshakeError::KeyMissing),
        Field::Repeated => return Err(HandshakeError::KeyRepeated),
        Field::Once(key) => trim(key),
    };
    if !is_base64_of_16_bytes(key) {
        return Err(HandshakeError::KeyMalformed);
    }
    match seen.version {
        // Version negotiation (RFC 6455 section 4.4) answers a client that asked for some version. One that
        // names none, or several, has sent no well-formed handshake at all (sections 4.2.1 and 11.3.5).
        Field::Absent => Err(HandshakeError::VersionMissing),
        Field::Repeated => Err(HandshakeError::VersionRepeated),
        Field::Once(version) if trim(version) == b"13" => {
            Ok(OpeningHandshake { accept: accept_key(key) })
        }
        Field::Once(_) => Err(HandshakeError::VersionUnsupported),
    }
}

/// The `Sec-WebSocket-Accept` that answers `key` (RFC 6455 section 4.2.2, step 5.4).
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [b'='; 28];
    // Cannot fail: the base64 of SHA-1's 20 bytes is always 28 characters long.
    let _ = STANDARD.encode_slice(digest, &mut accept);
    accept
}

/// Why a request is not upgraded. Its `Display` is written for the error log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// HTTP/2 or 3, where a WebSocket would need extended CONNECT (RFC 8441, RFC 9220).
    #[error("client asked for a WebSocket over HTTP/{major}, which has no Upgrade")]
    MultiplexedHttp {
        /// Major version of HTTP.
        major: u16,
    },
    /// The method is not GET.
    #[error("client sent a WebSocket handshake with a method other than GET")]
    Method,
    /// `Upgrade` does not list `websocket`, or `Connection` does not list `upgrade`.
    #[error("client did not ask for an upgrade to a WebSocket")]
    NoUpgrade,
    /// HTTP/1.0 or older.
    #[error("client sent a WebSocket handshake in HTTP/{major}.{minor}, 1.1 is required")]
    HttpVersion {
        /// Major version of HTTP.
        major: u16,
        /// Minor version of HTTP.
        minor: u16,
    },
    /// A body would be taken for the first frames.
    #[error("client sent a WebSocket handshake with a body")]
    Body,
    /// No `Sec-WebSocket-Key`.
    #[error("client sent no \"Sec-WebSocket-Key\"")]
    KeyMissing,
    /// More than one `Sec-WebSocket-Key`.
    #[error("client sent more than one \"Sec-WebSocket-Key\"")]
    KeyRepeated,
    /// A `Sec-WebSocket-Key` that is not the base64 of 16 bytes.
    #[error("client sent a \"Sec-WebSocket-Key\" that is not the base64 of 16 bytes")]
    KeyMalformed,
    /// No `Sec-WebSocket-Version`.
    #[error("client sent no \"Sec-WebSocket-Version\"")]
    VersionMissing,
    /// More than one `Sec-WebSocket-Version`.
    #[error("client sent more than one \"Sec-WebSocket-Version\"")]
    VersionRepeated,
    /// A `Sec-WebSocket-Version` other than 13.
    #[error("client asked for a WebSocket version other than 13")]
    VersionUnsupported,
}

impl HandshakeError {
    /// The HTTP status of the refusal.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::MultiplexedHttp { .. } | Self::NoUpgrade | Self::VersionUnsupported => 426,
            Self::Method => 405,
            Self::HttpVersion { .. }
            | Self::Body
            | Self::KeyMissing
            | Self::KeyRepeated
            | Self::KeyMalformed
            | Self::VersionMissing
            | Self::VersionRepeated => 400,
        }
    }

    /// The field, name and value, that tells the client what would be accepted.
    #[must_use]
    pub fn response_field(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Method => Some(("Allow", "GET")),
            Self::NoUpgrade => Some(("Upgrade", "websocket")),
            Self::VersionUnsupported => Some(("Sec-WebSocket-Version", "13")),
            // `Upgrade` is connection-specific and makes an HTTP/2 or 3 message malformed (RFC 9113 section
            // 8.2.2, RFC 9114 section 4.2).
            Self::MultiplexedHttp { .. } => None,
            _ => None,
        }
    }
}

/// Appended to the key before hashing (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the fields said, gathered in one pass.
#[derive(Default)]
struct Seen<'a> {
    upgrade: bool,
    connection: bool,
    key: Field<'a>,
    version: Field<'a>,
}

impl<'a> Seen<'a> {
    fn field(&mut self, name: &[u8], value: &'a [u8]) {
        if name.eq_ignore_ascii_case(b"Upgrade") {
            self.upgrade |= has_token(value, b"websocket");
        } else if name.eq_ignore_ascii_case(b"Connection") {
            self.connection |= has_token(value, b"upgrade");
        } else if name.eq_ignore_ascii_case(b"Sec-WebSocket-Key") {
            self.key.add(value);
        } else if name.eq_ignore_ascii_case(b"Sec-WebSocket-Version") {
            self.version.add(value);
        }
    }
}

/// A field that may occur only once.
#[derive(Clone, Copy, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }
}

/// 16 bytes are 22 base64 digits and two of padding. The last digit's four unused bits are not looked at:
/// the key is only ever hashed, and some clients draw the digits themselves at random.
fn is_base64_of_16_bytes(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: RequestLine<'_> = RequestLine { method: b"GET", version: (1, 1), has_body: false };
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &[(&str, &str)] = &[
        ("Host", "example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn check(
        line: &RequestLine<'_>,
        fields: &[(&str, &str)],
    ) -> Result<OpeningHandshake, HandshakeError> {
        validate(line, fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// `GOOD` without the fields named `name`, and with `instead` at the end.
    fn with(
        name: &str,
        instead: &[(&'static str, &'static str)],
    ) -> Vec<(&'static str, &'static str)> {
        let kept = GOOD.iter().filter(|field| field.0 != name);
        kept.chain(instead).copied().collect()
    }

    fn refusal(line: &RequestLine<'_>, fields: &[(&str, &str)]) -> HandshakeError {
        check(line, fields).unwrap_err()
    }

    #[test]
    fn the_rfc_example_is_accepted() {
        let handshake = check(&LINE, GOOD).unwrap();
        assert_eq!(&handshake.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept_key(KEY.as_bytes()), handshake.accept);
    }

    #[test]
    fn lists_in_any_case_over_several_lines() {
        let fields = [
            ("CONNECTION", "keep-alive, foo"),
            ("connection", "bar ,UPGRADE"),
            ("upgrade", "h2c"),
            ("UPGRADE", "TLS/1.0,\tWebSocket"),
            ("sec-websocket-key", KEY),
            ("SEC-WEBSOCKET-VERSION", "13"),
        ];
        assert!(check(&LINE, &fields).is_ok());
    }

    #[test]
    fn http_2_and_3_are_told_426_without_upgrade_whatever_else_is_wrong() {
        for major in [2, 3] {
            let line = RequestLine { method: b"POST", version: (major, 0), has_body: true };
            let error = refusal(&line, &[]);
            assert_eq!(error, HandshakeError::MultiplexedHttp { major });
            assert_eq!((error.status(), error.response_field()), (426, None));
        }
    }

    #[test]
    fn other_methods_are_told_405_with_allow() {
        for method in [b"POST".as_slice(), b"HEAD", b"get", b"CONNECT", b"GETS", b""] {
            let error = refusal(&RequestLine { method, ..LINE }, GOOD);
            assert_eq!(error, HandshakeError::Method);
            assert_eq!((error.status(), error.response_field()), (405, Some(("Allow", "GET"))));
        }
    }

    #[test]
    fn no_upgrade_is_told_426_with_upgrade() {
        for fields in [
            with("Upgrade", &[]),
            with("Connection", &[]),
            with("Upgrade", &[("Upgrade", "h2c")]),
            with("Upgrade", &[("Upgrade", "websocket/13")]),
            with("Upgrade", &[("Upgrade", "websockets")]),
            with("Connection", &[("Connection", "keep-alive")]),
            with("Connection", &[("Connection", "upgraded, no-upgrade")]),
            Vec::new(),
        ] {
            for version in [(1, 1), (1, 0), (0, 9)] {
                let error = refusal(&RequestLine { version, ..LINE }, &fields);
                assert_eq!(error, HandshakeError::NoUpgrade, "{fields:?}");
                let field = Some(("Upgrade", "websocket"));
                assert_eq!((error.status(), error.response_field()), (426, field));
            }
        }
    }

    #[test]
    fn http_1_0_cannot_upgrade() {
        let error = refusal(&RequestLine { version: (1, 0), ..LINE }, GOOD);
        assert_eq!(error, HandshakeError::HttpVersion { major: 1, minor: 0 });
        assert_eq!((error.status(), error.response_field()), (400, None));
        assert!(check(&RequestLine { version: (1, 2), ..LINE }, GOOD).is_ok());
    }

    #[test]
    fn a_body_is_refused() {
        let error = refusal(&RequestLine { has_body: true, ..LINE }, GOOD);
        assert_eq!((error, error.status()), (HandshakeError::Body, 400));
    }

    #[test]
    fn exactly_one_key_of_16_bytes() {
        let missing = with("Sec-WebSocket-Key", &[("Sec_WebSocket_Key", KEY)]);
        assert_eq!(refusal(&LINE, &missing), HandshakeError::KeyMissing);
        let twice = with("", &[("sec-websocket-key", KEY)]);
        assert_eq!(refusal(&LINE, &twice), HandshakeError::KeyRepeated);
        for key in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZWE=",
            "dGhlIHNhbXBsZSBub25jZWFi",
            "dGhlIHNhbXBsZSBub25jZSEhIQ==",
            "SGVsbG8sIHdvcmxkIQ==",
            "dGhlIHNhbXBsZSBub25j-Q==",
            "dGhlIHNhbXBsZSBub2 jZQ==",
        ] {
            let error = refusal(&LINE, &with("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", key)]));
            assert_eq!((error, error.status()), (HandshakeError::KeyMalformed, 400), "{key:?}");
        }
        let unused_bits =
            with("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ/==")]);
        assert!(check(&LINE, &unused_bits).is_ok());
    }

    #[test]
    fn version_13_only() {
        for version in ["8", "0", "14", "013", "13, 8", "13a", "", "thirteen"] {
            let fields = with("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", version)]);
            let error = refusal(&LINE, &fields);
            assert_eq!(error, HandshakeError::VersionUnsupported, "{version:?}");
            let field = Some(("Sec-WebSocket-Version", "13"));
            assert_eq!((error.status(), error.response_field()), (426, field));
        }
        let error = refusal(&LINE, &with("Sec-WebSocket-Version", &[]));
        assert_eq!((error, error.status()), (HandshakeError::VersionMissing, 400));
        let error = refusal(&LINE, &with("", &[("Sec-WebSocket-Version", "13")]));
        assert_eq!((error, error.status()), (HandshakeError::VersionRepeated, 400));
    }
}
