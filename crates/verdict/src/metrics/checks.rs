//! What the checks took, and how often they failed.

use std::time::Duration;

use prometheus::{Error, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The checks' metrics (CONTRACT.md has their names). Labels are the check's name, of which a policy has a bounded
/// number. Clones count together.
#[derive(Clone, Debug)]
pub struct CheckMetrics {
    seconds: HistogramVec,
    failures: IntCounterVec,
    dns_list_usable: IntGaugeVec,
}

/// From what is remembered to the budget of all checks at RCPT.
const SECONDS: [f64; 10] = [0.00001, 0.0001, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 3.0];

// === impl CheckMetrics ===

impl CheckMetrics {
    /// Errs if one of the names is taken in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let seconds = HistogramVec::new(
            HistogramOpts::new("torwart_check_seconds", "Time that a check took").buckets(SECONDS.to_vec()),
            &["check"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let failures = IntCounterVec::new(
            Opts::new("torwart_check_failures_total", "Checks that came to no result"),
            &["check", "kind"],
        )?;
        registry.register(Box::new(failures.clone()))?;
        let dns_list_usable = IntGaugeVec::new(
            Opts::new(
                "torwart_dns_list_usable",
                "1: the DNS list works, as far as its probes tell; 0: it is not asked",
            ),
            &["list"],
        )?;
        registry.register(Box::new(dns_list_usable.clone()))?;
        Ok(Self { seconds, failures, dns_list_usable })
    }

    pub(crate) fn took(&self, check: &str, time: Duration) {
        self.seconds.with_label_values(&[check]).observe(time.as_secs_f64());
    }

    pub(crate) fn failed(&self, check: &str, kind: &str) {
        self.failures.with_label_values(&[check, kind]).inc();
    }

    pub(crate) fn dns_list_usable(&self, list: &str, usable: bool) {
        self.dns_list_usable.with_label_values(&[list]).set(usable.into());
    }

    /// The policy has this list no more.
    pub(crate) fn dns_list_gone(&self, list: &str) {
        // There is nothing to take away if it was never probed.
        let _ = self.dns_list_usable.remove_label_values(&[list]);
    }
}
