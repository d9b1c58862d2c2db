//! The order at RCPT, as a literal list: the first step that finds something decides.

use std::borrow::Cow;

use torwart_core::{Greylist, Reason};

use crate::greylist::Identity;
use crate::model::{GreylistMode, RangeAction, SenderLists};
use crate::patterns::unquote;

use super::{Case, Finding, Teaches, wording};

type Step = fn(&Case<'_, '_>) -> Option<(Finding, Teaches)>;

/// That the domain is ours was found before. What needs DNS (rates, lists, SPF, reverse DNS, HELO, sender domain)
/// gives scores, which are in the facts by now.
const STEPS: [Step; 14] = [
    routed_local_part,
    declared_size,
    refusing_range,
    missing_tls,
    denied_recipient,
    trusted_range,
    exempt_recipient,
    sender_lists,
    score,
    ungreylisted_recipient,
    greylisting_off,
    suspect_client,
    not_suspicious,
    greylist,
];

pub(super) fn walk(case: &Case<'_, '_>) -> (Finding, Teaches) {
    STEPS.iter().find_map(|step| step(case)).unwrap_or((Finding::Greylist, Teaches::Trust))
}

/// The percent hack, bang paths and a quoted `@` ask the server behind us to send the mail on: an open relay by
/// way of the upstream.
fn routed_local_part(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    if case.target.domain.recipients.allow_routed_local_parts {
        return None;
    }
    let local = unquote(&case.recipient.local);
    let routed = local.contains(['%', '!', '@']);
    routed.then(|| (Finding::Final(wording::routed_recipient()), Teaches::Nothing))
}

fn declared_size(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let declared = case.facts.declared_size?;
    let too_large = declared > case.target.domain.message_size;
    too_large.then(|| (Finding::Final(wording::message_too_large()), Teaches::Nothing))
}

fn refusing_range(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let refusal = match case.range?.action {
        RangeAction::Reject => wording::client_rejected(),
        RangeAction::Defer => wording::client_deferred(),
        RangeAction::Allow | RangeAction::Check => return None,
    };
    Some((Finding::Refuse(refusal), Teaches::Nothing))
}

/// The edge refuses mail before STARTTLS (RFC 3207), unless it was not told so in time for the banner. As at the
/// banner this holds in Monitor too.
fn missing_tls(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let missing = case.requires_tls && !case.facts.encrypted;
    missing.then(|| (Finding::Final(wording::tls_required()), Teaches::Nothing))
}

/// RFC 5321 section 4.5.1: a list of who exists does not do away with the postmaster; `deny` may.
fn denied_recipient(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let lists = &case.target.domain.recipients;
    let matches = |patterns: &[crate::patterns::AddressPattern]| {
        patterns.iter().any(|pattern| pattern.matches(case.recipient))
    };
    if case.recipient.is_bare_postmaster() {
        return None;
    }
    let missing = !lists.accept.is_empty()
        && !case.recipient.local.eq_ignore_ascii_case("postmaster")
        && !matches(&lists.accept);
    (missing || matches(&lists.deny))
        .then(|| (Finding::Refuse(wording::recipient_denied()), Teaches::Nothing))
}

fn trusted_range(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    (case.range?.action == RangeAction::Allow).then(|| exempt(case, Reason::IpRange))
}

fn exempt_recipient(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let exempt_patterns = &case.target.domain.recipients.exempt;
    let is_exempt = case.recipient.is_bare_postmaster()
        || exempt_patterns.iter().any(|pattern| pattern.matches(case.recipient));
    is_exempt.then(|| exempt(case, Reason::Accepted))
}

/// As with IP ranges: what the gateway denies stands, else the domain's word replaces the gateway's. Within one
/// level `allow` is the exception to `deny`.
fn sender_lists(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let gateway = listed(case, &case.policy.gateway.senders);
    let word = match gateway {
        Some(Listed::Denied) => gateway,
        _ => listed(case, &case.target.domain.senders).or(gateway),
    };
    match word? {
        Listed::Allowed => Some(exempt(case, Reason::SenderAllowed)),
        Listed::Denied => Some((Finding::Refuse(wording::sender_denied()), Teaches::Nothing)),
    }
}

#[derive(Clone, Copy)]
enum Listed {
    Allowed,
    Denied,
}

fn listed(case: &Case<'_, '_>, lists: &SenderLists) -> Option<Listed> {
    let client = case.facts.client.to_canonical();
    let on = |entries: &[crate::model::SenderEntry]| {
        let mut entries = entries.iter();
        entries
            .any(|entry| entry.applies(client, case.now) && entry.pattern.matches_sender(case.facts.sender))
    };
    if on(&lists.allow) {
        Some(Listed::Allowed)
    } else if on(&lists.deny) {
        Some(Listed::Denied)
    } else {
        None
    }
}

fn score(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let refused = case.score >= case.target.domain.scoring.reject_at && !case.facts.checks.is_empty();
    refused.then(|| (Finding::Refuse(wording::score()), Teaches::Nothing))
}

fn ungreylisted_recipient(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let local: Cow<'_, str> = unquote(&case.recipient.local);
    let names = &case.target.domain.greylisting.exempt_recipients;
    names.iter().any(|name| same_name(&local, name)).then(|| exempt(case, Reason::Accepted))
}

fn same_name(local: &str, lower: &str) -> bool {
    local.eq_ignore_ascii_case(lower) || (!local.is_ascii() && local.to_lowercase() == lower)
}

fn greylisting_off(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    if mode(case) != GreylistMode::Off {
        return None;
    }
    let (finding, _) = exempt(case, Reason::Accepted);
    Some((finding, if case.suspect { Teaches::Nothing } else { Teaches::Trust }))
}

/// Neither uses the greylist nor feeds it.
fn suspect_client(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    case.suspect.then(|| exempt(case, Reason::Accepted))
}

/// Mode `Suspicious` greylists what has a score, and whoever is known by no more than its network.
fn not_suspicious(case: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    let suspicious = mode(case) == GreylistMode::Always
        || case.facts.sender.is_none()
        || case.score >= case.target.domain.scoring.greylist_at
        || !case.target.domain.greylisting.pool_identity
        || !case.facts.verified.iter().any(Identity::is_verified);
    let finding = Finding::Accept { reason: Reason::Accepted, greylist: Greylist::NotSuspicious };
    (!suspicious).then_some((finding, Teaches::Trust))
}

fn greylist(_: &Case<'_, '_>) -> Option<(Finding, Teaches)> {
    Some((Finding::Greylist, Teaches::Trust))
}

fn mode(case: &Case<'_, '_>) -> GreylistMode {
    case.range.and_then(|range| range.greylisting).unwrap_or(case.target.domain.greylisting.mode)
}

/// Accepted without greylisting; the delivery is remembered for this triplet alone.
fn exempt(case: &Case<'_, '_>, reason: Reason) -> (Finding, Teaches) {
    let teaches = if case.suspect { Teaches::Nothing } else { Teaches::Triplet };
    (Finding::Accept { reason, greylist: Greylist::Exempt }, teaches)
}
