//! What the types can't say of themselves: maxima, keys of lists, and rules over several fields (CEL). Each rule has a
//! twin in `torwart_policy::compile`, which judges files as well; a maximum is the constant that it goes by.

use serde_json::{Map, Value, json};
use torwart_api::limits::{
    MAX_AUTO_PASS_AFTER, MAX_CIDRS, MAX_DNS_LISTS, MAX_DOMAINS, MAX_EXEMPT_RECIPIENTS, MAX_HOST,
    MAX_IP_RANGES, MAX_NAME, MAX_PATTERN, MAX_RECIPIENTS, MAX_RESPONSES, MAX_SELECTOR_TERMS,
    MAX_SENDER_CLIENTS, MAX_SENDERS, MAX_TENANT_ENTRIES, MAX_TENANTS, MAX_TEXT, MAX_TRUSTED_SEALERS,
    MAX_UPSTREAMS,
};

/// Where (see `apply`), and what is added there.
pub(super) type Rule = (&'static str, fn() -> Map<String, Value>);

pub(super) const DOMAIN_RULES: [Rule; 65] = [
    ("gatewayRef.name", || text(MAX_NAME)),
    ("domains", || with(list(MAX_DOMAINS), json!({ "minItems": 1, "x-kubernetes-list-type": "set" }))),
    ("domains[]", || text(MAX_HOST)),
    ("route.upstreams", || with(list(MAX_UPSTREAMS), json!({ "minItems": 1 }))),
    ("route.upstreams[]", || {
        cel(&[
            ("has(self.host) != has(self.service)", "give either host or service"),
            (
                "!(has(self.service) && has(self.port))",
                "port goes with host; a service has its own port field",
            ),
        ])
    }),
    ("route.upstreams[].host", || text(MAX_HOST)),
    ("route.upstreams[].service.name", || text(MAX_NAME)),
    ("route.upstreams[].weight", || range(1, 1_000)),
    ("route.upstreams[].maxConnections", || range(1, 10_000)),
    ("route.tls", || {
        cel(&[(
            "!(has(self.implicit) && self.implicit && has(self.mode) && self.mode == 'Disabled')",
            "implicit is true, but mode is Disabled; set mode to Opportunistic or Required",
        )])
    }),
    ("route.tls.serverName", || text(MAX_HOST)),
    ("route.tls.caRef.name", || text(MAX_HOST)),
    ("greylisting", greylisting),
    ("greylisting.exemptRecipients", || list(MAX_EXEMPT_RECIPIENTS)),
    ("greylisting.exemptRecipients[]", || text(64)),
    ("greylisting.prefix.ipv4", || range(8, 32)),
    ("greylisting.prefix.ipv6", || range(32, 128)),
    ("ipRanges", || named(MAX_IP_RANGES)),
    ("ipRanges[].name", || with(text(MAX_NAME), json!({ "minLength": 1 }))),
    ("ipRanges[].cidrs", || with(list(MAX_CIDRS), json!({ "minItems": 1 }))),
    ("senders.allow", || list(MAX_SENDERS)),
    ("senders.allow[].pattern", || text(MAX_PATTERN)),
    ("senders.allow[].clients", || list(MAX_SENDER_CLIENTS)),
    ("senders.allow[].reason", || text(MAX_TEXT)),
    ("senders.deny", || list(MAX_SENDERS)),
    ("senders.deny[].pattern", || text(MAX_PATTERN)),
    ("senders.deny[].clients", || list(MAX_SENDER_CLIENTS)),
    ("senders.deny[].reason", || text(MAX_TEXT)),
    ("recipients.accept", || list(MAX_RECIPIENTS)),
    ("recipients.accept[]", || text(MAX_PATTERN)),
    ("recipients.deny", || list(MAX_RECIPIENTS)),
    ("recipients.deny[]", || text(MAX_PATTERN)),
    ("recipients.exempt", || list(MAX_RECIPIENTS)),
    ("recipients.exempt[]", || text(MAX_PATTERN)),
    ("checks.dnsLists.only", || list(MAX_DNS_LISTS)),
    ("checks.dnsLists.only[]", || text(MAX_NAME)),
    ("checks.uriLists.only", || list(MAX_DNS_LISTS)),
    ("checks.uriLists.only[]", || text(MAX_NAME)),
    ("checks.spf.failScore", || penalty()),
    ("checks.spf.softFailScore", || penalty()),
    ("checks.spf.permissiveScore", || penalty()),
    ("checks.reverseDNS.missingScore", || penalty()),
    ("checks.reverseDNS.mismatchScore", || penalty()),
    ("checks.reverseDNS.genericScore", || penalty()),
    ("checks.helo.invalidScore", || penalty()),
    ("checks.helo.oursScore", || penalty()),
    ("checks.senderDomain.missingScore", || penalty()),
    ("checks.senderDomain.nullMXScore", || penalty()),
    ("checks.dmarc.rejectScore", || penalty()),
    ("checks.dmarc.quarantineScore", || penalty()),
    ("checks.arc.trustedSealers", || list(MAX_TRUSTED_SEALERS)),
    ("checks.arc.trustedSealers[]", || text(MAX_HOST)),
    ("checks.earlyTalker.score", || penalty()),
    ("checks.earlyTalker.greetDelay", || {
        cel(&[(
            "!self.matches('^([0-9]+(h|m|s|ms))+$') || duration(self) <= duration('60s')",
            "greetDelay can be 60s at most",
        )])
    }),
    ("scoring", scoring),
    ("scoring.tagAt", || score()),
    ("scoring.greylistAt", || score()),
    ("scoring.rejectAt", || score()),
    ("limits.recipients", || range(1, 10_000)),
    ("enforcement", Map::new),
    ("greylisting.autoPassAfter", || range(0, MAX_AUTO_PASS_AFTER)),
    ("route.upstreams[].priority", || range(0, u32::MAX)),
    ("ipRanges[].priority", || range(i32::MIN, i32::MAX)),
    ("recipients", Map::new),
    ("limits", Map::new),
];

pub(super) const GATEWAY_RULES: [Rule; 72] = [
    ("hostname", || with(text(MAX_HOST), json!({ "minLength": 1 }))),
    ("postmaster", || text(MAX_PATTERN)),
    ("removalGrace", || {
        cel(&[(
            "!self.matches('^([0-9]+(h|m|s|ms))+$') || duration(self) <= duration('168h')",
            "removalGrace can be 168h (a week) at most",
        )])
    }),
    ("tenants", || list(MAX_TENANTS)),
    ("tenants[]", || {
        cel(&[(
            "(has(self.namespaces) && size(self.namespaces) > 0) || has(self.namespaceSelector)",
            "it is for no namespace; give namespaces or namespaceSelector",
        )])
    }),
    ("tenants[].namespaces", || list(MAX_TENANT_ENTRIES)),
    ("tenants[].namespaces[]", || text(MAX_NAME)),
    ("tenants[].namespaceSelector.matchLabels", || {
        with(Map::new(), json!({ "maxProperties": MAX_SELECTOR_TERMS }))
    }),
    ("tenants[].namespaceSelector.matchExpressions", || list(MAX_SELECTOR_TERMS)),
    ("tenants[].namespaceSelector.matchExpressions[].key", || text(317)),
    ("tenants[].namespaceSelector.matchExpressions[].values", || list(MAX_TENANT_ENTRIES)),
    ("tenants[].namespaceSelector.matchExpressions[].values[]", || text(63)),
    ("tenants[].domains", || with(list(MAX_TENANT_ENTRIES), json!({ "minItems": 1 }))),
    ("tenants[].domains[]", || text(MAX_HOST)),
    ("tenants[].upstreams.hosts", || list(MAX_TENANT_ENTRIES)),
    ("tenants[].upstreams.hosts[]", || text(MAX_HOST)),
    ("tenants[].upstreams.cidrs", || list(MAX_TENANT_ENTRIES)),
    ("dnsLists", || named(MAX_DNS_LISTS)),
    ("dnsLists[].name", || with(text(MAX_NAME), json!({ "minLength": 1 }))),
    ("dnsLists[].zone", || text(MAX_HOST)),
    ("dnsLists[].keyFile", || text(MAX_HOST)),
    ("dnsLists[].responses", || list(MAX_RESPONSES)),
    ("dnsLists[].responses[]", response),
    ("dnsLists[].responses[].codes", || list(MAX_RESPONSES)),
    ("dnsLists[].responses[].codes[]", || text(31)),
    ("dnsLists[].responses[].bits", || range(1, 255)),
    ("dnsLists[].responses[].score", || score()),
    ("dnsLists[].probe.listed", || text(MAX_HOST)),
    ("dnsLists[].probe.notListed", || text(MAX_HOST)),
    ("uriLists", || named(MAX_DNS_LISTS)),
    ("uriLists[].name", || with(text(MAX_NAME), json!({ "minLength": 1 }))),
    ("uriLists[].zone", || text(MAX_HOST)),
    ("uriLists[].keyFile", || text(MAX_HOST)),
    ("uriLists[].responses", || list(MAX_RESPONSES)),
    ("uriLists[].responses[]", response),
    ("uriLists[].responses[].codes", || list(MAX_RESPONSES)),
    ("uriLists[].responses[].codes[]", || text(31)),
    ("uriLists[].responses[].bits", || range(1, 255)),
    ("uriLists[].responses[].score", || score()),
    ("uriLists[].probe.listed", || text(MAX_HOST)),
    ("uriLists[].probe.notListed", || text(MAX_HOST)),
    ("senders.allow", || list(MAX_SENDERS)),
    ("senders.allow[].pattern", || text(MAX_PATTERN)),
    ("senders.allow[].clients", || list(MAX_SENDER_CLIENTS)),
    ("senders.allow[].reason", || text(MAX_TEXT)),
    ("senders.deny", || list(MAX_SENDERS)),
    ("senders.deny[].pattern", || text(MAX_PATTERN)),
    ("senders.deny[].clients", || list(MAX_SENDER_CLIENTS)),
    ("senders.deny[].reason", || text(MAX_TEXT)),
    ("ipRanges", || named(MAX_IP_RANGES)),
    ("ipRanges[].name", || with(text(MAX_NAME), json!({ "minLength": 1 }))),
    ("ipRanges[].cidrs", || with(list(MAX_CIDRS), json!({ "minItems": 1 }))),
    ("defaults.greylisting", greylisting),
    ("defaults.greylisting.exemptRecipients", || list(MAX_EXEMPT_RECIPIENTS)),
    ("defaults.greylisting.exemptRecipients[]", || text(64)),
    ("defaults.greylisting.prefix.ipv4", || range(8, 32)),
    ("defaults.greylisting.prefix.ipv6", || range(32, 128)),
    ("defaults.checks.dnsLists.only", || list(MAX_DNS_LISTS)),
    ("defaults.checks.dnsLists.only[]", || text(MAX_NAME)),
    ("defaults.checks.uriLists.only", || list(MAX_DNS_LISTS)),
    ("defaults.checks.uriLists.only[]", || text(MAX_NAME)),
    ("defaults.checks.arc.trustedSealers", || list(MAX_TRUSTED_SEALERS)),
    ("defaults.checks.arc.trustedSealers[]", || text(MAX_HOST)),
    ("defaults.checks.earlyTalker.greetDelay", || {
        cel(&[(
            "!self.matches('^([0-9]+(h|m|s|ms))+$') || duration(self) <= duration('60s')",
            "greetDelay can be 60s at most",
        )])
    }),
    ("defaults.scoring", scoring),
    ("defaults.scoring.tagAt", || score()),
    ("defaults.scoring.greylistAt", || score()),
    ("defaults.scoring.rejectAt", || score()),
    ("defaults.limits.recipients", || range(1, 10_000)),
    ("defaults.greylisting.autoPassAfter", || range(0, MAX_AUTO_PASS_AFTER)),
    ("ipRanges[].priority", || range(i32::MIN, i32::MAX)),
    ("defaults", Map::new),
];

/// `metav1.Condition`'s own bounds.
pub(super) const STATUS_RULES: [Rule; 4] = [
    ("conditions", || {
        with(list(16), json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] }))
    }),
    ("conditions[].type", || text(316)),
    ("conditions[].reason", || text(1_024)),
    ("conditions[].message", || text(32_768)),
];

