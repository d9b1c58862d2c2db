//! What the types can't say of themselves: maxima, keys of lists, and rules over several fields (CEL). Each rule has a
//! twin in `torwart_policy::compile`, which judges files as well; a maximum is the constant that it goes by.

use serde_json::{Map, Value, json};
use torwart_api::limits::{
    MAX_AUTO_PASS_AFTER, MAX_CIDRS, MAX_DNS_LISTS, MAX_DOMAINS, MAX_EXEMPT_RECIPIENTS, MAX_HIDDEN_KEYWORDS,
    MAX_HOST, MAX_IP_RANGES, MAX_NAME, MAX_PATTERN, MAX_RECIPIENTS, MAX_RESPONSES, MAX_SELECTOR_TERMS,
    MAX_SENDER_CLIENTS, MAX_SENDERS, MAX_TENANT_ENTRIES, MAX_TENANTS, MAX_TEXT, MAX_TRUSTED_SEALERS,
    MAX_UPSTREAMS,
};

/// Where (see `apply`), and what is added there.
pub(super) type Rule = (String, Map<String, Value>);

pub(super) fn of_domain() -> Vec<Rule> {
    let mut rules = vec![
        at("gatewayRef.name", text(MAX_NAME)),
        at("domains", with(list(MAX_DOMAINS), json!({ "minItems": 1, "x-kubernetes-list-type": "set" }))),
        at("domains[]", text(MAX_HOST)),
        at("route.upstreams", with(list(MAX_UPSTREAMS), json!({ "minItems": 1 }))),
        at(
            "route.upstreams[]",
            cel(&[
                ("has(self.host) != has(self.service)", "give either host or service"),
                (
                    "!(has(self.service) && has(self.port))",
                    "port goes with host; a service has its own port field",
                ),
            ]),
        ),
        at("route.upstreams[].host", text(MAX_HOST)),
        at("route.upstreams[].service.name", text(MAX_NAME)),
        at("route.upstreams[].priority", range(0, u32::MAX)),
        at("route.upstreams[].weight", range(1, 1_000)),
        at("route.upstreams[].maxConnections", range(1, 10_000)),
        at(
            "route.tls",
            cel(&[(
                "!(has(self.implicit) && self.implicit && has(self.mode) && self.mode == 'Disabled')",
                "implicit is true, but mode is Disabled; set mode to Opportunistic or Required",
            )]),
        ),
        at("route.tls.serverName", text(MAX_HOST)),
        at("route.tls.caRef.name", text(MAX_HOST)),
    ];
    for field in ["accept", "deny", "exempt"] {
        rules.push(at(format!("recipients.{field}"), list(MAX_RECIPIENTS)));
        rules.push(at(format!("recipients.{field}[]"), text(MAX_PATTERN)));
    }
    for score in [
        "spf.failScore",
        "spf.softFailScore",
        "spf.permissiveScore",
        "reverseDNS.missingScore",
        "reverseDNS.mismatchScore",
        "reverseDNS.genericScore",
        "helo.invalidScore",
        "helo.oursScore",
        "senderDomain.missingScore",
        "senderDomain.nullMXScore",
        "dmarc.rejectScore",
        "dmarc.quarantineScore",
        "earlyTalker.score",
    ] {
        rules.push(at(format!("checks.{score}"), penalty()));
    }
    rules.extend(of_both());
    rules.extend(of_what_a_gateway_gives_for_all(""));
    rules
}

pub(super) fn of_gateway() -> Vec<Rule> {
    let selector = "tenants[].namespaceSelector";
    let mut rules = vec![
        at("hostname", name(MAX_HOST)),
        at("postmaster", text(MAX_PATTERN)),
        at("removalGrace", at_most("168h", "removalGrace can be 168h (a week) at most")),
        at("tenants", list(MAX_TENANTS)),
        at(
            "tenants[]",
            cel(&[(
                "(has(self.namespaces) && size(self.namespaces) > 0) || has(self.namespaceSelector)",
                "it is for no namespace; give namespaces or namespaceSelector",
            )]),
        ),
        at("tenants[].namespaces", list(MAX_TENANT_ENTRIES)),
        at("tenants[].namespaces[]", text(MAX_NAME)),
        at(
            format!("{selector}.matchLabels"),
            with(Map::new(), json!({ "maxProperties": MAX_SELECTOR_TERMS })),
        ),
        at(format!("{selector}.matchExpressions"), list(MAX_SELECTOR_TERMS)),
        at(format!("{selector}.matchExpressions[].key"), text(317)),
        at(format!("{selector}.matchExpressions[].values"), list(MAX_TENANT_ENTRIES)),
        at(format!("{selector}.matchExpressions[].values[]"), text(63)),
        at("tenants[].domains", with(list(MAX_TENANT_ENTRIES), json!({ "minItems": 1 }))),
        at("tenants[].domains[]", text(MAX_HOST)),
        at("tenants[].upstreams.hosts", list(MAX_TENANT_ENTRIES)),
        at("tenants[].upstreams.hosts[]", text(MAX_HOST)),
        at("tenants[].upstreams.cidrs", list(MAX_TENANT_ENTRIES)),
    ];
    for lists in ["dnsLists", "uriLists"] {
        rules.extend([
            at(lists, named(MAX_DNS_LISTS)),
            at(format!("{lists}[].name"), name(MAX_NAME)),
            at(format!("{lists}[].zone"), text(MAX_HOST)),
            at(format!("{lists}[].keyFile"), text(MAX_HOST)),
            at(format!("{lists}[].responses"), list(MAX_RESPONSES)),
            at(
                format!("{lists}[].responses[]"),
                cel(&[(
                    "has(self.bits) != (has(self.codes) && size(self.codes) > 0)",
                    "give either codes or bits",
                )]),
            ),
            at(format!("{lists}[].responses[].codes"), list(MAX_RESPONSES)),
            at(format!("{lists}[].responses[].codes[]"), text(31)),
            at(format!("{lists}[].responses[].bits"), range(1, 255)),
            at(format!("{lists}[].responses[].score"), score()),
            at(format!("{lists}[].probe.listed"), text(MAX_HOST)),
            at(format!("{lists}[].probe.notListed"), text(MAX_HOST)),
        ]);
    }
    rules.extend(of_both());
    rules.extend(of_what_a_gateway_gives_for_all("defaults."));
    rules
}

