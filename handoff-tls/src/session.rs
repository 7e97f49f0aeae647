//! A session, both directions of it.

use core::fmt;

use handoff_protocol::tls::{State, StateError, Suite, Version};

use crate::half::Half;

/// A server's side of an established session.
pub struct Session {
    pub(crate) version: Version,
    pub(crate) suite: Suite,
    pub(crate) rx: Half,
    pub(crate) tx: Half,
    /// The KeyUpdate that has to go before the next record.
    pub(crate) owed: KeyUpdate,
    /// Whether the client has been asked to update the keys that it uses now.
    pub(crate) has_asked: bool,
    /// Whether the client's direction has ended.
    pub(crate) is_closed: bool,
    /// Whether this side has ended the session.
    pub(crate) has_ended: bool,
    /// TLS 1.2: whether the client has been told that nothing is negotiated anew.
    pub(crate) has_refused: bool,
    /// Records in a row that brought no data.
    pub(crate) idle_records: u8,
    /// The beginning of a handshake message whose rest is in the next record.
    pub(crate) partial: Partial,
}

/// A KeyUpdate that has to be sent (RFC 8446 section 4.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyUpdate {
    None,
    /// This side's keys change.
    Plain,
    /// And the client is to change its own.
    Requesting,
}

/// Bytes of a KeyUpdate, the one handshake message that can come: type, length, and one byte.
#[derive(Clone, Copy, Default)]
pub(crate) struct Partial {
    pub(crate) bytes: [u8; 5],
    pub(crate) len: u8,
}

impl Session {
    /// Carries a session on.
    ///
    /// # Errors
    ///
    /// [`StateError::Suite`] or [`StateError::Length`]: the state was put together wrongly.
    pub fn new(state: &State) -> Result<Session, StateError> {
        let version = state.version;
        let suite = Suite::from_number(version, state.suite).ok_or(StateError::Suite)?;
        let half = |secret, seq| Half::new(version, suite, secret, seq).ok_or(StateError::Length);
        Ok(Session {
            version,
            suite,
            rx: half(&state.rx_secret, state.rx_seq)?,
            tx: half(&state.tx_secret, state.tx_seq)?,
            owed: if state.owes_key_update && version == Version::Tls13 {
                KeyUpdate::Plain
            } else {
                KeyUpdate::None
            },
            has_asked: false,
            is_closed: false,
            has_ended: false,
            has_refused: false,
            idle_records: 0,
            partial: Partial::default(),
        })
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cipher.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether something has to be sent though there is no data for the client: a KeyUpdate that it has asked for, or that asks it
    /// for one. Sealing nothing is enough.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        self.owed != KeyUpdate::None && !self.has_ended
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field("rx_seq", &self.rx.seq)
            .field("tx_seq", &self.tx.seq)
            .finish_non_exhaustive()
    }
}
