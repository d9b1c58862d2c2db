//! `checks` and `scoring`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Enforcement};

/// What speaks for or against a client, a sender or a message. Each check adds to the score; with enforcement
/// `Monitor` it only says what it would have added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// DNS lists of client addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_lists: Option<DnsListsCheck>,
    /// DNS lists of domains in messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri_lists: Option<UriListsCheck>,
    /// SPF (RFC 7208).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spf: Option<SpfCheck>,
    /// The client's name in reverse DNS.
    #[serde(rename = "reverseDNS", skip_serializing_if = "Option::is_none")]
    pub reverse_dns: Option<ReverseDnsCheck>,
    /// The name in HELO or EHLO.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<HeloCheck>,
    /// Whether the sender's domain can receive mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<SenderDomainCheck>,
    /// DKIM (RFC 6376).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dkim: Option<DkimCheck>,
    /// DMARC (RFC 7489).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmarc: Option<DmarcCheck>,
    /// ARC (RFC 8617).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arc: Option<ArcCheck>,
    /// Clients that talk before the banner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_talker: Option<EarlyTalkerCheck>,
}

/// Which of the gateway's `dnsLists` are asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DnsListsCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Names of the lists that are asked. All if left out or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

/// Which of the gateway's `uriLists` are asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UriListsCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Names of the lists that are asked. All if left out or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
}

/// SPF (RFC 7208).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpfCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Score of `fail`. 3 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_score: Option<f64>,
    /// Score of `softfail`. 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_fail_score: Option<f64>,
    /// Score of a record that passes for everybody, such as `+all`. 2 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissive_score: Option<f64>,
}

/// The client's name in reverse DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReverseDnsCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Score of an address without a name. 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_score: Option<f64>,
    /// Score of a name that does not lead back to the address. 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch_score: Option<f64>,
    /// Score of a name that is made of the address, as providers give to dial-up customers. 1.5 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generic_score: Option<f64>,
}

/// The name in HELO or EHLO.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeloCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Score of a name that is no full host name. 2 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid_score: Option<f64>,
    /// Score of a client that claims to be this gateway or one of its mail domains. 5 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_score: Option<f64>,
}

/// Whether the sender's domain can receive mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SenderDomainCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Score of a domain that does not exist. 3 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_score: Option<f64>,
    /// Score of a domain that says it takes no mail (RFC 7505). 10 if left out.
    #[serde(rename = "nullMXScore", skip_serializing_if = "Option::is_none")]
    pub null_mx_score: Option<f64>,
}

/// DKIM (RFC 6376). It has no score of its own; DMARC and identities use it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DkimCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
}

/// DMARC (RFC 7489).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DmarcCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Whether a failure under `p=reject` adds to the score or refuses. Score if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<DmarcAction>,
    /// Score of a failure under `p=reject`. 5 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_score: Option<f64>,
    /// Score of a failure under `p=quarantine`. 4 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_score: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DmarcAction {
    /// Adds to the score.
    Score,
    /// Refuses for good where the domain's record asks for it.
    Reject,
}

/// ARC (RFC 8617).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArcCheck {
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Domains whose passing chain takes the DMARC score away. None if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_sealers: Option<Vec<String>>,
}

/// Clients that talk before the banner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EarlyTalkerCheck {
    /// Yes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Enforce if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Score of such a client. 4 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How long the banner is held back, at most 60 seconds. Not at all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greet_delay: Option<Duration>,
}

/// What a score leads to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scoring {
    /// From this score on a message is marked, and earns its sender no trust. 4 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_at: Option<f64>,
    /// From this score on a client is greylisted. 2 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greylist_at: Option<f64>,
    /// From this score on mail is refused. 10 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_at: Option<f64>,
}
