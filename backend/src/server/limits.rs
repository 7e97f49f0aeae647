//! How many clients there may be: in all, per address, and as descriptors allow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What descriptors allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// RLIMIT_NOFILE's soft limit.
    pub(crate) limit: u64,
    /// Offers in hand at a time, per listener: each holds a connection.
    pub(crate) pending: usize,
    /// Clients who have not taken their 101 yet, per listener: each is one of the clients, and holds the connection to
    /// nginx as well.
    pub(crate) handovers: usize,
    /// Clients.
    pub(crate) clients: usize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one; where that is not allowed, what there is has to do.
    pub(crate) fn raise(workers: Option<u16>) -> Descriptors {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
        let threads = workers.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        );
        let limits = Descriptors::share(if raised { hard } else { soft }, threads);
        tracing::info!(was = soft, now = limits.limit, clients = limits.clients, "RLIMIT_NOFILE");
        limits
    }

    /// Apart from the clients: standard streams, listeners (of which usually two take offers), epoll, admin connections
    /// (64), peers being turned away (16), offers in hand, handovers, and for each thread two epolls and what belongs to
    /// them.
    fn share(limit: u64, threads: usize) -> Descriptors {
        let all = usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 30);
        let pending = (all / 16).clamp(1, 1024);
        let handovers = (all / 8).clamp(1, 16_384);
        let headroom = (112 + 8 * threads + 2 * pending + handovers).min(all / 2);
        Descriptors { limit, pending, handovers, clients: (all - headroom).max(1) }
    }
}

/// Counts clients against the limits.
#[derive(Debug)]
pub(crate) struct Limits {
    clients: usize,
    /// 0: no limit.
    per_address: u32,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    clients: usize,
    per_address: HashMap<IpAddr, u32>,
}

impl Limits {
    pub(crate) fn new(clients: usize, per_address: u32) -> Limits {
        Limits { clients, per_address, counts: Mutex::default() }
    }

    /// Room for one more client, or the status to refuse it with. 503 sends nginx to its next peer, where there may
    /// be room; 429 does not: the client has too many, wherever they are.
    ///
    /// A client whose address is unknown counts towards the total only.
    pub(crate) fn admit(
        self: &Arc<Limits>,
        address: Option<IpAddr>,
    ) -> Result<Admission, StatusCode> {
        let address = address.filter(|_| self.per_address > 0);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.clients >= self.clients {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        if let Some(address) = address {
            let count = counts.per_address.entry(address).or_default();
            if *count >= self.per_address {
                return Err(StatusCode::TOO_MANY_REQUESTS);
            }
            *count += 1;
        }
        counts.clients += 1;
        Ok(Admission { limits: Arc::clone(self), address: address.map(Box::new) })
    }

    /// Clients admitted and not gone.
    pub(crate) fn clients(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clients
    }
}

/// One client's place.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Arc<Limits>,
    // Boxed: without a limit per address it is never there, and every client has room for it.
    address: Option<Box<IpAddr>>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.limits.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clients = counts.clients.saturating_sub(1);
        let Some(address) = self.address.as_deref().copied() else {
            return;
        };
        let left = counts.per_address.get_mut(&address).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            counts.per_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = Arc::new(Limits::new(3, 2));
        let address: IpAddr = [192, 0, 2, 1].into();
        let one = Some(address);
        let other: Option<IpAddr> = Some([192, 0, 2, 2].into());
        let first = limits.admit(one).expect("room");
        let second = limits.admit(one).expect("room");
        assert_eq!(limits.admit(one).expect_err("two of two"), StatusCode::TOO_MANY_REQUESTS);
        let _third = limits.admit(other).expect("room");
        assert_eq!(
            limits.admit(None).expect_err("three of three"),
            StatusCode::SERVICE_UNAVAILABLE
        );
        drop(first);
        assert_eq!(limits.clients(), 2);
        let again = limits.admit(one).expect("room again");
        drop(again);
        drop(second);
        assert!(!limits.counts.lock().expect("lock").per_address.contains_key(&address));
    }

    #[test]
    fn descriptors_are_shared_out_at_every_size() {
        for limit in [1, 3, 16, 64, 256, 1024, 20_000, u64::MAX] {
            let shared = Descriptors::share(limit, 2);
            assert!(shared.pending >= 1 && shared.clients >= 1, "{limit}: {shared:?}");
        }
        let usual = Descriptors::share(1024, 0);
        assert_eq!((usual.pending, usual.handovers, usual.clients), (64, 128, 656));
    }
}
