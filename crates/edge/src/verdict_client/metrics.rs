//! What is counted of the way to the verdict. The label sets are closed: no address is a label.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::balancer::Standing;
use super::call::Call;

#[derive(Debug)]
pub(super) struct ClientMetrics {
    backends: [IntGauge; Standing::ALL.len()],
    failures: [IntCounter; FailureKind::ALL.len()],
    seconds: [Histogram; Call::ALL.len()],
    pub(super) retries: IntCounter,
    pub(super) reports_lost: IntCounter,
    complaints: [Complaint; FailureKind::ALL.len()],
    started: Instant,
}

/// What went wrong between edge and verdict: the label of `torwart_verdict_client_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FailureKind {
    /// No connection: refused, no route, no answer, or a failed TLS handshake.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke while an answer was waited for.
    Transport,
    /// It did not act: no policy yet, or going down.
    Refused,
    /// It has too many calls under way.
    Overload,
    /// The answer is not one to the question, or says nothing that makes sense.
    Malformed,
    /// It does not take our question: a version too far away, or a mistake of ours.
    Rejected,
    /// It failed within.
    Internal,
    /// It does not know the route that was asked for.
    UnknownRoute,
    /// It is of a version that does not know the call.
    Unimplemented,
    /// No address of the verdict is known.
    NoBackend,
    /// This edge has too many calls under way.
    Limit,
    /// A name was not resolved, or has no address. The addresses known before stay in use.
    Resolve,
}

/// When a kind was last complained of, and how often it was not.
#[derive(Debug, Default)]
struct Complaint {
    /// Milliseconds since `started`, and 1; 0: never.
    last: AtomicU64,
    kept_back: AtomicU64,
}

/// Upper bounds in seconds: a memory store answers within the first, a budget of 3 s for DNS ends in the last but one.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0];
/// One line a second for each kind is enough to see what is wrong.
const COMPLAINTS: Duration = Duration::from_secs(1);

// === impl ClientMetrics ===

impl ClientMetrics {
    /// Registers everything. An error means that a name was registered twice.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let backends = IntGaugeVec::new(
            Opts::new("torwart_verdict_backends", "Addresses of the verdict, by how they stand."),
            &["state"],
        )?;
        let failures = IntCounterVec::new(
            Opts::new("torwart_verdict_client_failures_total", "Faults on the way to the verdict, by kind."),
            &["kind"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "torwart_verdict_client_seconds",
                "How long a question to the verdict took, with all tries, by call.",
            )
            .buckets(BUCKETS.to_vec()),
            &["call"],
        )?;
        let retries = IntCounter::new(
            "torwart_verdict_client_retries_total",
            "Questions that were asked again at another address of the verdict.",
        )?;
        let reports_lost = IntCounter::new(
            "torwart_verdict_reports_lost_total",
            "Outcomes of transactions that did not reach the verdict.",
        )?;
        registry.register(Box::new(backends.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(retries.clone()))?;
        registry.register(Box::new(reports_lost.clone()))?;
        Ok(Self {
            backends: Standing::ALL.map(|standing| backends.with_label_values(&[standing.as_str()])),
            failures: FailureKind::ALL.map(|kind| failures.with_label_values(&[kind.as_str()])),
            seconds: Call::ALL.map(|call| seconds.with_label_values(&[call.as_str()])),
            retries,
            reports_lost,
            complaints: Default::default(),
            started: Instant::now(),
        })
    }

    pub(super) fn backends(&self, counts: [usize; Standing::ALL.len()]) {
        for (gauge, count) in self.backends.iter().zip(counts) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn took(&self, call: Call, time: Duration) {
        if let Some(histogram) = self.seconds.get(call as usize) {
            histogram.observe(time.as_secs_f64());
        }
    }

    /// Counts it, and says how many of this kind were not complained of, if it is time to complain again.
    pub(super) fn failed(&self, kind: FailureKind) -> Option<u64> {
        if let Some(counter) = self.failures.get(kind as usize) {
            counter.inc();
        }
        self.complaints.get(kind as usize)?.is_due(self.started.elapsed())
    }

    #[cfg(test)]
    pub(super) fn failures(&self, kind: FailureKind) -> u64 {
        self.failures.get(kind as usize).map_or(0, IntCounter::get)
    }

    #[cfg(test)]
    pub(super) fn counted(&self, standing: Standing) -> i64 {
        self.backends.get(standing as usize).map_or(0, IntGauge::get)
    }
}

// === impl Complaint ===

impl Complaint {
    fn is_due(&self, now: Duration) -> Option<u64> {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.last.load(Ordering::Relaxed);
        let pause = u64::try_from(COMPLAINTS.as_millis()).unwrap_or(u64::MAX);
        let is_due = (last == 0 || now.saturating_sub(last) >= pause)
            && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_due {
            self.kept_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.kept_back.swap(0, Ordering::Relaxed))
    }
}

// === impl FailureKind ===

impl FailureKind {
    pub(super) const ALL: [Self; 13] = [
        Self::Connect,
        Self::Timeout,
        Self::Transport,
        Self::Refused,
        Self::Overload,
        Self::Malformed,
        Self::Rejected,
        Self::Internal,
        Self::UnknownRoute,
        Self::Unimplemented,
        Self::NoBackend,
        Self::Limit,
        Self::Resolve,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Refused => "refused",
            Self::Overload => "overload",
            Self::Malformed => "malformed",
            Self::Rejected => "rejected",
            Self::Internal => "internal",
            Self::UnknownRoute => "unknown_route",
            Self::Unimplemented => "unimplemented",
            Self::NoBackend => "no_backend",
            Self::Limit => "limit",
            Self::Resolve => "resolve",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_has_its_own_child() {
        let metrics = ClientMetrics::new(&Registry::new()).unwrap();
        for kind in FailureKind::ALL {
            metrics.failed(kind);
            assert_eq!(metrics.failures(kind), 1, "{}", kind.as_str());
        }
        metrics.backends([1, 2, 3, 4]);
        assert_eq!(Standing::ALL.map(|standing| metrics.counted(standing)), [1, 2, 3, 4]);
        for call in Call::ALL {
            metrics.took(call, Duration::from_millis(1));
            assert_eq!(metrics.seconds[call as usize].get_sample_count(), 1);
        }
    }

    #[test]
    fn one_complaint_a_second_says_what_was_kept_back() {
        let complaint = Complaint::default();
        let at = |milliseconds| complaint.is_due(Duration::from_millis(milliseconds));
        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(1500), at(2500)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
