//! `MailGateway.spec`.

use std::net::IpAddr;
use std::sync::Arc;

use torwart_api::limits::{MAX_DNS_LISTS, MAX_NAME, MAX_RESPONSES, MAX_TEXT};
use torwart_api::{
    Checks, DnsListKind, Duration, EarlyTalkerCheck, Greylisting, Limits, MailGateway, MailGatewaySpec,
    Metadata, Probe, Scoring,
};
use torwart_core::Mailbox;

use super::tenancy::Tenants;
use super::{Errors, FieldError, defaults, domain, lists, merge, scores};
use crate::dns_lists::ListAnswers;
use crate::domains::ascii_name;
use crate::model;
use crate::patterns::unquote;

/// The MailGateway, and what its MailDomains inherit.
pub(crate) struct CompiledGateway {
    pub(crate) manifest: Arc<MailGateway>,
    pub(crate) gateway: model::Gateway,
    pub(crate) greylisting: Greylisting,
    pub(crate) checks: Checks,
    pub(crate) scoring: Scoring,
    pub(crate) limits: Limits,
    /// Names that `checks.dnsLists.only` and `checks.uriLists.only` may hold.
    pub(crate) dns_lists: Vec<String>,
    pub(crate) uri_lists: Vec<String>,
    pub(crate) tenants: Tenants,
    /// Of `checks` and `scoring`, for MailDomains that have none of their own.
    pub(crate) message_policy: [u8; 16],
    /// True if nobody knows the real one: then nothing that refers to it can be called wrong.
    pub(crate) stand_in: bool,
}

/// What MailDomains are checked against where there is no MailGateway, so that their mistakes are found all the same.
pub(crate) fn stand_in() -> CompiledGateway {
    let spec = MailGatewaySpec { hostname: "mx.example.net".to_owned(), ..MailGatewaySpec::default() };
    let metadata = Metadata { name: "default".to_owned(), ..Metadata::default() };
    let (gateway, _) = read(Arc::new(MailGateway { metadata, spec }));
    CompiledGateway { stand_in: true, ..gateway }
}

/// The gateway, if there is no mistake in it.
pub(crate) fn compile(manifest: Arc<MailGateway>) -> Option<CompiledGateway> {
    let (gateway, errors) = read(manifest);
    errors.is_empty().then_some(gateway)
}

/// The gateway as far as it makes sense, and every mistake in it.
pub(crate) fn read(manifest: Arc<MailGateway>) -> (CompiledGateway, Vec<FieldError>) {
    let mut errors = Errors::default();
    let spec = &manifest.spec;
    lists::check_object_name(&manifest.metadata, &mut errors);
    let hostname = read_hostname(&spec.hostname, &mut errors);
    let postmaster = spec.postmaster.as_deref().and_then(|text| read_postmaster(text, &mut errors));
    let grace = spec.removal_grace.unwrap_or(defaults::REMOVAL_GRACE);
    if grace > defaults::MAX_REMOVAL_GRACE {
        errors.add(
            "spec.removalGrace",
            format!("is {grace}; it can be {} at most", defaults::MAX_REMOVAL_GRACE),
        );
    }
    let ranges = lists::ranges("spec.ipRanges", &spec.ip_ranges, &mut errors);
    let senders = lists::senders(spec.senders.as_ref(), &mut errors);
    let tenants = Tenants::read(&spec.tenants, &mut errors).of_gateway(&manifest.metadata.name);
    check_dns_lists(spec, &mut errors);
    check_uri_lists(spec, &mut errors);

    let given = spec.defaults.clone().unwrap_or_default();
    let greylisting = merge::greylisting(given.greylisting.as_ref(), &defaults::greylisting());
    let checks = merge::checks(given.checks.as_ref(), &defaults::checks());
    let scoring = merge::scoring(given.scoring.as_ref(), &defaults::scoring());
    let limits = merge::limits(given.limits.as_ref(), &defaults::limits());
    let dns_lists: Vec<String> = spec.dns_lists.iter().map(|list| list.name.clone()).collect();
    let uri_lists: Vec<String> = spec.uri_lists.iter().map(|list| list.name.clone()).collect();
    scores::greylisting("spec.defaults.greylisting", &greylisting, &mut errors);
    scores::checks("spec.defaults.checks", &checks, &dns_lists, &uri_lists, &mut errors);
    scores::scoring("spec.defaults.scoring", &scoring, &mut errors);
    scores::limits("spec.defaults.limits", &limits, &mut errors);

    let gateway = model::Gateway {
        hostname: hostname.into(),
        postmaster,
        enforcement: lists::enforcement(spec.enforcement),
        removal_grace: grace.get(),
        greet_delay: greet_delay(&checks),
        ranges,
        senders,
        dns_lists: lists::dns_lists(&spec.dns_lists),
    };
    let compiled = CompiledGateway {
        manifest: manifest.clone(),
        gateway,
        message_policy: domain::message_policy(&checks, &scoring),
        greylisting,
        checks,
        scoring,
        limits,
        dns_lists,
        uri_lists,
        tenants,
        stand_in: false,
    };
    (compiled, errors.into_inner())
}

/// Before the banner only the gateway's own word holds: the mail domain is not known yet.
fn greet_delay(checks: &Checks) -> std::time::Duration {
    let delay = |check: &EarlyTalkerCheck| {
        check.greet_delay.filter(|_| check.enabled.unwrap_or(true)).map(Duration::get)
    };
    checks.early_talker.as_ref().and_then(delay).unwrap_or_default()
}