fn with(mut map: Map<String, Value>, more: Value) -> Map<String, Value> {
    if let Value::Object(more) = more {
        map.extend(more);
    }
    map
}

fn text(longest: usize) -> Map<String, Value> {
    with(Map::new(), json!({ "maxLength": longest }))
}

fn list(longest: usize) -> Map<String, Value> {
    with(Map::new(), json!({ "maxItems": longest }))
}

/// A list whose entries have a name of their own.
fn named(longest: usize) -> Map<String, Value> {
    let keys = json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] });
    with(list(longest), keys)
}

fn range(least: impl Into<i64>, most: impl Into<i64>) -> Map<String, Value> {
    with(Map::new(), json!({ "minimum": least.into(), "maximum": most.into() }))
}

fn score() -> Map<String, Value> {
    range(-1_000, 1_000)
}

/// A score that can only speak against a mail.
fn penalty() -> Map<String, Value> {
    range(0, 1_000)
}

fn cel(rules: &[(&str, &str)]) -> Map<String, Value> {
    let rules: Vec<Value> =
        rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect();
    with(Map::new(), json!({ "x-kubernetes-validations": rules }))
}

fn greylisting() -> Map<String, Value> {
    cel(&[
        (
            "!(has(self.delay) && has(self.retryWindow)) || duration(self.delay) < duration(self.retryWindow)",
            "delay must be less than retryWindow, or no retry would ever count",
        ),
        (
            "!(has(self.retryWindow) && has(self.passTTL)) || duration(self.retryWindow) < duration(self.passTTL)",
            "retryWindow must be less than passTTL, or who passed would be forgotten too soon",
        ),
    ])
}

fn scoring() -> Map<String, Value> {
    cel(&[
        (
            "!has(self.rejectAt) || double(self.rejectAt) > 0.0",
            "rejectAt must be above 0, or all mail would be refused",
        ),
        (
            "!(has(self.tagAt) && has(self.rejectAt)) || double(self.tagAt) <= double(self.rejectAt)",
            "tagAt is above rejectAt: it would never come to that",
        ),
        (
            "!(has(self.greylistAt) && has(self.rejectAt)) || double(self.greylistAt) <= double(self.rejectAt)",
            "greylistAt is above rejectAt: it would never come to that",
        ),
    ])
}

fn response() -> Map<String, Value> {
    cel(&[("has(self.bits) != (has(self.codes) && size(self.codes) > 0)", "give either codes or bits")])
}
