//! IP ranges, sender lists, recipient lists, names: what both kinds have.

use std::collections::{BTreeMap, HashMap};

use torwart_api::limits::{
    MAX_CIDRS, MAX_HIDDEN_KEYWORDS, MAX_IP_RANGES, MAX_NAME, MAX_PATTERN, MAX_RECIPIENTS, MAX_SENDER_CLIENTS,
    MAX_SENDERS, MAX_TEXT,
};
use torwart_api::{
    DnsList, DnsListKind, DnsListsCheck, EhloKeyword, Enforcement, GreylistMode, IpRange, Metadata, Probe,
    RangeTls, Recipients, SenderEntry, SenderLists,
};
use torwart_core::{Keyword, ListenerTls};

use super::{Errors, scores};
use crate::dns_lists::{self, ListAnswers, ListKind, ListProbe, ListResponse};
use crate::domains::ascii_name;
use crate::model;
use crate::patterns::AddressPattern;
use crate::ranges::{RangeTable, canonical_net};

pub(crate) fn ranges(path: &str, ranges: &[IpRange], errors: &mut Errors) -> RangeTable {
    if ranges.is_empty() {
        return RangeTable::default();
    }
    errors.check_length(path, ranges, MAX_IP_RANGES);
    check_unique_names(path, ranges.iter().map(|range| range.name.as_str()), errors);
    let mut taken = HashMap::new();
    let mut read = Vec::with_capacity(ranges.len());
    for (index, range) in ranges.iter().enumerate() {
        errors.check_text(&format!("{path}[{index}].name"), &range.name, MAX_NAME);
        errors.check_length(&format!("{path}[{index}].cidrs"), &range.cidrs, MAX_CIDRS);
        errors.check_length(
            &format!("{path}[{index}].hideKeywords"),
            &range.hide_keywords,
            MAX_HIDDEN_KEYWORDS,
        );
        if range.cidrs.is_empty() {
            errors
                .add(format!("{path}[{index}].cidrs"), "is empty, so the range holds nobody; name a network");
        }
        let priority = range.priority.unwrap_or(0);
        let mut prefixes = Vec::with_capacity(range.cidrs.len());
        for (place, cidr) in range.cidrs.iter().enumerate() {
            let net = canonical_net(cidr.get());
            if let Some(other) = taken.insert((net, priority), index).filter(|other| *other != index) {
                let other = ranges.get(other).map(|range| range.name.as_str()).unwrap_or_default();
                errors.add(
                    format!("{path}[{index}].cidrs[{place}]"),
                    format!("is {cidr}, which the range {other} has too, with the same priority; give one of them another"),
                );
            }
            prefixes.push(net);
        }
        let compiled = model::Range {
            name: range.name.as_str().into(),
            action: match range.action.unwrap_or(torwart_api::RangeAction::Check) {
                torwart_api::RangeAction::Allow => model::RangeAction::Allow,
                torwart_api::RangeAction::Check => model::RangeAction::Check,
                torwart_api::RangeAction::Reject => model::RangeAction::Reject,
                torwart_api::RangeAction::Defer => model::RangeAction::Defer,
            },
            priority,
            expires: range.expires.map(|time| time.unix_seconds()),
            tls: range.tls.map(|tls| match tls {
                RangeTls::Offer => ListenerTls::Offer,
                RangeTls::Hide => ListenerTls::Hide,
                RangeTls::Require => ListenerTls::Require,
            }),
            hidden: range.hide_keywords.iter().copied().map(keyword).collect(),
            dns_lists: range
                .checks
                .as_ref()
                .and_then(|checks| checks.dns_lists.as_ref())
                .map(|switch| switch.enabled),
            greylisting: range
                .greylisting
                .as_ref()
                .and_then(|greylisting| greylisting.mode)
                .map(greylist_mode),
        };
        read.push((compiled, prefixes));
    }
    RangeTable::new(read)
}

fn keyword(keyword: EhloKeyword) -> Keyword {
    match keyword {
        EhloKeyword::Pipelining => Keyword::Pipelining,
        EhloKeyword::Size => Keyword::Size,
        EhloKeyword::EightBitMime => Keyword::EightBitMime,
        EhloKeyword::EnhancedStatusCodes => Keyword::EnhancedStatusCodes,
        EhloKeyword::SmtpUtf8 => Keyword::SmtpUtf8,
        EhloKeyword::Chunking => Keyword::Chunking,
    }
}

pub(crate) fn greylist_mode(mode: GreylistMode) -> model::GreylistMode {
    match mode {
        GreylistMode::Suspicious => model::GreylistMode::Suspicious,
        GreylistMode::Always => model::GreylistMode::Always,
        GreylistMode::Off => model::GreylistMode::Off,
    }
}

/// Lists that are written well; what is wrong with the others was said.
pub(crate) fn dns_lists(lists: &[DnsList]) -> Vec<dns_lists::DnsList> {
    lists.iter().filter_map(dns_list).collect()
}