fn read_hostname(text: &str, errors: &mut Errors) -> String {
    match ascii_name(text) {
        Ok(name) if name.contains('.') => name,
        Ok(name) => {
            errors.add("spec.hostname", format!("is {name:?}; write the full name, such as mx.example.net"));
            name
        }
        Err(error) => {
            errors.add("spec.hostname", format!("is {text:?}; it {error}"));
            String::new()
        }
    }
}

/// The address is used as it is written, so it must be one that can stand in a RCPT command as it is.
fn read_postmaster(text: &str, errors: &mut Errors) -> Option<Mailbox> {
    let path = "spec.postmaster";
    let Some((local, domain)) = text.rsplit_once('@') else {
        errors.add(path, "is no address; write it as postmaster@example.net");
        return None;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    if unquote(local) != local || local.is_empty() || local.len() > 64 || !local.chars().all(plain) {
        errors.add(path, "has a local part that is not plain; write it as postmaster@example.net");
    }
    match ascii_name(domain) {
        Ok(domain) => Some(Mailbox::new(local, domain)),
        Err(error) => {
            errors.add(path, format!("has the domain {domain:?}, which {error}"));
            None
        }
    }
}

fn check_dns_lists(spec: &MailGatewaySpec, errors: &mut Errors) {
    let path = "spec.dnsLists";
    errors.check_length(path, &spec.dns_lists, MAX_DNS_LISTS);
    lists::check_unique_names(path, spec.dns_lists.iter().map(|list| list.name.as_str()), errors);
    for (index, list) in spec.dns_lists.iter().enumerate() {
        let at = format!("{path}[{index}]");
        check_list(&at, &list.name, &list.zone, list.key_file.as_deref(), errors);
        errors.check_length(&format!("{at}.responses"), &list.responses, MAX_RESPONSES);
        if list.responses.is_empty() {
            errors.add(
                format!("{at}.responses"),
                "is empty, so the list would count for nothing; say what its answers mean",
            );
        }
        for (index, response) in list.responses.iter().enumerate() {
            let at = format!("{at}.responses[{index}]");
            check_response(&at, &response.codes, response.bits, response.score, errors);
            let wrong = match list.kind.unwrap_or(DnsListKind::Block) {
                DnsListKind::Block => response.score < 0.0,
                DnsListKind::Allow => response.score > 0.0,
            };
            if wrong {
                errors.add(
                    format!("{at}.score"),
                    "has the wrong sign: a Block list's scores are positive, an Allow list's are negative",
                );
            }
        }
        if let Some(Probe { listed, not_listed }) = &list.probe {
            for (name, text) in [("listed", listed), ("notListed", not_listed)] {
                if text.parse::<IpAddr>().is_err() {
                    errors.add(
                        format!("{at}.probe.{name}"),
                        format!("is {text:?}; it must be an address such as 127.0.0.2"),
                    );
                }
            }
            if listed == not_listed {
                errors.add(format!("{at}.probe"), "has the same address as listed and as not listed");
            }
        }
    }
}

fn check_uri_lists(spec: &MailGatewaySpec, errors: &mut Errors) {
    let path = "spec.uriLists";
    errors.check_length(path, &spec.uri_lists, MAX_DNS_LISTS);
    lists::check_unique_names(path, spec.uri_lists.iter().map(|list| list.name.as_str()), errors);
    for (index, list) in spec.uri_lists.iter().enumerate() {
        let at = format!("{path}[{index}]");
        check_list(&at, &list.name, &list.zone, list.key_file.as_deref(), errors);
        errors.check_length(&format!("{at}.responses"), &list.responses, MAX_RESPONSES);
        if list.responses.is_empty() {
            errors.add(
                format!("{at}.responses"),
                "is empty, so the list would count for nothing; say what its answers mean",
            );
        }
        for (index, response) in list.responses.iter().enumerate() {
            let at = format!("{at}.responses[{index}]");
            check_response(&at, &response.codes, response.bits, response.score, errors);
        }
        if let Some(Probe { listed, not_listed }) = &list.probe {
            for (name, text) in [("listed", listed), ("notListed", not_listed)] {
                if let Err(error) = ascii_name(text) {
                    errors.add(format!("{at}.probe.{name}"), format!("is {text:?}; it {error}"));
                }
            }
            if listed == not_listed {
                errors.add(format!("{at}.probe"), "has the same domain as listed and as not listed");
            }
        }
    }
}

fn check_list(at: &str, name: &str, zone: &str, key_file: Option<&str>, errors: &mut Errors) {
    errors.check_text(&format!("{at}.name"), name, MAX_NAME);
    if let Err(error) = ascii_name(zone) {
        errors.add(format!("{at}.zone"), format!("is {zone:?}; it {error}"));
    }
    if let Some(file) = key_file {
        errors.check_text(&format!("{at}.keyFile"), file, MAX_TEXT);
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', '\0']) {
            errors.add(format!("{at}.keyFile"), "must be the plain name of a file in the secrets directory");
        }
    }
}

fn check_response(at: &str, codes: &[String], bits: Option<u32>, score: f64, errors: &mut Errors) {
    scores::score(&format!("{at}.score"), score, errors);
    errors.check_length(&format!("{at}.codes"), codes, MAX_RESPONSES);
    match (codes.is_empty(), bits) {
        (true, None) => errors.add(at, "names no answers; give codes or bits"),
        (false, Some(_)) => errors.add(at, "has both codes and bits; give one of them"),
        (true, Some(bits)) if !(1..=255).contains(&bits) => {
            errors.add(format!("{at}.bits"), format!("is {bits}; bits of one octet are from 1 to 255"));
        }
        _ => {}
    }
    for (index, code) in codes.iter().enumerate() {
        if let Err(message) = ListAnswers::read_codes(code) {
            errors.add(format!("{at}.codes[{index}]"), message);
        }
    }
}
