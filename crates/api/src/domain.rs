//! `MailDomain.spec`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Checks, Enforcement, Greylisting, IpRange, Rate, Recipients, Route, Scoring, SenderLists, Size};

/// Mail domains that share a route and a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailDomainSpec {
    /// The MailGateway that takes this mail. The one named `default` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_ref: Option<GatewayRef>,
    /// The mail domains: `example.org`, or `*.lists.example.org` for every name below `lists.example.org`. The most
    /// specific one of all objects wins.
    pub domains: Vec<String>,
    /// `Monitor` judges everything and lets it pass. Enforce if left out; Monitor in any case if the gateway says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Where accepted mail goes.
    pub route: Route,
    /// Greylisting; what is left out is the gateway's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greylisting: Option<Greylisting>,
    /// What holds for clients of certain addresses. A match replaces the gateway's, unless that is Reject or Defer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_ranges: Vec<IpRange>,
    /// Senders that are allowed or denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub senders: Option<SenderLists>,
    /// Recipients that are accepted, denied or exempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    /// Checks; what is left out is the gateway's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
    /// Scoring; what is left out is the gateway's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoring: Option<Scoring>,
    /// Limits; what is left out is the gateway's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Names a MailGateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayRef {
    /// Its name.
    pub name: String,
}

/// How much is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The largest message. 50 MiB if left out; the process's own maximum stands above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_size: Option<Size>,
    /// The most recipients of one transaction. 100 if left out, which is also the least that RFC 5321 section
    /// 4.5.3.1.8 allows a server to offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<u32>,
    /// How many recipients one client network may send to in a time. No limit if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_network: Option<Rate>,
    /// How many recipients one client identity may send to in a time. No limit if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_identity: Option<Rate>,
    /// How many unknown recipients one client network may try in a time. 30 in 10 minutes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_recipients: Option<Rate>,
}