fn dns_list(list: &DnsList) -> Option<dns_lists::DnsList> {
    let responses = list.responses.iter().map(|response| {
        let answers = match response.bits {
            Some(bits) => ListAnswers::Bits(u8::try_from(bits).ok()?),
            None => {
                let codes = response.codes.iter().map(|code| ListAnswers::read_codes(code).ok());
                ListAnswers::Codes(codes.collect::<Option<_>>()?)
            }
        };
        Some(ListResponse { answers, score: scores::narrow(response.score) })
    });
    let probe = match &list.probe {
        Some(Probe { listed, not_listed }) => {
            ListProbe { listed: listed.parse().ok()?, not_listed: not_listed.parse().ok()? }
        }
        None => ListProbe::default(),
    };
    Some(dns_lists::DnsList {
        name: list.name.as_str().into(),
        zone: ascii_name(&list.zone).ok()?.into(),
        kind: match list.kind.unwrap_or(DnsListKind::Block) {
            DnsListKind::Block => ListKind::Block,
            DnsListKind::Allow => ListKind::Allow,
        },
        key_file: list.key_file.as_deref().map(Into::into),
        responses: responses.collect::<Option<_>>()?,
        probe,
    })
}

/// With every default filled in.
pub(crate) fn dns_lists_check(check: Option<&DnsListsCheck>) -> model::DnsListsCheck {
    let check = check.cloned().unwrap_or_default();
    model::DnsListsCheck {
        enabled: check.enabled.unwrap_or(true),
        enforcement: enforcement(check.enforcement),
        only: check.only.unwrap_or_default().iter().map(|name| name.as_str().into()).collect(),
    }
}

pub(crate) fn enforcement(value: Option<Enforcement>) -> model::Enforcement {
    match value.unwrap_or(Enforcement::Enforce) {
        Enforcement::Enforce => model::Enforcement::Enforce,
        Enforcement::Monitor => model::Enforcement::Monitor,
    }
}

pub(crate) fn senders(lists: Option<&SenderLists>, errors: &mut Errors) -> model::SenderLists {
    let Some(lists) = lists else {
        return model::SenderLists::default();
    };
    model::SenderLists {
        allow: sender_entries("spec.senders.allow", &lists.allow, errors),
        deny: sender_entries("spec.senders.deny", &lists.deny, errors),
    }
}

fn sender_entries(path: &str, entries: &[SenderEntry], errors: &mut Errors) -> Vec<model::SenderEntry> {
    errors.check_length(path, entries, MAX_SENDERS);
    let mut read = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = format!("{path}[{index}]");
        errors.check_length(&format!("{at}.clients"), &entry.clients, MAX_SENDER_CLIENTS);
        if let Some(reason) = &entry.reason {
            errors.check_text(&format!("{at}.reason"), reason, MAX_TEXT);
        }
        match read_pattern(&entry.pattern, AddressPattern::parse_sender) {
            Ok(pattern) => read.push(model::SenderEntry {
                pattern,
                clients: entry.clients.iter().map(|cidr| canonical_net(cidr.get())).collect(),
                expires: entry.expires.map(|time| time.unix_seconds()),
            }),
            Err(message) => errors.add(format!("{at}.pattern"), message),
        }
    }
    read
}

pub(crate) fn recipients(lists: Option<&Recipients>, errors: &mut Errors) -> model::RecipientLists {
    let Some(lists) = lists else {
        return model::RecipientLists::default();
    };
    model::RecipientLists {
        accept: recipient_patterns("spec.recipients.accept", &lists.accept, errors),
        deny: recipient_patterns("spec.recipients.deny", &lists.deny, errors),
        exempt: recipient_patterns("spec.recipients.exempt", &lists.exempt, errors),
        allow_routed_local_parts: lists.allow_routed_local_parts.unwrap_or(false),
    }
}

fn recipient_patterns(path: &str, patterns: &[String], errors: &mut Errors) -> Vec<AddressPattern> {
    errors.check_length(path, patterns, MAX_RECIPIENTS);
    let mut read = Vec::with_capacity(patterns.len());
    for (index, text) in patterns.iter().enumerate() {
        match read_pattern(text, AddressPattern::parse_recipient) {
            Ok(pattern) => read.push(pattern),
            Err(message) => errors.add(format!("{path}[{index}]"), message),
        }
    }
    read
}

fn read_pattern<E: std::fmt::Display>(
    text: &str,
    parse: impl Fn(&str) -> Result<AddressPattern, E>,
) -> Result<AddressPattern, String> {
    if text.chars().count() > MAX_PATTERN {
        return Err(format!("has more than {MAX_PATTERN} characters, which no address has"));
    }
    parse(text).map_err(|error| format!("is {text:?}; it {error}"))
}

/// Names are words that can stand in a log line, each once.
pub(crate) fn check_unique_names<'n>(path: &str, names: impl Iterator<Item = &'n str>, errors: &mut Errors) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, name) in names.enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(plain) {
            errors.add(
                format!("{path}[{index}].name"),
                format!("is {name:?}; a name is made of letters, digits, hyphens, underscores and dots"),
            );
        } else if let Some(first) = seen.insert(name, index) {
            errors.add(format!("{path}[{index}].name"), format!("is {name}, as is that of {path}[{first}]"));
        }
    }
}

/// Names of objects and namespaces are what Kubernetes takes (RFC 1123 names), so that files can be applied as they are.
pub(crate) fn check_object_name(metadata: &Metadata, errors: &mut Errors) {
    let label = |text: &str| {
        !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    let name = &metadata.name;
    if name.len() > 253 || !name.split('.').all(label) {
        errors.add(
            "metadata.name",
            format!("is {name:?}; a name is made of lower-case letters, digits, hyphens and dots, as in example-org"),
        );
    }
    if let Some(namespace) = metadata.namespace.as_deref().filter(|namespace| !label(namespace)) {
        errors.add(
            "metadata.namespace",
            format!("is {namespace:?}; a namespace is made of lower-case letters, digits and hyphens"),
        );
    }
}
