//! The order at RCPT, as a literal list: the first step that finds something decides.

use std::borrow::Cow;

use torwart_core::{Greylist, Reason};

use crate::greylist::Identity;
use crate::model::{GreylistMode, RangeAction, SenderEntry, SenderLists};
use crate::patterns::{AddressPattern, unquote};

use super::because::{Level, Listed, Step};
use super::{Case, Finding, Teaches, wording};

/// What a step found, and by which entry of a list.
pub(super) struct Found<'p> {
    pub(super) finding: Finding,
    pub(super) teaches: Teaches,
    pub(super) listed: Option<Listed<'p>>,
}

type Look = for<'p> fn(&Case<'_, 'p>) -> Option<Found<'p>>;

/// That the domain is ours was found before. What needs DNS (rates, lists, SPF, reverse DNS, HELO, sender domain)
/// gives scores, which are in the facts by now.
const STEPS: [(Step, Look); 14] = [
    (Step::RoutedLocalPart, routed_local_part),
    (Step::DeclaredSize, declared_size),
    (Step::RefusingRange, refusing_range),
    (Step::MissingTls, missing_tls),
    (Step::DeniedRecipient, denied_recipient),
    (Step::TrustedRange, trusted_range),
    (Step::ExemptRecipient, exempt_recipient),
    (Step::SenderLists, sender_lists),
    (Step::Score, score),
    (Step::UngreylistedRecipient, ungreylisted_recipient),
    (Step::GreylistingOff, greylisting_off),
    (Step::SuspectClient, suspect_client),
    (Step::NotSuspicious, not_suspicious),
    (Step::Greylist, greylist),
];

pub(super) fn walk<'p>(case: &Case<'_, 'p>) -> (Step, Found<'p>) {
    STEPS
        .iter()
        .find_map(|(step, look)| Some((*step, look(case)?)))
        .unwrap_or((Step::Greylist, Found::new(Finding::Greylist, Teaches::Trust)))
}

/// The percent hack, bang paths and a quoted `@` ask the server behind us to send the mail on: an open relay by
/// way of the upstream.
fn routed_local_part<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    if case.target.domain.recipients.allow_routed_local_parts {
        return None;
    }
    let local = unquote(&case.recipient.local);
    let routed = local.contains(['%', '!', '@']);
    routed.then(|| Found::refusal(Finding::Final(wording::routed_recipient())))
}

fn declared_size<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let declared = case.facts.declared_size?;
    let too_large = declared > case.target.domain.message_size;
    too_large.then(|| Found::refusal(Finding::Final(wording::message_too_large())))
}

fn refusing_range<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let refusal = match case.range?.action {
        RangeAction::Reject => wording::client_rejected(),
        RangeAction::Defer => wording::client_deferred(),
        RangeAction::Allow | RangeAction::Check => return None,
    };
    Some(Found::refusal(Finding::Refuse(refusal)))
}

/// The edge refuses mail before STARTTLS (RFC 3207), unless it was not told so in time for the banner. As at the
/// banner this holds in Monitor too.
fn missing_tls<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let missing = case.requires_tls && !case.facts.encrypted;
    missing.then(|| Found::refusal(Finding::Final(wording::tls_required())))
}

/// RFC 5321 section 4.5.1: a list of who exists does not do away with the postmaster; `deny` may.
fn denied_recipient<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let lists = &case.target.domain.recipients;
    if case.recipient.is_bare_postmaster() {
        return None;
    }
    let missing = !lists.accept.is_empty()
        && !case.recipient.local.eq_ignore_ascii_case("postmaster")
        && first_match(&lists.accept, case).is_none();
    let listed = if missing {
        Listed::UnlistedRecipient
    } else {
        Listed::DeniedRecipient(first_match(&lists.deny, case)?)
    };
    Some(Found::refusal(Finding::Refuse(wording::recipient_denied())).by(listed))
}

fn first_match<'p>(patterns: &'p [AddressPattern], case: &Case<'_, '_>) -> Option<&'p AddressPattern> {
    patterns.iter().find(|pattern| pattern.matches(case.recipient))
}

fn trusted_range<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    (case.range?.action == RangeAction::Allow).then(|| exempt(case, Reason::IpRange))
}

fn exempt_recipient<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    if case.recipient.is_bare_postmaster() {
        return Some(exempt(case, Reason::Accepted));
    }
    let pattern = first_match(&case.target.domain.recipients.exempt, case)?;
    Some(exempt(case, Reason::Accepted).by(Listed::ExemptRecipient(pattern)))
}

