//! Whether numbers make sense together: greylisting, checks, scoring, limits. All are given with every default in
//! them; `path` says where the author would look.

use torwart_api::limits::{MAX_AUTO_PASS_AFTER, MAX_DNS_LISTS, MAX_EXEMPT_RECIPIENTS, MAX_TRUSTED_SEALERS};
use torwart_api::{Checks, Greylisting, Limits, Scoring};

use super::{Errors, defaults};
use crate::domains::ascii_name;

pub(crate) fn greylisting(path: &str, value: &Greylisting, errors: &mut Errors) {
    let (delay, window, ttl) = (
        value.delay.unwrap_or_default(),
        value.retry_window.unwrap_or_default(),
        value.pass_ttl.unwrap_or_default(),
    );
    if delay >= window {
        errors.add(
            format!("{path}.delay"),
            format!("is {delay}, which is not less than retryWindow ({window}): no retry would ever count"),
        );
    }
    if window >= ttl {
        errors.add(
            format!("{path}.retryWindow"),
            format!(
                "is {window}, which is not less than passTTL ({ttl}): who passed would be forgotten too soon"
            ),
        );
    }
    let prefix = value.prefix.clone().unwrap_or_default();
    for (name, length, allowed) in
        [("ipv4", prefix.ipv4, defaults::PREFIX_IPV4), ("ipv6", prefix.ipv6, defaults::PREFIX_IPV6)]
    {
        if let Some(length) = length.filter(|length| !allowed.contains(length)) {
            errors.add(
                format!("{path}.prefix.{name}"),
                format!("is {length}; it must be from {} to {}", allowed.start(), allowed.end()),
            );
        }
    }
    if let Some(after) = value.auto_pass_after.filter(|after| *after > MAX_AUTO_PASS_AFTER) {
        errors.add(
            format!("{path}.autoPassAfter"),
            format!("is {after}; it can be {MAX_AUTO_PASS_AFTER} at most"),
        );
    }
    let exempt = value.exempt_recipients.as_deref().unwrap_or_default();
    errors.check_length(&format!("{path}.exemptRecipients"), exempt, MAX_EXEMPT_RECIPIENTS);
    for (index, local) in exempt.iter().enumerate() {
        if local.is_empty()
            || local.len() > 64
            || local.contains('@')
            || local.chars().any(char::is_whitespace)
        {
            errors.add(
                format!("{path}.exemptRecipients[{index}]"),
                format!("is {local:?}; write the part before the @ alone, such as postmaster"),
            );
        }
    }
}

pub(crate) fn checks(path: &str, value: &Checks, dns: &[String], uri: &[String], errors: &mut Errors) {
    let Checks {
        dns_lists,
        uri_lists,
        spf,
        reverse_dns,
        helo,
        sender_domain,
        dkim: _,
        dmarc,
        arc,
        early_talker,
    } = value;
    let mut numbers: Vec<(&str, Option<f64>)> = Vec::new();
    if let Some(check) = spf {
        numbers.push(("spf.failScore", check.fail_score));
        numbers.push(("spf.softFailScore", check.soft_fail_score));
        numbers.push(("spf.permissiveScore", check.permissive_score));
    }
    if let Some(check) = reverse_dns {
        numbers.push(("reverseDNS.missingScore", check.missing_score));
        numbers.push(("reverseDNS.mismatchScore", check.mismatch_score));
        numbers.push(("reverseDNS.genericScore", check.generic_score));
    }
    if let Some(check) = helo {
        numbers.push(("helo.invalidScore", check.invalid_score));
        numbers.push(("helo.oursScore", check.ours_score));
    }
    if let Some(check) = sender_domain {
        numbers.push(("senderDomain.missingScore", check.missing_score));
        numbers.push(("senderDomain.nullMXScore", check.null_mx_score));
    }
    if let Some(check) = dmarc {
        numbers.push(("dmarc.rejectScore", check.reject_score));
        numbers.push(("dmarc.quarantineScore", check.quarantine_score));
    }
    if let Some(check) = early_talker {
        numbers.push(("earlyTalker.score", check.score));
        if let Some(delay) = check.greet_delay.filter(|delay| *delay > defaults::MAX_GREET_DELAY) {
            errors.add(
                format!("{path}.earlyTalker.greetDelay"),
                format!("is {delay}; it can be {} at most", defaults::MAX_GREET_DELAY),
            );
        }
    }
    for (name, number) in numbers {
        if let Some(number) = number {
            check_penalty(&format!("{path}.{name}"), number, errors);
        }
    }
    let only = dns_lists.as_ref().and_then(|check| check.only.as_deref()).unwrap_or_default();
    check_only(&format!("{path}.dnsLists.only"), only, dns, "spec.dnsLists", errors);
    let only = uri_lists.as_ref().and_then(|check| check.only.as_deref()).unwrap_or_default();
    check_only(&format!("{path}.uriLists.only"), only, uri, "spec.uriLists", errors);
    let sealers = arc.as_ref().and_then(|arc| arc.trusted_sealers.as_deref()).unwrap_or_default();
    errors.check_length(&format!("{path}.arc.trustedSealers"), sealers, MAX_TRUSTED_SEALERS);
    for (index, sealer) in sealers.iter().enumerate() {
        if let Err(error) = ascii_name(sealer) {
            errors.add(format!("{path}.arc.trustedSealers[{index}]"), format!("is {sealer:?}; it {error}"));
        }
    }
}

