//! Alerts (RFC 8446 section 6), and how a session ends.

use handoff_protocol::tls::Version;

/// What this side ends a session with: to be sent to the client by [`Session::seal_alert`](crate::Session::seal_alert).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Alert {
    /// The session ends as it should.
    #[error("close_notify")]
    CloseNotify,
    /// A record of a type that has no place here, or one more that brings no data.
    #[error("unexpected_message")]
    UnexpectedMessage,
    /// A record that was not sealed with this key, or not as the next one.
    #[error("bad_record_mac")]
    BadRecordMac,
    /// A record longer than records may be.
    #[error("record_overflow")]
    RecordOverflow,
    /// A field with a value that it cannot have.
    #[error("illegal_parameter")]
    IllegalParameter,
    /// A message that is not as long as it says.
    #[error("decode_error")]
    DecodeError,
    /// A record of another version of TLS.
    #[error("protocol_version")]
    ProtocolVersion,
    /// An answer to a client that wants to negotiate anew (RFC 5246 section 7.2.2); the session goes on.
    #[error("no_renegotiation")]
    NoRenegotiation,
}

impl Alert {
    /// Level and description, as on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 2] {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        match self {
            Alert::CloseNotify => [WARNING, CLOSE_NOTIFY],
            Alert::UnexpectedMessage => [FATAL, 10],
            Alert::BadRecordMac => [FATAL, 20],
            Alert::RecordOverflow => [FATAL, 22],
            Alert::IllegalParameter => [FATAL, 47],
            Alert::DecodeError => [FATAL, 50],
            Alert::ProtocolVersion => [FATAL, 70],
            Alert::NoRenegotiation => [WARNING, 100],
        }
    }
}

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// How the client has ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// By close_notify: nothing was cut off.
    Notify,
    /// By an alert with this description: the session is over in both directions.
    Alert(u8),
}

/// How the client ends its direction with the alert that a record holds, if it does.
pub(crate) fn received(version: Version, plain: &[u8]) -> Result<Option<Closed>, Alert> {
    const WARNING: u8 = 1;
    let (level, description) = match *plain {
        [level, description] => (level, description),
        // Like an empty handshake message (RFC 8446 section 5.4).
        [] => return Err(Alert::UnexpectedMessage),
        _ => return Err(Alert::DecodeError),
    };
    Ok(match (version, level, description) {
        (_, _, CLOSE_NOTIFY) => Some(Closed::Notify),
        // A close_notify follows (RFC 8446 section 6.1).
        (Version::Tls13, _, USER_CANCELED) => None,
        // Levels mean nothing any more (section 6).
        (Version::Tls13, ..) => Some(Closed::Alert(description)),
        (Version::Tls12, WARNING, _) => None,
        (Version::Tls12, ..) => Some(Closed::Alert(description)),
    })
}