/// `metav1.Condition`'s own bounds.
pub(super) fn of_status() -> Vec<Rule> {
    let keys = json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] });
    vec![
        at("conditions", with(list(16), keys)),
        at("conditions[].type", text(316)),
        at("conditions[].reason", text(1_024)),
        at("conditions[].message", text(32_768)),
    ]
}

/// Fields that a MailGateway and a MailDomain both have.
fn of_both() -> Vec<Rule> {
    let mut rules = vec![
        at("ipRanges", named(MAX_IP_RANGES)),
        at("ipRanges[].name", name(MAX_NAME)),
        at("ipRanges[].cidrs", with(list(MAX_CIDRS), json!({ "minItems": 1 }))),
        at("ipRanges[].hideKeywords", list(MAX_HIDDEN_KEYWORDS)),
        at("ipRanges[].priority", range(i32::MIN, i32::MAX)),
    ];
    for senders in ["senders.allow", "senders.deny"] {
        rules.extend([
            at(senders, list(MAX_SENDERS)),
            at(format!("{senders}[].pattern"), text(MAX_PATTERN)),
            at(format!("{senders}[].clients"), list(MAX_SENDER_CLIENTS)),
            at(format!("{senders}[].reason"), text(MAX_TEXT)),
        ]);
    }
    rules
}

/// Fields of a MailDomain that a MailGateway has under `defaults`.
fn of_what_a_gateway_gives_for_all(below: &str) -> Vec<Rule> {
    let at = |path: &str, additions| at(format!("{below}{path}"), additions);
    vec![
        at("greylisting", greylisting()),
        at("greylisting.autoPassAfter", range(0, MAX_AUTO_PASS_AFTER)),
        at("greylisting.exemptRecipients", list(MAX_EXEMPT_RECIPIENTS)),
        at("greylisting.exemptRecipients[]", text(64)),
        at("greylisting.prefix.ipv4", range(8, 32)),
        at("greylisting.prefix.ipv6", range(32, 128)),
        at("checks.dnsLists.only", list(MAX_DNS_LISTS)),
        at("checks.dnsLists.only[]", text(MAX_NAME)),
        at("checks.uriLists.only", list(MAX_DNS_LISTS)),
        at("checks.uriLists.only[]", text(MAX_NAME)),
        at("checks.arc.trustedSealers", list(MAX_TRUSTED_SEALERS)),
        at("checks.arc.trustedSealers[]", text(MAX_HOST)),
        at("checks.earlyTalker.greetDelay", at_most("60s", "greetDelay can be 60s at most")),
        at("scoring", scoring()),
        at("scoring.tagAt", score()),
        at("scoring.greylistAt", score()),
        at("scoring.rejectAt", score()),
        at("limits.recipients", range(1, 10_000)),
    ]
}

fn at(path: impl Into<String>, additions: Map<String, Value>) -> Rule {
    (path.into(), additions)
}

fn with(mut map: Map<String, Value>, more: Value) -> Map<String, Value> {
    if let Value::Object(more) = more {
        map.extend(more);
    }
    map
}

fn text(longest: usize) -> Map<String, Value> {
    with(Map::new(), json!({ "maxLength": longest }))
}

/// One that can't be empty.
fn name(longest: usize) -> Map<String, Value> {
    with(text(longest), json!({ "minLength": 1 }))
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

/// Of a duration. What is none is refused by the type's own rule, in its words.
fn at_most(longest: &str, message: &str) -> Map<String, Value> {
    let rule = format!("!self.matches('^([0-9]+(h|m|s|ms))+$') || duration(self) <= duration('{longest}')");
    cel(&[(&rule, message)])
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