fn check_only(path: &str, only: &[String], known: &[String], home: &str, errors: &mut Errors) {
    errors.check_length(path, only, MAX_DNS_LISTS);
    for (index, name) in only.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
        errors.add(
            format!("{path}[{index}]"),
            format!("is {name:?}, which is not in {home} of the MailGateway"),
        );
    }
}

pub(crate) fn scoring(path: &str, value: &Scoring, errors: &mut Errors) {
    let (tag, greylist, reject) = (
        value.tag_at.unwrap_or_default(),
        value.greylist_at.unwrap_or_default(),
        value.reject_at.unwrap_or_default(),
    );
    for (name, number) in [("tagAt", tag), ("greylistAt", greylist), ("rejectAt", reject)] {
        score(&format!("{path}.{name}"), number, errors);
    }
    if reject <= 0.0 {
        errors.add(
            format!("{path}.rejectAt"),
            format!("is {reject}; it must be above 0, or all mail would be refused"),
        );
    }
    for (name, number) in [("tagAt", tag), ("greylistAt", greylist)] {
        if number > reject {
            errors.add(
                format!("{path}.{name}"),
                format!("is {number}, which is above rejectAt ({reject}): it would never come to that"),
            );
        }
    }
}

pub(crate) fn limits(path: &str, value: &Limits, errors: &mut Errors) {
    if let Some(size) = value.message_size {
        let (least, most) = (defaults::MIN_MESSAGE_SIZE, defaults::MAX_MESSAGE_SIZE);
        if !(least..=most).contains(&size) {
            errors
                .add(format!("{path}.messageSize"), format!("is {size}; it must be from {least} to {most}"));
        }
    }
    if let Some(recipients) =
        value.recipients.filter(|number| !(1..=defaults::MAX_RECIPIENTS).contains(number))
    {
        errors.add(
            format!("{path}.recipients"),
            format!("is {recipients}; it must be from 1 to {}", defaults::MAX_RECIPIENTS),
        );
    }
}

/// Scores are held as f32: a tenth is as fine as anyone counts.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn narrow(score: f64) -> f32 {
    score as f32
}

/// A score of either sign.
pub(crate) fn score(path: &str, number: f64, errors: &mut Errors) {
    let most = defaults::MAX_SCORE;
    if !(-most..=most).contains(&number) {
        errors.add(path, format!("is {number}; it must be from -{most} to {most}"));
    }
}

/// A score that can only speak against a message.
fn check_penalty(path: &str, number: f64, errors: &mut Errors) {
    let most = defaults::MAX_SCORE;
    if !(0.0..=most).contains(&number) {
        errors.add(path, format!("is {number}; it must be from 0 to {most}"));
    }
}
