//! The report as JSON. The keys up to `checks` are part of the contract.

use std::io::{self, Write};

use serde::Serialize;
use torwart_core::{CheckResult, Greylist, Protocol, RecipientVerdict, Reply, Route};
use torwart_edge::Foretold;
use torwart_policy::model::RangeAction;
use torwart_verdict::explain::{RangeSeen, Why};

use super::report::{RecipientReport, Report, RetryReport};

#[derive(Serialize)]
struct Several<'a> {
    recipients: Vec<Line<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct One<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Line<'a> {
    action: &'static str,
    code: u16,
    enhanced: String,
    text: &'a str,
    reason: &'static str,
    score: f64,
    greylist: Option<&'static str>,
    domain: Option<&'a str>,
    route: Option<RouteLine>,
    ip_range: Option<&'a str>,
    revision: &'a str,
    checks: Vec<CheckLine<'a>>,
    to: String,
    /// The command that hears it.
    stage: &'static str,
    object: Option<&'a str>,
    step: Option<&'static str>,
    ip_range_level: Option<&'static str>,
    ip_range_action: Option<&'static str>,
    list: Option<ListLine<'a>>,
    identity: Option<&'a str>,
    enforced: bool,
    would_be: Option<WouldBe>,
    scoring: Option<ScoringLine>,
    greylist_key: Option<KeyLine<'a>>,
    retry: Option<RetryLine<'a>>,
    message: Option<MessageLine>,
}

#[derive(Serialize)]
struct RouteLine {
    digest: String,
    protocol: &'static str,
    upstreams: Vec<UpstreamLine>,
}

#[derive(Serialize)]
struct UpstreamLine {
    address: String,
    priority: u32,
    weight: u32,
}

#[derive(Serialize)]
struct ListLine<'a> {
    name: &'static str,
    level: &'static str,
    pattern: Option<&'a str>,
}

#[derive(Serialize)]
struct WouldBe {
    action: &'static str,
    reason: &'static str,
}

#[derive(Serialize)]
struct ScoringLine {
    tag_at: f64,
    greylist_at: f64,
    reject_at: f64,
}

#[derive(Serialize)]
struct KeyLine<'a> {
    domain: Option<&'a str>,
    identities: &'a [String],
    sender: &'a str,
    recipient: String,
    wait_seconds: Option<u32>,
}

#[derive(Serialize)]
struct RetryLine<'a> {
    after_seconds: u32,
    action: &'static str,
    code: u16,
    enhanced: String,
    text: &'a str,
    reason: &'static str,
    greylist: Option<&'static str>,
    route: Option<RouteLine>,
}

#[derive(Serialize)]
struct MessageLine {
    action: &'static str,
    reason: &'static str,
    score: f64,
}

#[derive(Serialize)]
struct CheckLine<'a> {
    name: &'a str,
    result: &'static str,
    score: f64,
    detail: &'a str,
    ms: u32,
}

/// One recipient is the object itself; several are in a list.
pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut lines: Vec<Line<'_>> =
        report.recipients.iter().map(|recipient| Line::of(report, recipient)).collect();
    let notes = &report.notes;
    match (lines.pop(), lines.is_empty()) {
        (Some(line), true) => serde_json::to_writer_pretty(&mut *out, &One { line, notes })?,
        (last, _) => {
            lines.extend(last);
            serde_json::to_writer_pretty(&mut *out, &Several { recipients: lines, notes })?;
        }
    }
    writeln!(out)
}

pub(super) fn word_of(action: RangeAction) -> &'static str {
    match action {
        RangeAction::Allow => "Allow",
        RangeAction::Check => "Check",
        RangeAction::Reject => "Reject",
        RangeAction::Defer => "Defer",
    }
}

pub(super) fn protocol(route: &Route) -> &'static str {
    match route.protocol {
        Protocol::Smtp => "SMTP",
        Protocol::Lmtp => "LMTP",
    }
}

/// As in the mail log: two decimals are enough for a score.
pub(super) fn rounded(score: f32) -> f64 {
    let score = if score.is_finite() { score } else { 0.0 };
    // adding 0 turns -0 into 0
    (f64::from(score) * 100.0).round() / 100.0 + 0.0
}

