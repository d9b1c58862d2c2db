//! What is counted of the upstream side. The label sets are closed: no host and no address is a label.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Connections held and faults seen, for all upstreams together.
#[derive(Debug)]
pub struct UpstreamMetrics {
    idle: IntGauge,
    active: IntGauge,
    failures: [IntCounter; FailureKind::ALL.len()],
}

/// What went wrong on the upstream side: the label of `torwart_upstream_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No TCP connection.
    Connect,
    /// No answer, or no progress, within the time that the step has.
    Timeout,
    /// No handshake, a certificate that is not the one asked for, or no STARTTLS where it is required.
    Tls,
    /// What came is not SMTP, or not an answer to what was said.
    Protocol,
    /// A refusal that says that our route or our configuration is wrong, or that the upstream is closing (421).
    Refused,
    /// The upstream closed the connection where an answer was due.
    Closed,
    /// The name has no address, or the resolver did not answer.
    Dns,
    /// All connections that the upstream allows were in use.
    Busy,
}

// === impl FailureKind ===

impl FailureKind {
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Timeout,
        Self::Tls,
        Self::Protocol,
        Self::Refused,
        Self::Closed,
        Self::Dns,
        Self::Busy,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Dns => "dns",
            Self::Busy => "busy",
        }
    }
}

// === impl UpstreamMetrics ===

impl UpstreamMetrics {
    /// Registers `torwart_upstream_connections{state}` and `torwart_upstream_failures_total{kind}`.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let connections = IntGaugeVec::new(
            Opts::new("torwart_upstream_connections", "Connections to upstreams, by what they do"),
            &["state"],
        )?;
        let failures = IntCounterVec::new(
            Opts::new("torwart_upstream_failures_total", "Faults on the upstream side, by kind"),
            &["kind"],
        )?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            idle: connections.with_label_values(&["idle"]),
            active: connections.with_label_values(&["active"]),
            failures: FailureKind::ALL.map(|kind| failures.with_label_values(&[kind.as_str()])),
        })
    }

    pub(super) fn failed(&self, kind: FailureKind) {
        if let Some(counter) = self.failures.get(kind as usize) {
            counter.inc();
        }
    }

    /// How often `kind` was counted.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.failures.get(kind as usize).map_or(0, IntCounter::get)
    }

    pub(super) fn idle(&self) -> &IntGauge {
        &self.idle
    }

    pub(super) fn active(&self) -> &IntGauge {
        &self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_counter() {
        let metrics = UpstreamMetrics::new(&Registry::new()).unwrap();
        for kind in FailureKind::ALL {
            metrics.failed(kind);
            assert_eq!(metrics.failures(kind), 1, "{}", kind.as_str());
        }
    }

    #[test]
    fn two_sets_cannot_share_a_registry() {
        let registry = Registry::new();
        let first = UpstreamMetrics::new(&registry);
        assert!(first.is_ok());
        assert!(UpstreamMetrics::new(&registry).is_err());
    }
}
