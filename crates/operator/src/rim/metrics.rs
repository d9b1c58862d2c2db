//! The operator's metrics.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) reconciles: IntCounterVec,
    pub(super) reconcile_seconds: Histogram,
    pub(super) leader: IntGauge,
    pub(super) sequence: IntGauge,
    pub(super) writes: IntCounterVec,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Done,
    /// Somebody else wrote meanwhile: it is done again.
    Conflict,
    Failed,
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Slot,
    Index,
    Status,
    Event,
}

/// From a plan without a write to 10,000 statuses.
const BUCKETS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

// === impl Metrics ===

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reconciles = IntCounterVec::new(
            Opts::new("torwart_reconcile_total", "Plans that were made and carried out, by how that ended"),
            &["result"],
        )?;
        let seconds =
            HistogramOpts::new("torwart_reconcile_seconds", "From a plan's beginning to its last write");
        let reconcile_seconds = Histogram::with_opts(seconds.buckets(BUCKETS.to_vec()))?;
        let leader = IntGauge::new("torwart_operator_leader", "1 at the operator that writes")?;
        let sequence = IntGauge::new(
            "torwart_operator_published_sequence",
            "The sequence of the snapshot that is published",
        )?;
        let writes = IntCounterVec::new(
            Opts::new(
                "torwart_operator_writes_total",
                "Writes to the API server, by what and how they ended",
            ),
            &["kind", "result"],
        )?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(sequence.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        for end in [End::Done, End::Conflict, End::Failed] {
            reconciles.with_label_values(&[end.as_str()]);
            for what in [What::Slot, What::Index, What::Status, What::Event] {
                writes.with_label_values(&[what.as_str(), end.as_str()]);
            }
        }
        Ok(Self { reconciles, reconcile_seconds, leader, sequence, writes })
    }

    pub(super) fn wrote(&self, what: What, end: End) {
        self.writes.with_label_values(&[what.as_str(), end.as_str()]).inc();
    }

    pub(super) fn reconciled(&self, end: End) {
        self.reconciles.with_label_values(&[end.as_str()]).inc();
    }
}

// === impl End, What ===

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Index => "index",
            Self::Status => "status",
            Self::Event => "event",
        }
    }
}
