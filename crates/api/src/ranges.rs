//! `ipRanges`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Cidr, GreylistMode, Time};

/// What holds for clients of certain addresses. Of several ranges of one object that hold a client, the one with the
/// highest priority wins, then the one with the longest prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpRange {
    /// The range's name in logs and answers, unique within the object.
    pub name: String,
    /// Networks and single addresses.
    pub cidrs: Vec<Cidr>,
    /// The highest wins. 0 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What happens to mail from there. Check if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<RangeAction>,
    /// From then on the range is as if absent. Never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// Whether these clients see STARTTLS. Offer if left out. In a MailGateway only: the banner comes before the
    /// mail domain is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RangeTls>,
    /// What EHLO does not offer to these clients, for those that stumble over it; what is hidden works all the same.
    /// STARTTLS is hidden by tls. Nothing if left out. In a MailGateway only, as tls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hide_keywords: Vec<EhloKeyword>,
    /// Switches single checks on or off for these clients. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<RangeChecks>,
    /// Greylisting for these clients. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greylisting: Option<RangeGreylisting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RangeAction {
    /// Trust: no anti-spam check, no greylisting, no rate limit. The recipient must still be one of the mail domains'.
    Allow,
    /// Judge as anybody.
    Check,
    /// Refuse for good.
    Reject,
    /// Refuse for now.
    Defer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RangeTls {
    /// STARTTLS is offered.
    Offer,
    /// STARTTLS is not offered, for clients that stumble over it.
    Hide,
    /// Mail before STARTTLS is refused.
    Require,
}

/// A keyword of the reply to EHLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum EhloKeyword {
    /// Commands one after the other, without waiting for replies (RFC 2920).
    Pipelining,
    /// The largest message (RFC 1870).
    Size,
    /// Bytes beyond ASCII in messages (RFC 6152). Hides SMTPUTF8 too, which is not to be offered without it.
    #[serde(rename = "8BITMIME")]
    EightBitMime,
    /// A code such as 5.7.1 in replies (RFC 2034).
    EnhancedStatusCodes,
    /// Letters beyond ASCII in addresses (RFC 6531).
    SmtpUtf8,
    /// Messages in chunks, by BDAT (RFC 3030).
    Chunking,
}

/// Single checks on or off. Virus scanners are not among them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RangeChecks {
    /// DNS lists of client addresses. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_lists: Option<Switch>,
    /// DNS lists of domains in messages. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri_lists: Option<Switch>,
    /// SPF. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spf: Option<Switch>,
    /// The client's name in reverse DNS. As the mail domain says if left out.
    #[serde(rename = "reverseDNS", skip_serializing_if = "Option::is_none")]
    pub reverse_dns: Option<Switch>,
    /// The name in HELO or EHLO. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<Switch>,
    /// Whether the sender's domain can receive mail. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<Switch>,
    /// DKIM. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dkim: Option<Switch>,
    /// DMARC. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmarc: Option<Switch>,
    /// ARC. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arc: Option<Switch>,
    /// Clients that talk before the banner. As the mail domain says if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_talker: Option<Switch>,
}

/// On or off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Switch {
    /// Whether it is on.
    pub enabled: bool,
}

/// Greylisting of the clients of one IP range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RangeGreylisting {
    /// Who of them is asked to come back.
    /// Write `"Off"` in quotes: kubectl reads a bare Off as false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<GreylistMode>,
}
