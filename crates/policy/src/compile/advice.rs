//! What is accepted as it stands, but is hardly what its author meant.

use torwart_api::{
    Greylisting, IpRange, MailDomainSpec, MailGatewaySpec, RangeAction, SenderEntry, SenderLists,
};

use super::FieldError;
use crate::greylist::MAX_COUNTED_SENDERS;
use crate::model::{DomainMatch, Policy};
use crate::patterns::{AddressDomain, AddressPattern, LocalPattern};

/// Warnings about a MailGateway. `now` is in Unix seconds.
pub(crate) fn gateway(spec: &MailGatewaySpec, now: i64) -> Vec<FieldError> {
    let mut warnings = Vec::new();
    ranges(&spec.ip_ranges, now, &mut warnings);
    senders(spec.senders.as_ref(), now, &mut warnings);
    let defaults = spec.defaults.as_ref().and_then(|defaults| defaults.greylisting.as_ref());
    greylisting("spec.defaults.greylisting", defaults, &mut warnings);
    warnings
}

/// Warnings about a MailDomain. `now` is in Unix seconds.
pub(crate) fn domain(spec: &MailDomainSpec, now: i64) -> Vec<FieldError> {
    let mut warnings = Vec::new();
    ranges(&spec.ip_ranges, now, &mut warnings);
    senders(spec.senders.as_ref(), now, &mut warnings);
    greylisting("spec.greylisting", spec.greylisting.as_ref(), &mut warnings);
    warnings
}

/// RFC 5321 section 4.5.1: every server takes mail for `<postmaster>`, without a domain. It must lead somewhere.
pub(crate) fn postmaster(policy: &Policy, now: i64) -> Option<FieldError> {
    let message = match &policy.gateway.postmaster {
        None => "is left out, so mail to <postmaster> alone is answered with 451; name an address in one of the mail \
                 domains"
            .to_owned(),
        Some(postmaster) => match policy.domains.find(&postmaster.domain, now) {
            // Why it is held is a mistake of its own.
            DomainMatch::Known { .. } | DomainMatch::Held => return None,
            DomainMatch::Removed { .. } | DomainMatch::Unknown => format!(
                "is {postmaster}, but {} is not among the mail domains: mail to <postmaster> alone is answered with 451",
                postmaster.domain
            ),
        },
    };
    Some(FieldError::new("spec.postmaster", message))
}

fn ranges(ranges: &[IpRange], now: i64, warnings: &mut Vec<FieldError>) {
    for (index, range) in ranges.iter().enumerate() {
        let at = format!("spec.ipRanges[{index}]");
        if range.expires.is_some_and(|at| at.unix_seconds() <= now) {
            warn(warnings, format!("{at}.expires"), "is over: the range does nothing any more");
        }
        if range.action != Some(RangeAction::Allow) {
            continue;
        }
        for (place, cidr) in range.cidrs.iter().enumerate().filter(|(_, cidr)| cidr.get().prefix_len() == 0) {
            let message = format!("is {cidr} with action Allow: everyone is trusted, and no mail is checked");
            warn(warnings, format!("{at}.cidrs[{place}]"), message);
        }
    }
}

fn senders(lists: Option<&SenderLists>, now: i64, warnings: &mut Vec<FieldError>) {
    let Some(SenderLists { allow, deny }) = lists else {
        return;
    };
    for (name, entries) in [("allow", allow), ("deny", deny)] {
        for (index, SenderEntry { expires, .. }) in entries.iter().enumerate() {
            if expires.is_some_and(|at| at.unix_seconds() <= now) {
                let path = format!("spec.senders.{name}[{index}].expires");
                warn(warnings, path, "is over: the entry does nothing any more");
            }
        }
    }
    for (index, entry) in allow.iter().enumerate().filter(|(_, entry)| entry.clients.is_empty()) {
        if AddressPattern::parse_sender(&entry.pattern).is_ok_and(|pattern| is_everyone(&pattern)) {
            let path = format!("spec.senders.allow[{index}].pattern");
            warn(warnings, path, format!("is {}: every sender is let pass unchecked", entry.pattern));
        }
    }
}

fn is_everyone(pattern: &AddressPattern) -> bool {
    let AddressPattern::Address { local, domain: AddressDomain::Any } = pattern else {
        return false;
    };
    match local {
        LocalPattern::Any => true,
        LocalPattern::Glob(glob) => glob.bytes().all(|c| c == b'*'),
        LocalPattern::Exact(_) => false,
    }
}

