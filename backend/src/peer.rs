//! Who is at the other end of a Unix connection, and whether they may hand clients over.

use std::fs;

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

/// The users who may connect.
#[derive(Debug)]
pub(crate) struct AllowedPeers {
    uids: Option<Vec<u32>>,
    ambiguous: Option<u32>,
}

impl AllowedPeers {
    pub(crate) fn new(uids: Option<Vec<u32>>) -> AllowedPeers {
        let ambiguous = if knows_all_users() { None } else { Some(overflow_uid()) };
        AllowedPeers { uids, ambiguous }
    }

    pub(crate) fn check(&self, peer: Option<PeerCredentials>) -> Result<(), AcceptError> {
        let Some(uids) = &self.uids else {
            return Ok(());
        };
        // getsockopt(SO_PEERCRED) does not fail on a connected Unix socket; if it did, nobody would be identified.
        let uid = peer.map_or_else(overflow_uid, |peer| peer.uid);
        if peer.is_none() || self.ambiguous == Some(uid) {
            Err(AcceptError::Unidentified { uid })
        } else if uids.contains(&uid) {
            Ok(())
        } else {
            Err(AcceptError::Forbidden { uid })
        }
    }
}

/// Whether this user namespace maps every user to itself, as the initial one does: then no user is shown as another.
fn knows_all_users() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn overflow_uid() -> u32 {
    fs::read_to_string("/proc/sys/kernel/overflowuid")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65534)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Option<PeerCredentials> {
        Some(PeerCredentials { uid, gid: 0, pid: None })
    }

    #[test]
    fn without_a_list_the_file_mode_decides() {
        let allowed = AllowedPeers { uids: None, ambiguous: Some(65534) };
        assert!(allowed.check(peer(65534)).is_ok());
    }

    #[test]
    fn only_listed_users_may_connect() {
        let allowed = AllowedPeers { uids: Some(vec![33, 65534]), ambiguous: None };
        assert!(allowed.check(peer(33)).is_ok());
        assert!(allowed.check(peer(65534)).is_ok());
        assert!(matches!(allowed.check(peer(34)), Err(AcceptError::Forbidden { uid: 34 })));
        assert!(matches!(allowed.check(None), Err(AcceptError::Unidentified { .. })));
    }

    #[test]
    fn the_overflow_uid_identifies_nobody_in_a_user_namespace() {
        let allowed = AllowedPeers { uids: Some(vec![65534]), ambiguous: Some(65534) };
        assert!(matches!(
            allowed.check(peer(65534)),
            Err(AcceptError::Unidentified { uid: 65534 })
        ));
    }
}
