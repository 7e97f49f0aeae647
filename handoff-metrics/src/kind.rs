//! The kinds of things that are counted, and their names in metrics and variables.

/// How a request ended that was a right handshake: each has exactly one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client's socket was handed over.
    Fd,
    /// The client's socket was handed over, and its TLS session with it.
    Tls,
    /// nginx tunnels.
    Tunnel,
    /// A backend refused, and the client got its answer.
    Refused,
    /// No backend could be won.
    Failed,
}

impl Outcome {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Fd, Self::Tls, Self::Tunnel, Self::Refused, Self::Failed];

    /// The value of `result` in metrics, and of `$ws_handoff_result`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fd => "fd",
            Self::Tls => "tls",
            Self::Tunnel => "tunnel",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Why one attempt at a backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection came about, or no peer was left to connect to.
    Connect,
    /// A timeout ran out: for connecting, for sending, or for the answer.
    Timeout,
    /// The request or the offer could not be written.
    Send,
    /// The client left, or does not read.
    Client,
    /// The connection ended without an answer, or the answer is none that can be used.
    Answer,
    /// nginx lacks descriptors, connections or memory.
    Local,
    /// The backend died or broke the protocol between the offer and the commit.
    Backend,
}

impl Cause {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Timeout,
        Self::Send,
        Self::Client,
        Self::Answer,
        Self::Local,
        Self::Backend,
    ];

    /// The value of `cause` in metrics, and of `$ws_handoff_error`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Send => "send",
            Self::Client => "client",
            Self::Answer => "answer",
            Self::Local => "local",
            Self::Backend => "backend",
        }
    }
}

/// Why nginx refused a handshake itself, before any backend was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A handshake that breaks a rule.
    Malformed,
    /// Another method than GET.
    Method,
    /// No handshake of WebSocket's version 13, or a version of HTTP that cannot be upgraded.
    Upgrade,
    /// An `Origin` that the location does not allow.
    Origin,
    /// A connection that cannot be handed over where tunnelling is off.
    Fallback,
}

impl Rejection {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::Method, Self::Upgrade, Self::Origin, Self::Fallback];

    /// The rejection of a handshake that is answered with `status`.
    #[must_use]
    pub const fn of_handshake(status: u16) -> Self {
        match status {
            405 => Self::Method,
            426 => Self::Upgrade,
            _ => Self::Malformed,
        }
    }

    /// The value of `reason` in metrics, and of `$ws_handoff_error`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed | Self::Method | Self::Upgrade => "handshake",
            Self::Origin => "origin",
            Self::Fallback => "fallback",
        }
    }

    /// The status that the client is answered.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Method => 405,
            Self::Upgrade => 426,
            Self::Origin => 403,
            Self::Fallback => 501,
        }
    }
}

/// Why a TLS client is tunnelled where `ws_handoff_tls` is on: its session cannot be carried on by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRefusal {
    /// Neither TLS 1.2 nor TLS 1.3.
    Version,
    /// A cipher suite that the hand-over does not know.
    Suite,
    /// The session's secrets are not known.
    Secrets,
    /// 0-RTT data was accepted.
    EarlyData,
    /// `max_fragment_length` was negotiated.
    Fragment,
    /// Compression was negotiated.
    Compression,
    /// OpenSSL uses kernel TLS.
    Ktls,
    /// TLS 1.2 was renegotiated.
    Renegotiation,
    /// The client has ended its session, or broken it.
    Closed,
    /// The rest of a record did not come in time.
    Slow,
    /// The client sent too much before it had an answer.
    Flood,
    /// The backend's socket is not trusted with it.
    Trust,
}

impl TlsRefusal {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Version,
        Self::Suite,
        Self::Secrets,
        Self::EarlyData,
        Self::Fragment,
        Self::Compression,
        Self::Ktls,
        Self::Renegotiation,
        Self::Closed,
        Self::Slow,
        Self::Flood,
        Self::Trust,
    ];

    /// The value of `reason` in metrics, and of `$ws_handoff_error`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Suite => "suite",
            Self::Secrets => "secrets",
            Self::EarlyData => "early_data",
            Self::Fragment => "fragment",
            Self::Compression => "compression",
            Self::Ktls => "ktls",
            Self::Renegotiation => "renegotiation",
            Self::Closed => "closed",
            Self::Slow => "slow",
            Self::Flood => "flood",
            Self::Trust => "trust",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_at_its_own_index() {
        assert!(Outcome::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(Cause::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(TlsRefusal::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(Rejection::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
    }

    #[test]
    fn handshakes_are_told_apart_by_status() {
        for kind in [Rejection::Malformed, Rejection::Method, Rejection::Upgrade] {
            assert_eq!(Rejection::of_handshake(kind.status()), kind);
        }
    }
}
