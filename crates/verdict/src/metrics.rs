//! Metrics, in a registry that is passed in. Label sets are closed; children are looked up once.

mod checks;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use torwart_core::{Action, Greylist, Monitored, Reason, RecipientVerdict, Revision};

use crate::store::StoreError;

pub use checks::CheckMetrics;

/// Where in the session a verdict is given: the label `stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connection,
    Recipients,
    /// From the message's end on.
    Message,
}

/// What the store is asked: the label `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOp {
    Check,
    Deliver,
    GiveBack,
    Revoke,
    Secret,
}

/// The verdict's metrics (CONTRACT.md has their names).
#[derive(Debug)]
pub struct Metrics {
    verdicts: IntCounterVec,
    verdict_cells: Vec<OnceLock<IntCounter>>,
    greylist: Vec<IntCounter>,
    greylist_delay: Histogram,
    verdict_seconds: [Histogram; Stage::ALL.len()],
    store_seconds: Vec<Histogram>,
    store_failures: Vec<IntCounter>,
    suspects: IntCounter,
    calls_in_flight: IntGauge,
    policy_info: IntGaugeVec,
    policy_load_failures: IntCounter,
}

/// A call that is being answered, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'a>(&'a IntGauge);

/// Observes the time from its making to its drop, however that comes about.
#[derive(Debug)]
pub(crate) struct Timer<'a> {
    histogram: Option<&'a Histogram>,
    started: Instant,
}

