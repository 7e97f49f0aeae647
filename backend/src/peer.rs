//! Who is at the other end of a Unix connection, and whether they may hand clients over.

use std::fs;

use handoff_protocol::trust::{TrustedUsers, ambiguous_uid};
use nix::unistd::geteuid;
use tokio::net::UnixStream;

use crate::error::AcceptError;

/// What SO_PEERCRED tells about the process that called connect(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User, at the time of connect(2); the overflow uid where this user namespace does not know them.
    pub uid: u32,
    /// Group, likewise.
    pub gid: u32,
    /// Process, where this PID namespace shows it.
    pub pid: Option<i32>,
}

impl PeerCredentials {
    pub(crate) fn of(stream: &UnixStream) -> Option<PeerCredentials> {
        let cred = stream.peer_cred().ok()?;
        Some(PeerCredentials { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() })
    }
}

/// Who made a connection, and what comes of that.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    /// `None` over TCP.
    pub(crate) credentials: Option<PeerCredentials>,
    /// Whether TLS sessions are taken from it.
    pub(crate) brings_tls: bool,
}

/// The users who may connect.
#[derive(Debug)]
pub(crate) struct AllowedPeers {
    uids: Option<Vec<u32>>,
    own: u32,
    ambiguous: Option<u32>,
}

impl AllowedPeers {
    pub(crate) fn new(uids: Option<Vec<u32>>) -> AllowedPeers {
        let read = |path| fs::read(path).unwrap_or_default();
        let ambiguous =
            ambiguous_uid(&read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid"));
        AllowedPeers { uids, own: geteuid().as_raw(), ambiguous }
    }

    /// Whoever is at the other end, if they may be there at all.
    pub(crate) fn admit(&self, stream: &UnixStream) -> Result<Peer, AcceptError> {
        let credentials = PeerCredentials::of(stream);
        self.check(credentials)?;
        Ok(Peer { credentials, brings_tls: self.brings_tls(credentials) })
    }

    /// Whether TLS sessions are taken from somebody who may connect: where the socket's mode alone lets peers in, not from
    /// everybody.
    fn brings_tls(&self, peer: Option<PeerCredentials>) -> bool {
        let users = TrustedUsers { own: self.own, named: &[], ambiguous: self.ambiguous };
        self.uids.is_some() || peer.is_some_and(|peer| users.trusts(peer.uid))
    }

    fn check(&self, peer: Option<PeerCredentials>) -> Result<(), AcceptError> {
        let Some(uids) = &self.uids else {
            return Ok(());
        };
        // getsockopt(SO_PEERCRED) does not fail on a connected Unix socket; if it did, nobody would be identified.
        let uid = peer.map_or(self.ambiguous.unwrap_or(u32::MAX), |peer| peer.uid);
        if peer.is_none() || self.ambiguous == Some(uid) {
            Err(AcceptError::Unidentified { uid })
        } else if uids.contains(&uid) {
            Ok(())
        } else {
            Err(AcceptError::Forbidden { uid })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Option<PeerCredentials> {
        Some(PeerCredentials { uid, gid: 0, pid: None })
    }

    #[test]
    fn without_a_list_the_file_mode_decides() {
        let allowed = AllowedPeers { uids: None, own: 101, ambiguous: Some(65534) };
        assert!(allowed.check(peer(65534)).is_ok());
    }

    #[test]
    fn without_a_list_tls_sessions_are_roots_and_ones_own() {
        let allowed = AllowedPeers { uids: None, own: 101, ambiguous: Some(65534) };
        assert!(allowed.brings_tls(peer(0)) && allowed.brings_tls(peer(101)));
        assert!(!allowed.brings_tls(peer(33)) && !allowed.brings_tls(None));
        let ambiguous = AllowedPeers { own: 65534, ..allowed };
        assert!(!ambiguous.brings_tls(peer(65534)));
    }

    #[test]
    fn with_a_list_tls_sessions_are_everybodys_who_may_connect() {
        let allowed = AllowedPeers { uids: Some(vec![33]), own: 101, ambiguous: None };
        assert!(allowed.check(peer(33)).is_ok() && allowed.brings_tls(peer(33)));
        assert!(allowed.check(peer(0)).is_err());
    }

    #[test]
    fn only_listed_users_may_connect() {
        let allowed = AllowedPeers { uids: Some(vec![33, 65534]), own: 101, ambiguous: None };
        assert!(allowed.check(peer(33)).is_ok());
        assert!(allowed.check(peer(65534)).is_ok());
        assert!(matches!(allowed.check(peer(34)), Err(AcceptError::Forbidden { uid: 34 })));
        assert!(matches!(allowed.check(None), Err(AcceptError::Unidentified { .. })));
    }

    #[test]
    fn the_overflow_uid_identifies_nobody_in_a_user_namespace() {
        let allowed = AllowedPeers { uids: Some(vec![65534]), own: 101, ambiguous: Some(65534) };
        assert!(matches!(
            allowed.check(peer(65534)),
            Err(AcceptError::Unidentified { uid: 65534 })
        ));
    }
}