fn enhanced(reply: &Reply) -> String {
    let (class, subject, detail) = reply.enhanced;
    format!("{class}.{subject}.{detail}")
}

// === impl Line ===

impl<'a> Line<'a> {
    fn of(report: &'a Report, recipient: &'a RecipientReport) -> Self {
        let RecipientReport { to, heard, judged, retry } = recipient;
        let Foretold { moment, action, reply, reason } = heard;
        let verdict = judged.as_ref().map(|(verdict, _)| verdict);
        let why = judged.as_ref().map(|(_, why)| why);
        let range = match why {
            Some(why) => why.range.as_ref(),
            None => report.connection_range.as_ref(),
        };
        let domain = verdict.and_then(|verdict| verdict.domain.as_deref());
        let monitored = verdict.and_then(|verdict| verdict.monitored);
        Self {
            action: action.as_str(),
            code: reply.code,
            enhanced: enhanced(reply),
            text: &reply.text,
            reason: reason.as_str(),
            score: rounded(verdict.map_or(0.0, |verdict| verdict.score)),
            greylist: verdict.and_then(|verdict| verdict.greylist).map(Greylist::as_str),
            domain,
            route: why.and_then(|why| why.route.as_deref()).map(RouteLine::of),
            ip_range: range.map(|range| &*range.name),
            revision: &report.revision.0,
            checks: report.checks.iter().map(CheckLine::of).collect(),
            to: to.to_string(),
            stage: moment.as_str(),
            object: verdict.and_then(|verdict: &RecipientVerdict| verdict.object.as_deref()),
            step: why.map(|why| why.step.as_str()),
            ip_range_level: range.map(|range: &RangeSeen| range.level.as_str()),
            ip_range_action: range.map(|range| word_of(range.action)),
            list: why.and_then(|why| why.listed.as_ref()).map(|seen| ListLine {
                name: seen.list,
                level: seen.level.as_str(),
                pattern: seen.pattern.as_deref(),
            }),
            identity: report.identity.as_deref(),
            enforced: monitored.is_none(),
            would_be: monitored.map(|monitored| WouldBe {
                action: monitored.action.as_str(),
                reason: monitored.reason.as_str(),
            }),
            scoring: why.and_then(|why| why.scoring).map(|scoring| ScoringLine {
                tag_at: rounded(scoring.tag_at),
                greylist_at: rounded(scoring.greylist_at),
                reject_at: rounded(scoring.reject_at),
            }),
            greylist_key: why.and_then(|why: &Why| why.greylist.as_ref()).map(|seen| KeyLine {
                domain,
                identities: &seen.identities,
                sender: &seen.sender,
                recipient: to.to_string(),
                wait_seconds: seen.wait,
            }),
            retry: retry.as_ref().map(RetryLine::of),
            message: report.message.as_ref().map(|message| MessageLine {
                action: message.action.as_str(),
                reason: message.reason.as_str(),
                score: rounded(message.score),
            }),
        }
    }
}

// === impl RetryLine ===

impl<'a> RetryLine<'a> {
    fn of(retry: &'a RetryReport) -> Self {
        let RetryReport { after, heard, verdict, route } = retry;
        Self {
            after_seconds: *after,
            action: heard.action.as_str(),
            code: heard.reply.code,
            enhanced: enhanced(&heard.reply),
            text: &heard.reply.text,
            reason: heard.reason.as_str(),
            greylist: verdict.greylist.map(Greylist::as_str),
            route: route.as_deref().map(RouteLine::of),
        }
    }
}

// === impl RouteLine ===

impl RouteLine {
    fn of(route: &Route) -> Self {
        let upstream = |upstream: &torwart_core::Upstream| UpstreamLine {
            address: upstream.to_string(),
            priority: upstream.priority,
            weight: upstream.weight,
        };
        Self {
            digest: route.digest.to_string(),
            protocol: protocol(route),
            upstreams: route.upstreams.iter().map(upstream).collect(),
        }
    }
}

// === impl CheckLine ===

impl<'a> CheckLine<'a> {
    fn of(check: &'a CheckResult) -> Self {
        let CheckResult { name, result, score, detail, milliseconds } = check;
        Self { name, result: result.as_str(), score: rounded(*score), detail, ms: *milliseconds }
    }
}
