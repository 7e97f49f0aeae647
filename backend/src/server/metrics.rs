//! What `/metrics` shows.

use std::fmt;
use std::fs;
use std::sync::atomic::AtomicI64;

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::engine::Traffic;
use crate::websocket::Source;

/// All metrics; names as they are registered, to which the format adds `_total` for counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    active: Gauge<i64, AtomicI64>,
    connections: Family<SourceLabel, Counter>,
    closed: Family<ClosedLabel, Counter>,
    pub(crate) messages_sent: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    offers: Family<OfferLabels, Counter>,
    pub(crate) slow_receivers: Counter,
    pub(crate) messages_dropped: Counter,
    limited: Family<LimitLabel, Counter>,
    tls_sessions: Family<CarrierLabel, Counter>,
    tls_fallbacks: Family<CauseLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabel {
    by: &'static str,
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Closed {
    ByClient,
    /// This side closed, with this code.
    ByServer(u16),
    /// No closing handshake.
    Lost,
}

impl Closed {
    const CODES: [(u16, &'static str); 6] = [
        (1001, "1001"),
        (1002, "1002"),
        (1007, "1007"),
        (1008, "1008"),
        (1009, "1009"),
        (1013, "1013"),
    ];

    fn labels() -> impl Iterator<Item = &'static str> {
        let codes = Self::CODES.into_iter().map(|(_, label)| label);
        codes.chain(["client", "other", "lost"])
    }

    fn label(self) -> &'static str {
        match self {
            Closed::ByClient => "client",
            Closed::ByServer(code) => {
                let known = Self::CODES.into_iter().find(|(known, _)| *known == code);
                known.map_or("other", |(_, label)| label)
            }
            Closed::Lost => "lost",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CarrierLabel {
    carrier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfferLabels {
    outcome: &'static str,
    /// The status of a refusal, the cause of a failure.
    detail: String,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            active: Gauge::default(),
            connections: Family::default(),
            closed: Family::default(),
            messages_sent: Counter::default(),
            messages_received: Counter::default(),
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
            offers: Family::default(),
            slow_receivers: Counter::default(),
            messages_dropped: Counter::default(),
            limited: Family::default(),
            tls_sessions: Family::default(),
            tls_fallbacks: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "websocket_connections_active",
            "WebSocket clients being served",
            metrics.active.clone(),
        );
        registry.register(
            "websocket_connections",
            "WebSocket clients served, by the way they came",
            metrics.connections.clone(),
        );
        registry.register(
            "websocket_closed",
            "WebSocket connections ended: by the client, by the close code sent to it, or lost",
            metrics.closed.clone(),
        );
        registry.register(
            "websocket_messages_sent",
            "Messages sent to clients",
            metrics.messages_sent.clone(),
        );
        registry.register(
            "websocket_messages_received",
            "Messages received from clients",
            metrics.messages_received.clone(),
        );
        registry.register(
            "websocket_sent_bytes",
            "Payload bytes of messages sent",
            metrics.bytes_sent.clone(),
        );
        registry.register(
            "websocket_received_bytes",
            "Payload bytes of messages received",
            metrics.bytes_received.clone(),
        );
        registry.register(
            "websocket_slow_receivers",
            "Members of rooms who did not keep up and were closed with 1008",
            metrics.slow_receivers.clone(),
        );
        registry.register(
            "websocket_messages_dropped",
            "Messages to a room that a member missed because too much waited for it (--slow-receiver drop)",
            metrics.messages_dropped.clone(),
        );
        registry.register(
            "websocket_limited",
            "Connections closed because they ran into a limit: message_size, message_rate, queue, idle, tls_keys",
            metrics.limited.clone(),
        );
        registry.register(
            "websocket_offers",
            "Offers by outcome: accepted, refused (by status), failed (by cause)",
            metrics.offers.clone(),
        );
        registry.register(
            "websocket_tls_sessions",
            "TLS sessions that were handed over with their clients, by who carries them on: user (this program) or kernel",
            metrics.tls_sessions.clone(),
        );
        registry.register(
            "websocket_tls_fallbacks",
            "TLS sessions that the kernel was to carry and this program does (--tls kernel), by cause",
            metrics.tls_fallbacks.clone(),
        );
        registry.register_collector(Box::new(Process));
        // Shown as 0 from the start: a rate over a series that appears later misses its first step.
        for source in [Source::Handoff, Source::Tunnel, Source::Direct] {
            let _ = metrics.connections.get_or_create(&source_label(source));
        }
        for limit in ["message_size", "message_rate", "queue", "idle", "tls_keys"] {
            let _ = metrics.limited.get_or_create(&LimitLabel { limit });
        }
        metrics.tls(&Traffic::default());
        for by in Closed::labels() {
            let _ = metrics.closed.get_or_create(&ClosedLabel { by });
        }
        metrics
    }

    /// Counts a client as being served until it is dropped.
    pub(crate) fn serving(&self) -> Serving {
        self.active.inc();
        Serving(self.active.clone())
    }

    /// Counts clients whose serving began, and ended.
    pub(crate) fn serves(&self, began: u64, ended: u64) {
        // More than 2⁶³ do not come.
        self.active.inc_by(began as i64 - ended as i64);
    }

    /// A client was closed because of a limit.
    pub(crate) fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&LimitLabel { limit }).inc();
    }

    /// A client came.
    pub(crate) fn connected(&self, source: Source) {
        self.connections.get_or_create(&source_label(source)).inc();
        self.offer("accepted", String::new());
    }

    pub(crate) fn refused(&self, status: u16) {
        self.offer("refused", status.to_string());
    }

    pub(crate) fn failed(&self, cause: &'static str) {
        self.offer("failed", cause.to_owned());
    }

    pub(crate) fn closed(&self, closed: Closed) {
        self.closed.get_or_create(&ClosedLabel { by: closed.label() }).inc();
    }

    /// Counts the TLS sessions that came.
    pub(crate) fn tls(&self, traffic: &Traffic) {
        let fallbacks = &traffic.tls_fallbacks;
        for (carrier, count) in [("user", traffic.tls_user), ("kernel", traffic.tls_kernel)] {
            self.tls_sessions.get_or_create(&CarrierLabel { carrier }).inc_by(count);
        }
        for (cause, count) in [
            ("unavailable", fallbacks.unavailable),
            ("suite", fallbacks.suite),
            ("socket", fallbacks.socket),
            ("sending", fallbacks.sending),
            ("key_update", fallbacks.key_update),
        ] {
            self.tls_fallbacks.get_or_create(&CauseLabel { cause }).inc_by(count);
        }
    }

    /// The OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn offer(&self, outcome: &'static str, detail: String) {
        self.offers.get_or_create(&OfferLabels { outcome, detail }).inc();
    }
}