fn greylisting(path: &str, value: Option<&Greylisting>, warnings: &mut Vec<FieldError>) {
    let Some(Greylisting { delay, auto_pass_after, .. }) = value else {
        return;
    };
    if let Some(delay) = delay {
        let path = format!("{path}.delay");
        if delay.get().is_zero() {
            warn(warnings, path, "is 0s, which greylists nobody for long: a retry passes at once");
        } else if delay.get().subsec_nanos() > 0 {
            let seconds = delay.get().as_secs();
            warn(warnings, path, format!("is {delay}, but whole seconds are counted: it acts as {seconds}s"));
        }
    }
    if let Some(senders) = auto_pass_after.filter(|senders| *senders > MAX_COUNTED_SENDERS) {
        let message = format!("is {senders}, but acts as {MAX_COUNTED_SENDERS}: no more senders are counted");
        warn(warnings, format!("{path}.autoPassAfter"), message);
    }
}

fn warn(warnings: &mut Vec<FieldError>, path: String, message: impl Into<String>) {
    warnings.push(FieldError::new(path, message));
}

#[cfg(test)]
mod tests {
    use crate::compile::tests::{GATEWAY, mk_domain, mk_inputs};
    use crate::compile::{Compilation, compile};

    fn warnings(gateway: &str, domain: &str) -> Vec<String> {
        let gateway = GATEWAY.replace("mx.example.net", &format!("mx.example.net{gateway}"));
        let domain = mk_domain("a", &["a.example"], domain);
        let Compilation { outcomes, .. } = compile(&mk_inputs(&format!("{gateway}---\n{domain}"), None));
        let warnings = outcomes.values().flat_map(|outcome| {
            assert_eq!(outcome.errors, vec![]);
            outcome.warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message))
        });
        warnings.collect()
    }

    #[test]
    fn what_is_hardly_meant_is_warned_of() {
        let quiet = ", postmaster: me@a.example";
        let over = "2026-11-01T00:00:00Z";
        for (gateway, domain, wanted) in [
            (quiet, "", ""),
            (quiet, "  ipRanges: [{name: a, cidrs: [10.0.0.0/8], expires: \"2030-01-01T00:00:00Z\"}]\n", ""),
            (
                quiet,
                &format!("  ipRanges: [{{name: a, cidrs: [10.0.0.0/8], expires: \"{over}\"}}]\n"),
                "spec.ipRanges[0].expires: is over",
            ),
            (
                quiet,
                "  ipRanges: [{name: a, cidrs: [10.0.0.0/8, \"::/0\"], action: Allow}]\n",
                "spec.ipRanges[0].cidrs[1]: is ::/0 with",
            ),
            (
                quiet,
                "  ipRanges: [{name: a, cidrs: [0.0.0.0/0], action: Allow}]\n",
                "spec.ipRanges[0].cidrs[0]: is 0.0.0.0/0 with",
            ),
            (quiet, "  ipRanges: [{name: a, cidrs: [0.0.0.0/0], action: Reject}]\n", ""),
            (quiet, "  senders: {allow: [{pattern: \"*@*\"}]}\n", "spec.senders.allow[0].pattern: is *@*"),
            (quiet, "  senders: {allow: [{pattern: \"**@*\"}]}\n", "spec.senders.allow[0].pattern: is **@*"),
            (
                quiet,
                "  senders: {allow: [{pattern: \"*@*\", clients: [10.0.0.0/8]}], deny: [{pattern: \"*@*\"}]}\n",
                "",
            ),
            (
                quiet,
                &format!("  senders: {{deny: [{{pattern: \"a@b.example\", expires: \"{over}\"}}]}}\n"),
                "spec.senders.deny[0].expires: is over",
            ),
            (quiet, "  greylisting: {autoPassAfter: 32, delay: 1s}\n", ""),
            (
                quiet,
                "  greylisting: {autoPassAfter: 33}\n",
                "spec.greylisting.autoPassAfter: is 33, but acts as 32",
            ),
            (quiet, "  greylisting: {delay: 0s}\n", "spec.greylisting.delay: is 0s, which"),
            (quiet, "  greylisting: {delay: 1500ms}\n", "spec.greylisting.delay: is 1s500ms, but"),
            (
                ", postmaster: me@a.example, defaults: {greylisting: {delay: 0s}}",
                "",
                "spec.defaults.greylisting.delay: is 0s, which",
            ),
            ("", "", "spec.postmaster: is left out"),
            (", postmaster: me@b.example", "", "spec.postmaster: is me@b.example, but b.example is not"),
        ] {
            let found = warnings(gateway, domain);
            let one = found.len() == 1 && found.iter().all(|text| text.starts_with(wanted));
            assert!(if wanted.is_empty() { found.is_empty() } else { one }, "{gateway} {domain}: {found:?}");
        }
    }
}
