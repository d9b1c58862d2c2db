//! `greylisting` (RFC 6647).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Unknown senders are asked to come back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Greylisting {
    /// Who is asked to come back. Suspicious if left out.
    /// Write `"Off"` in quotes: kubectl reads a bare Off as false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<GreylistMode>,
    /// How long a new sender must wait before a retry passes. 5 minutes if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// How long after the first attempt a retry still counts as one. 48 hours if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_window: Option<Duration>,
    /// How long a sender that passed passes again, counted from its last mail. 864 hours (36 days) if left out.
    #[serde(rename = "passTTL", skip_serializing_if = "Option::is_none")]
    pub pass_ttl: Option<Duration>,
    /// After how many good messages from different senders a client identity passes for this mail domain without
    /// greylisting; 0 is never. 5 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_pass_after: Option<u32>,
    /// Which addresses are one network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<GreylistPrefix>,
    /// What a client is recognised by. Pool if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<GreylistIdentity>,
    /// Local parts that are never greylisted. `postmaster` and `abuse` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exempt_recipients: Option<Vec<String>>,
    /// What happens to mail when the store does not answer. Accept if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_store_failure: Option<StoreFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GreylistMode {
    /// Clients whose score reaches `scoring.greylistAt`, that have no better identity than their network, or a
    /// generic name.
    Suspicious,
    /// Every unknown client.
    Always,
    /// Nobody.
    Off,
}

/// Prefix lengths of the networks that clients are taken together by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GreylistPrefix {
    /// From 8 to 32 bits. 24 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u8>,
    /// From 32 to 128 bits. 64 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GreylistIdentity {
    /// By the SPF domain, the confirmed name in reverse DNS, or the network: a pool of servers is one client.
    Pool,
    /// By the network alone.
    Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoreFailure {
    /// Let it pass, and count it.
    Accept,
    /// 451: the sender keeps it until the store is back.
    Defer,
}
