//! Which sessions are traced, and what their spans and attributes are called. `docs/tracing.md` explains each.
//!
//! A session's span is kept by the session, a transaction's by the transaction; neither is ever entered, so nothing is
//! current while the client is waited for. Only the calls that may trace further (to the verdict, to an upstream) run
//! inside a span. A session that is not traced has [`Span::none`] in these places, and everything below it follows.

use std::sync::atomic::{AtomicU64, Ordering};

use torwart_core::{Id, TlsFacts};
use torwart_proto::trace::{attribute, child, fail, root};
use tracing::Span;

use crate::metrics::SessionOutcome;
use crate::reply::Said;
use crate::scatter::scatter;

/// From accept to the last reply.
pub(crate) const SESSION: &str = "smtp session";
/// From the first RCPT to the last reply.
pub(crate) const TRANSACTION: &str = "transaction";
/// A question to the verdict.
pub(crate) const VERDICT: &str = "verdict check";
/// A route that is not known yet.
pub(crate) const ROUTE: &str = "verdict route";
/// The report of how a transaction ended.
pub(crate) const REPORT: &str = "verdict report";
/// MAIL and RCPT, with the wait for a connection.
pub(crate) const RECIPIENTS: &str = "upstream recipients";
/// A new connection: name, TCP, banner, EHLO, STARTTLS.
pub(crate) const CONNECT: &str = "upstream connect";
/// From DATA to the answer to the dot.
pub(crate) const MESSAGE: &str = "upstream message";

#[cfg(test)]
pub(crate) const NAMES: [&str; 8] =
    [SESSION, TRANSACTION, VERDICT, ROUTE, REPORT, RECIPIENTS, CONNECT, MESSAGE];

/// The id of the session or the transaction, as in the mail log.
pub(crate) const ID: &str = "torwart.id";
pub(crate) const OUTCOME: &str = "torwart.outcome";
pub(crate) const TLS: &str = "torwart.tls";
pub(crate) const STAGE: &str = "torwart.stage";
pub(crate) const CODE: &str = "torwart.code";
pub(crate) const REASON: &str = "torwart.reason";
pub(crate) const COUNT: &str = "torwart.recipients";
pub(crate) const ACCEPTED: &str = "torwart.accepted";
pub(crate) const SIZE: &str = "torwart.size";
pub(crate) const FAILURE: &str = "torwart.failure";

#[cfg(test)]
pub(crate) const ATTRIBUTES: [&str; 10] =
    [ID, OUTCOME, TLS, STAGE, CODE, REASON, COUNT, ACCEPTED, SIZE, FAILURE];

/// `--trace-sample-ratio`: decides once per session.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// The share of all numbers that are hits, less one; `None`: no session is traced.
    highest: Option<u64>,
    count: AtomicU64,
}

// === impl Sampling ===

impl Sampling {
    /// `ratio` is the share of sessions, 0 to 1; `None`, 0 and what is no number trace none.
    pub(crate) fn new(ratio: Option<f64>, random: u64) -> Self {
        // 1 is more than an u64 can say, and the cast makes it the largest
        let highest = ratio.map(|ratio| (ratio * 2f64.powi(64)) as u64).filter(|highest| *highest > 0);
        Self { highest, count: AtomicU64::new(random) }
    }

    /// The span of a session that begins now.
    pub(crate) fn session(&self) -> Span {
        if self.hits() { root(SESSION) } else { Span::none() }
    }

    fn hits(&self) -> bool {
        let Some(highest) = self.highest else { return false };
        scatter(self.count.fetch_add(1, Ordering::Relaxed)) <= highest
    }
}

/// The span of a question to the verdict.
pub(crate) fn question(parent: &Span, stage: &'static str) -> Span {
    let span = child(parent, VERDICT);
    attribute(&span, STAGE, stage);
    span
}

/// Notes whose session or transaction it is.
pub(crate) fn name(span: &Span, id: Id) {
    if !span.is_disabled() {
        attribute(span, ID, id.to_string());
    }
}

pub(crate) fn count(span: &Span, key: &'static str, count: usize) {
    attribute(span, key, i64::try_from(count).unwrap_or(i64::MAX));
}

/// Notes what the client hears.
pub(crate) fn heard(span: &Span, said: &Said) {
    attribute(span, CODE, i64::from(said.reply.code));
    attribute(span, REASON, said.reason.as_str());
}

/// Notes that the upstream did not do what was asked.
pub(crate) fn refused(span: &Span, said: &Said) {
    heard(span, said);
    fail(span, "refused or failed");
}

pub(crate) fn end_session(span: &Span, id: Id, tls: Option<&TlsFacts>, outcome: SessionOutcome) {
    if span.is_disabled() {
        return;
    }
    name(span, id);
    if let Some(tls) = tls {
        attribute(span, TLS, tls.version.to_string());
    }
    attribute(span, OUTCOME, outcome.as_str());
    ended(span);
}

/// The end of what the span stands for. Parts of it that run on (the report) do not make it longer: the time of the last
/// exit counts.
pub(crate) fn ended(span: &Span) {
    span.in_scope(|| ());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(ratio: Option<f64>) -> usize {
        let sampling = Sampling::new(ratio, 7);
        (0..10_000).filter(|_| sampling.hits()).count()
    }

    #[test]
    fn the_ratio_decides_how_many_sessions_are_traced() {
        for none in [None, Some(0.0), Some(-1.0), Some(f64::NAN)] {
            assert_eq!(hits(none), 0, "{none:?}");
        }
        assert_eq!(hits(Some(1.0)), 10_000);
        assert_eq!(hits(Some(7.0)), 10_000);
        assert!((2_300..2_700).contains(&hits(Some(0.25))), "{}", hits(Some(0.25)));
    }

    #[test]
    fn every_span_and_attribute_stands_in_the_docs() {
        let page = include_str!("../../../docs/tracing.md");
        for name in NAMES.into_iter().chain(ATTRIBUTES) {
            assert!(page.contains(&format!("| `{name}`")), "{name} is not in docs/tracing.md");
        }
    }
}