/// As with IP ranges: what the gateway denies stands, else the domain's word replaces the gateway's. Within one
/// level `allow` is the exception to `deny`.
fn sender_lists<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let gateway = listed(case, Level::Gateway, &case.policy.gateway.senders);
    let word = match gateway {
        Some(Listed::DeniedSender(..)) => gateway,
        _ => listed(case, Level::Domain, &case.target.domain.senders).or(gateway),
    };
    let word = word?;
    let found = match word {
        Listed::DeniedSender(..) => Found::refusal(Finding::Refuse(wording::sender_denied())),
        _ => exempt(case, Reason::SenderAllowed),
    };
    Some(found.by(word))
}

fn listed<'p>(case: &Case<'_, '_>, level: Level, lists: &'p SenderLists) -> Option<Listed<'p>> {
    let client = case.facts.client.to_canonical();
    let on = |entries: &'p [SenderEntry]| {
        let mut entries = entries.iter();
        entries
            .find(|entry| entry.applies(client, case.now) && entry.pattern.matches_sender(case.facts.sender))
            .map(|entry| &entry.pattern)
    };
    let allowed = on(&lists.allow).map(|pattern| Listed::AllowedSender(level, pattern));
    allowed.or_else(|| on(&lists.deny).map(|pattern| Listed::DeniedSender(level, pattern)))
}

fn score<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let Case { facts, weighed, .. } = case;
    let reject_at = case.target.domain.scoring.reject_at;
    let checked = !facts.checks.is_empty() || !facts.dns_lists.is_empty();
    if case.score < reject_at || !checked {
        return None;
    }
    let refusal = match &weighed.heaviest {
        Some(list) if weighed.against >= reject_at => wording::listed(list),
        _ => wording::score(),
    };
    Some(Found::refusal(Finding::Refuse(refusal)))
}

fn ungreylisted_recipient<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let local: Cow<'_, str> = unquote(&case.recipient.local);
    let names = &case.target.domain.greylisting.exempt_recipients;
    names.iter().any(|name| same_name(&local, name)).then(|| exempt(case, Reason::Accepted))
}

fn same_name(local: &str, lower: &str) -> bool {
    local.eq_ignore_ascii_case(lower) || (!local.is_ascii() && local.to_lowercase() == lower)
}

fn greylisting_off<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    if mode(case) != GreylistMode::Off {
        return None;
    }
    let teaches = if case.suspect { Teaches::Nothing } else { Teaches::Trust };
    Some(Found { teaches, ..exempt(case, Reason::Accepted) })
}

/// Neither uses the greylist nor feeds it.
fn suspect_client<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    case.suspect.then(|| exempt(case, Reason::Accepted))
}

/// Mode `Suspicious` greylists what has a score, and whoever is known by no more than its network; never whom an allow
/// list knows.
fn not_suspicious<'p>(case: &Case<'_, 'p>) -> Option<Found<'p>> {
    let strange = case.facts.sender.is_none()
        || case.score >= case.target.domain.scoring.greylist_at
        || !case.target.domain.greylisting.pool_identity
        || !case.facts.verified.iter().any(Identity::is_verified);
    let suspicious = mode(case) == GreylistMode::Always || (strange && !case.weighed.allowed);
    let finding = Finding::Accept { reason: Reason::Accepted, greylist: Greylist::NotSuspicious };
    (!suspicious).then_some(Found::new(finding, Teaches::Trust))
}

fn greylist<'p>(_: &Case<'_, 'p>) -> Option<Found<'p>> {
    Some(Found::new(Finding::Greylist, Teaches::Trust))
}

fn mode(case: &Case<'_, '_>) -> GreylistMode {
    case.range.and_then(|range| range.greylisting).unwrap_or(case.target.domain.greylisting.mode)
}

/// Accepted without greylisting; the delivery is remembered for this triplet alone.
fn exempt<'p>(case: &Case<'_, 'p>, reason: Reason) -> Found<'p> {
    let teaches = if case.suspect { Teaches::Nothing } else { Teaches::Triplet };
    Found::new(Finding::Accept { reason, greylist: Greylist::Exempt }, teaches)
}

// === impl Found ===

impl<'p> Found<'p> {
    fn new(finding: Finding, teaches: Teaches) -> Self {
        Self { finding, teaches, listed: None }
    }

    fn refusal(finding: Finding) -> Self {
        Self::new(finding, Teaches::Nothing)
    }

    fn by(self, listed: Listed<'p>) -> Self {
        Self { listed: Some(listed), ..self }
    }
}