/// From 10 microseconds (a verdict from memory) to the 10 seconds after which nobody waits.
const SECONDS: [f64; 13] =
    [0.00001, 0.000025, 0.0001, 0.00025, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
/// From the delay to the retry window, as far as senders' queues differ: 5, 10, 15, 30 minutes, 1 to 48 hours.
const DELAYS: [f64; 10] = [300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0, 172_800.0];

const ACTIONS: [Action; 3] = [Action::Accept, Action::Defer, Action::Reject];

// === impl Metrics ===

impl Metrics {
    /// Errs if one of the names is taken in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let verdicts = IntCounterVec::new(
            Opts::new(
                "torwart_verdicts_total",
                "Verdicts given; enforced=\"false\" is what would have been in Monitor",
            ),
            &["stage", "action", "reason", "enforced"],
        )?;
        registry.register(Box::new(verdicts.clone()))?;
        let greylist = IntCounterVec::new(
            Opts::new("torwart_greylist_total", "Recipients by what greylisting said of them"),
            &["outcome"],
        )?;
        registry.register(Box::new(greylist.clone()))?;
        let greylist_delay = Histogram::with_opts(
            HistogramOpts::new(
                "torwart_greylist_delay_seconds",
                "How long mail that passed had been held up",
            )
            .buckets(DELAYS.to_vec()),
        )?;
        registry.register(Box::new(greylist_delay.clone()))?;
        let verdict_seconds = HistogramVec::new(
            HistogramOpts::new("torwart_verdict_seconds", "Time that a verdict took")
                .buckets(SECONDS.to_vec()),
            &["stage"],
        )?;
        registry.register(Box::new(verdict_seconds.clone()))?;
        let store_seconds = HistogramVec::new(
            HistogramOpts::new("torwart_store_seconds", "Time that the greylist store took")
                .buckets(SECONDS.to_vec()),
            &["op"],
        )?;
        registry.register(Box::new(store_seconds.clone()))?;
        let store_failures = IntCounterVec::new(
            Opts::new("torwart_store_failures_total", "Questions that the greylist store did not answer"),
            &["kind"],
        )?;
        registry.register(Box::new(store_failures.clone()))?;
        let suspects = IntCounter::new(
            "torwart_client_address_suspect_total",
            "Questions about clients whose address no sender on the internet has: client addresses may be lost",
        )?;
        registry.register(Box::new(suspects.clone()))?;
        let calls_in_flight = IntGauge::new(
            "torwart_verdict_calls_in_flight",
            "Questions and reports that are being answered",
        )?;
        registry.register(Box::new(calls_in_flight.clone()))?;
        let policy_info = IntGaugeVec::new(
            Opts::new("torwart_policy_info", "The policy in force, by its revision"),
            &["revision"],
        )?;
        registry.register(Box::new(policy_info.clone()))?;
        let policy_load_failures = IntCounter::new(
            "torwart_policy_load_failures_total",
            "Policies that could not be read or held a mistake; what was good before stays in force",
        )?;
        registry.register(Box::new(policy_load_failures.clone()))?;

        let stages = Stage::ALL.map(Stage::as_str);
        Ok(Self {
            verdict_cells: std::iter::repeat_with(OnceLock::new)
                .take(stages.len() * ACTIONS.len() * Reason::ALL.len() * 2)
                .collect(),
            verdicts,
            greylist: Greylist::ALL
                .iter()
                .map(|outcome| greylist.with_label_values(&[outcome.as_str()]))
                .collect(),
            greylist_delay,
            verdict_seconds: stages.map(|stage| verdict_seconds.with_label_values(&[stage])),
            store_seconds: StoreOp::ALL
                .iter()
                .map(|op| store_seconds.with_label_values(&[op.as_str()]))
                .collect(),
            store_failures: StoreError::KINDS
                .iter()
                .map(|kind| store_failures.with_label_values(&[kind]))
                .collect(),
            suspects,
            calls_in_flight,
            policy_info,
            policy_load_failures,
        })
    }

    /// A policy could not be loaded, or held a mistake.
    pub fn policy_load_failed(&self) {
        self.policy_load_failures.inc();
    }

    pub(crate) fn policy_loaded(&self, revision: &Revision) {
        self.policy_info.reset();
        self.policy_info.with_label_values(&[&*revision.0]).set(1);
    }

    /// Counts what was judged: with `monitored`, that instead of what holds.
    pub(crate) fn verdict(&self, stage: Stage, action: Action, reason: Reason, monitored: Option<Monitored>) {
        let (action, reason) = monitored.map_or((action, reason), |would| (would.action, would.reason));
        let enforced = monitored.is_none();
        let action_index = ACTIONS.iter().position(|other| *other == action).unwrap_or_default();
        let reason_index = Reason::ALL.iter().position(|other| *other == reason).unwrap_or_default();
        let row = stage as usize * ACTIONS.len() + action_index;
        let index = (row * Reason::ALL.len() + reason_index) * 2 + usize::from(enforced);
        if let Some(cell) = self.verdict_cells.get(index) {
            cell.get_or_init(|| {
                let enforced = if enforced { "true" } else { "false" };
                self.verdicts.with_label_values(&[stage.as_str(), action.as_str(), reason.as_str(), enforced])
            })
            .inc();
        }
    }

    pub(crate) fn recipient(&self, verdict: &RecipientVerdict) {
        self.verdict(Stage::Recipients, verdict.action, verdict.reason, verdict.monitored);
        let outcome =
            verdict.greylist.and_then(|outcome| Greylist::ALL.iter().position(|other| *other == outcome));
        if let Some(counter) = outcome.and_then(|index| self.greylist.get(index)) {
            counter.inc();
        }
    }

    pub(crate) fn held_up(&self, seconds: u32) {
        self.greylist_delay.observe(f64::from(seconds));
    }

    pub(crate) fn suspect(&self) {
        self.suspects.inc();
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        let kind = StoreError::KINDS.iter().position(|kind| *kind == error.kind());
        if let Some(counter) = kind.and_then(|index| self.store_failures.get(index)) {
            counter.inc();
        }
    }

    pub(crate) fn call(&self) -> InFlight<'_> {
        self.calls_in_flight.inc();
        InFlight(&self.calls_in_flight)
    }

    pub(crate) fn time_verdict(&self, stage: Stage) -> Timer<'_> {
        Timer::start(self.verdict_seconds.get(stage as usize))
    }

    pub(crate) fn time_store(&self, op: StoreOp) -> Timer<'_> {
        Timer::start(self.store_seconds.get(op as usize))
    }
}

// === impl Stage, StoreOp ===

impl Stage {
    const ALL: [Self; 3] = [Self::Connection, Self::Recipients, Self::Message];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Recipients => "recipients",
            Self::Message => "message",
        }
    }
}

impl StoreOp {
    const ALL: [Self; 5] = [Self::Check, Self::Deliver, Self::GiveBack, Self::Revoke, Self::Secret];

    fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Deliver => "deliver",
            Self::GiveBack => "give_back",
            Self::Revoke => "revoke",
            Self::Secret => "secret",
        }
    }

    /// The name of its span in a trace.
    pub(crate) fn span_name(self) -> &'static str {
        match self {
            Self::Check => "store check",
            Self::Deliver => "store deliver",
            Self::GiveBack => "store give_back",
            Self::Revoke => "store revoke",
            Self::Secret => "store secret",
        }
    }
}

// === impl Timer, InFlight ===

impl<'a> Timer<'a> {
    fn start(histogram: Option<&'a Histogram>) -> Self {
        Self { histogram, started: Instant::now() }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let seconds: Duration = self.started.elapsed();
        if let Some(histogram) = self.histogram {
            histogram.observe(seconds.as_secs_f64());
        }
    }
}
