//! All that is shown of the counters at one moment.

use crate::counters::Snapshot;
use crate::kind::{Rejection, TlsRefusal};

/// All that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Requests without an outcome yet.
    pub in_progress: u64,
    /// Handshakes that nginx refused itself, by kind.
    pub rejected: [u64; Rejection::ALL.len()],
    /// TLS sessions that were not fit to be handed over, by reason.
    pub tls_refused: [u64; TlsRefusal::ALL.len()],
    /// The upstreams, in the order in which they are shown.
    pub upstreams: &'a [Upstream<'a>],
}

/// One upstream.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Its name in nginx's configuration: any bytes.
    pub name: &'a [u8],
    /// What was counted for it.
    pub counts: Snapshot,
}

impl Report<'_> {
    /// The sum over all upstreams.
    #[must_use]
    pub fn total(&self) -> Snapshot {
        let mut total = Snapshot::default();
        for upstream in self.upstreams {
            total.add(&upstream.counts);
        }
        total
    }

    /// Each reason that a TLS session stayed in nginx for, with its count.
    pub fn tls_refused(&self) -> impl Iterator<Item = (TlsRefusal, u64)> {
        TlsRefusal::ALL.into_iter().zip(self.tls_refused)
    }

    /// Each kind of rejection with its count.
    pub fn rejected(&self) -> impl Iterator<Item = (Rejection, u64)> {
        Rejection::ALL.into_iter().zip(self.rejected)
    }
}
