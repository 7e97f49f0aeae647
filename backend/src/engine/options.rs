//! What an engine can be told.

use std::num::NonZeroUsize;
use std::time::Duration;

/// How an [`Engine`](super::Engine) serves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Threads that serve; `None`: one per core.
    pub threads: Option<NonZeroUsize>,
    /// Longest message that a client may send, all fragments together, inflated: longer ones close with 1009.
    pub max_message_size: usize,
    /// Messages that a client may send in a second, and in a burst: more close with 1008. `None`: no limit.
    pub max_message_rate: Option<u32>,
    /// Bytes that may wait to be sent to one client while it takes none. One message may exceed it.
    pub max_queue: usize,
    /// What becomes of a client for which more would wait.
    pub slow_receiver: SlowReceiver,
    /// A client from which nothing came for this long is sent a ping.
    pub ping_interval: Option<Duration>,
    /// A client from which nothing came for this long, not even a pong, is closed with 1001.
    pub idle_timeout: Option<Duration>,
    /// A client that takes no byte of what waits for it for this long is hung up on.
    pub send_timeout: Duration,
    /// Whether clients' TLS sessions ([`carry_tls`](crate::Acceptance::carry_tls)) are given to the kernel, where it takes them:
    /// Linux, with its module `tls`. What it does not take is carried in user space all the same.
    pub kernel_tls: bool,
    /// Whether [`Handler::on_sweep`](super::Handler::on_sweep) is called.
    pub sweeps: bool,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            threads: None,
            max_message_size: 1 << 20,
            max_message_rate: None,
            max_queue: 1 << 20,
            slow_receiver: SlowReceiver::Close(1008),
            ping_interval: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(120)),
            send_timeout: Duration::from_secs(60),
            kernel_tls: false,
            sweeps: false,
        }
    }
}

/// What becomes of a client for which more would wait than [`EngineOptions::max_queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowReceiver {
    /// It is closed with this code: 1008 (policy violation), or 1013 (try again later).
    Close(u16),
    /// It misses messages to its groups. One that is meant for it alone closes it with 1008 all the same.
    Drop,
}
