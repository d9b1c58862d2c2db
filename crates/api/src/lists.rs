//! `senders` and `recipients`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cidr, Time};

/// Senders that are allowed or denied, whatever else speaks for or against them. An allowed one is not denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SenderLists {
    /// No anti-spam check and no greylisting. A sender address is easily forged: add `clients` where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<SenderEntry>,
    /// Refused with 550 5.7.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<SenderEntry>,
}

/// Sender addresses, perhaps only from some clients or for some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SenderEntry {
    /// `user@partner.example`, `*@partner.example` for the domain, `*@*.partner.example` for the domains below it, a
    /// `*` within the local part for any characters, `<>` for the null sender.
    pub pattern: String,
    /// Networks that the client must be in. Any if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Cidr>,
    /// From then on the entry is as if absent. Never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// A note for the next reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Recipients of a MailDomain. A pattern is an address, `*@example.org`, or a bare local part for all its domains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recipients {
    /// If any are named, all others are refused with 550 5.1.1. Else the mail server is asked, as it is for these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
    /// Refused with 550 5.1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Get their mail without anti-spam checks and greylisting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exempt: Vec<String>,
    /// Takes local parts with `%`, `!` or a quoted `@`, which some servers route on to other hosts. No if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_routed_local_parts: Option<bool>,
}
