//! What is part of the manifests, but does nothing yet. Whoever writes it is told so.

use serde_json::{Value, json};
use torwart_api::{MailDomainSpec, MailGatewaySpec};

use super::FieldError;
use crate::snapshot::to_value;

/// A field that does nothing yet.
struct NotYet {
    /// Below `spec`; `[]` stands for every element of a list.
    path: &'static str,
    /// Values (as JSON) that ask for what happens anyway, so that nothing is missing.
    unless: &'static [&'static str],
    message: &'static str,
}

const NOTHING: &str = "accepted, does nothing yet";
const BEFORE_THE_BANNER: &str = "does nothing in a MailDomain: the banner comes before it is known";
const OFF: &[&str] = &[r#"{"enabled":false}"#, "{}"];
const UNLIMITED: &[&str] = &[r#""""#];

/// The one table. A row goes when its part comes.
const GATEWAY: [NotYet; 10] = [
    NotYet { path: "uriLists", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.uriLists", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.spf", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.reverseDNS", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.helo", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.senderDomain", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.dkim", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.dmarc", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.arc", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.earlyTalker", unless: &[], message: NOTHING },
];

const DOMAIN: [NotYet; 12] = [
    NotYet { path: "ipRanges[].checks.uriLists", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.spf", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.reverseDNS", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.helo", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.senderDomain", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.dkim", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.dmarc", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.arc", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].checks.earlyTalker", unless: &[], message: NOTHING },
    NotYet { path: "ipRanges[].tls", unless: &[], message: BEFORE_THE_BANNER },
    NotYet { path: "ipRanges[].hideKeywords", unless: &["[]"], message: BEFORE_THE_BANNER },
    NotYet { path: "checks.earlyTalker.greetDelay", unless: &[r#""0s""#], message: BEFORE_THE_BANNER },
];

/// Below a MailDomain's `spec` and below `spec.defaults` of a MailGateway.
const INHERITED: [NotYet; 13] = [
    NotYet { path: "checks.uriLists", unless: OFF, message: NOTHING },
    NotYet { path: "checks.spf", unless: OFF, message: NOTHING },
    NotYet { path: "checks.reverseDNS", unless: OFF, message: NOTHING },
    NotYet { path: "checks.helo", unless: OFF, message: NOTHING },
    NotYet { path: "checks.senderDomain", unless: OFF, message: NOTHING },
    NotYet { path: "checks.dkim", unless: OFF, message: NOTHING },
    NotYet { path: "checks.dmarc", unless: OFF, message: NOTHING },
    NotYet { path: "checks.arc", unless: OFF, message: NOTHING },
    NotYet { path: "checks.earlyTalker.score", unless: &["0.0"], message: NOTHING },
    NotYet { path: "limits.ratePerNetwork", unless: UNLIMITED, message: NOTHING },
    NotYet { path: "limits.ratePerIdentity", unless: UNLIMITED, message: NOTHING },
    NotYet { path: "limits.unknownRecipients", unless: UNLIMITED, message: NOTHING },
    NotYet {
        path: "greylisting.identity",
        unless: &[r#""Network""#],
        message: "accepted, but Pool acts as Network yet",
    },
];

/// Warnings about what a MailGateway's `spec` asks for.
pub(crate) fn gateway(spec: &MailGatewaySpec) -> Vec<FieldError> {
    let spec = to_value(spec);
    let mut warnings = Vec::new();
    GATEWAY.iter().for_each(|row| row.look(&spec, "spec", &mut warnings));
    if let Some(defaults) = spec.get("defaults") {
        INHERITED.iter().for_each(|row| row.look(defaults, "spec.defaults", &mut warnings));
    }
    warnings
}

/// Warnings about what a MailDomain's `spec` asks for.
pub(crate) fn domain(spec: &MailDomainSpec) -> Vec<FieldError> {
    // Only these parts have rows, and the lists beside them may be long.
    let MailDomainSpec { ip_ranges, greylisting, checks, limits, .. } = spec;
    let spec = json!({
        "ipRanges": ip_ranges.iter().map(|range| json!({ "checks": range.checks, "tls": range.tls, "hideKeywords": range.hide_keywords })).collect::<Vec<_>>(),
        "greylisting": greylisting.as_ref().map(|greylisting| json!({ "identity": greylisting.identity })),
        "checks": checks,
        "limits": limits,
    });
    let mut warnings = Vec::new();
    DOMAIN.iter().chain(&INHERITED).for_each(|row| row.look(&spec, "spec", &mut warnings));
    warnings
}

// === impl NotYet ===

impl NotYet {
    fn look(&self, below: &Value, path: &str, warnings: &mut Vec<FieldError>) {
        self.walk(below, self.path, &mut path.to_owned(), warnings);
    }

    fn walk(&self, value: &Value, rest: &str, path: &mut String, warnings: &mut Vec<FieldError>) {
        if rest.is_empty() {
            if !self.unless.contains(&value.to_string().as_str()) {
                warnings.push(FieldError::new(path.clone(), self.message));
            }
            return;
        }
        let (step, rest) = rest.split_once('.').unwrap_or((rest, ""));
        let Some(next) = value.get(step.trim_end_matches("[]")).filter(|next| !next.is_null()) else {
            return;
        };
        let length = path.len();
        path.push('.');
        path.push_str(step.trim_end_matches("[]"));
        match next {
            Value::Array(items) if step.ends_with("[]") => {
                for (index, item) in items.iter().enumerate() {
                    let length = path.len();
                    path.push_str(&format!("[{index}]"));
                    self.walk(item, rest, path, warnings);
                    path.truncate(length);
                }
            }
            _ => self.walk(next, rest, path, warnings),
        }
        path.truncate(length);
    }
}