/// A client that is being served.
#[derive(Debug)]
pub(crate) struct Serving(Gauge<i64, AtomicI64>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn source_label(source: Source) -> SourceLabel {
    let source = match source {
        Source::Handoff => "handoff",
        Source::Tunnel => "tunnel",
        Source::Direct => "direct",
    };
    SourceLabel { source }
}

/// What the kernel knows about this process, read at each scrape.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let max_fds =
            getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(soft, _)| i64::try_from(soft).ok());
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory size in bytes", resident_bytes()),
            ("process_open_fds", "Number of open file descriptors", open_descriptors()),
            ("process_max_fds", "Maximum number of open file descriptors", max_fds),
        ] {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
                gauge.encode(metric)?;
            }
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Less the one that reading the directory takes.
fn open_descriptors() -> Option<i64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(entries).ok().map(|count| count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_use_are_there() {
        let metrics = Metrics::new();
        metrics.connected(Source::Handoff);
        metrics.refused(503);
        metrics.failed("commit_timeout");
        metrics.messages_sent.inc();
        let text = metrics.encode().expect("encodes");
        for line in [
            "websocket_connections_active 0\n",
            "websocket_connections_total{source=\"handoff\"} 1\n",
            "websocket_connections_total{source=\"tunnel\"} 0\n",
            "websocket_messages_sent_total 1\n",
            "websocket_messages_received_total 0\n",
            "websocket_offers_total{outcome=\"accepted\",detail=\"\"} 1\n",
            "websocket_offers_total{outcome=\"refused\",detail=\"503\"} 1\n",
            "websocket_offers_total{outcome=\"failed\",detail=\"commit_timeout\"} 1\n",
            "websocket_tls_sessions_total{carrier=\"kernel\"} 0\n",
            "websocket_tls_fallbacks_total{cause=\"suite\"} 0\n",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
