//! `MailGateway.spec`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Checks, Cidr, Duration, Enforcement, Greylisting, IpRange, Limits, Scoring, SenderLists};

/// The installation: who it is, who may use it, and what holds for every mail domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailGatewaySpec {
    /// The gateway's own name in the banner, in `Received` and as authserv-id. It should be the name in the MX record.
    pub hostname: String,
    /// The address that mail to the bare `<Postmaster>` goes to; its domain must be one of the mail domains. Without
    /// it, such mail is deferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postmaster: Option<String>,
    /// `Monitor` judges everything and lets it pass. Enforce if left out. Relaying, syntax and resource limits are
    /// enforced always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// How long a mail domain that left the policy still answers 451 instead of 550. 24 hours if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal_grace: Option<Duration>,
    /// Which other namespaces may have MailDomains, and what these may claim and reach. Objects in the operator's own
    /// namespace, and all objects in files, need no entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<Tenant>,
    /// DNS block lists and allow lists of client addresses. None is asked if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_lists: Vec<DnsList>,
    /// DNS lists of domains that occur in messages. None is asked if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uri_lists: Vec<UriList>,
    /// Senders that are allowed or denied for every mail domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub senders: Option<SenderLists>,
    /// What holds for clients of certain addresses. They are judged before the mail domain's own ranges; their Reject
    /// and Defer stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_ranges: Vec<IpRange>,
    /// What holds for a mail domain that says nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
}

/// Fields of a MailDomain, given for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// Greylisting, field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greylisting: Option<Greylisting>,
    /// Checks, field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// Scoring, field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoring: Option<Scoring>,
    /// Limits, field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Namespaces that may have MailDomains, and what these may do. A namespace must be named if names are given, and
/// selected if a selector is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Names of namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels of namespaces. An empty selector selects every namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The domains that may be claimed: `example.org`, `*.example.org` for the names below it, or `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// The mail servers that may be reached, beside the Services of the object's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstreams: Option<TenantUpstreams>,
}

/// Mail servers that a tenant may reach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantUpstreams {
    /// Host names: `mail.corp.example`, `*.corp.example` for the names below it, or `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Networks that hold the addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<Cidr>,
}

/// A Kubernetes label selector: every condition must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels and the values that they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// The label.
    pub key: String,
    /// How `values` are meant.
    pub operator: LabelSelectorOperator,
    /// The values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelSelectorOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// A DNS list of client addresses (RFC 5782).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsList {
    /// The list's name in logs and check results (`dns_list/NAME`).
    pub name: String,
    /// The zone that is asked, as in `zen.spamhaus.org`.
    pub zone: String,
    /// Whether a listed address is bad (`Block`) or good (`Allow`). Block if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DnsListKind>,
    /// A file in the secrets directory that holds a query key; the key is put in front of the zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// What the answers mean. An answer that several match counts once, with the highest score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<DnsListResponse>,
    /// Addresses that show whether the list works. 127.0.0.2 and 127.0.0.1 (RFC 5782 section 5) if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsListKind {
    /// Listed is bad: scores are positive.
    Block,
    /// Listed is good: scores are negative.
    Allow,
}

/// Answers of a DNS list and their score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsListResponse {
    /// Addresses within 127.0.0.0/8: `127.0.0.2`, or `127.0.0.2-127.0.0.9` from the first to the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// Instead of codes: bits of the answer's last octet, of which one must be set. From 1 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// Added to the score.
    pub score: f64,
}

/// A DNS list of domains that occur in messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriList {
    /// The list's name in logs and check results (`uri_list/NAME`).
    pub name: String,
    /// The zone that is asked, as in `multi.surbl.org`.
    pub zone: String,
    /// A file in the secrets directory that holds a query key; the key is put in front of the zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// What the answers mean. An answer that several match counts once, with the highest score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<UriListResponse>,
    /// Domains that show whether the list works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// Answers of a list of domains and their score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriListResponse {
    /// Bits of the answer's last octet, of which one must be set. From 1 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// Instead of bits: addresses within 127.0.0.0/8, as in a DNS list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// Added to the score.
    pub score: f64,
}

/// An entry that a working list has, and one that it has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Always listed.
    pub listed: String,
    /// Never listed.
    pub not_listed: String,
}
