//! The compiled policy: closed types, no YAML, every default filled in.
//!
//! Made by `compile`, read by `decide`. A `Policy` is immutable; a new revision is a new value.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use torwart_core::{ClassDigest, Keyword, ListenerTls, Revision, Route, RouteDigest};

use crate::dns_lists::DnsList;
use crate::domains::DomainTable;
use crate::ranges::RangeTable;

/// Everything that decides, for one installation.
#[derive(Debug)]
pub struct Policy {
    pub revision: Revision,
    pub gateway: Gateway,
    pub domains: DomainTable,
    pub routes: HashMap<RouteDigest, Arc<Route>>,
    /// False if every connection gets the same answer at the banner.
    pub asks_connections: bool,
    /// Some of the policy could not be read and nobody knows what was in it: a domain that is not here may be there.
    pub incomplete: bool,
}

/// The MailGateway.
#[derive(Debug)]
pub struct Gateway {
    pub hostname: Arc<str>,
    /// As written; the bare `<Postmaster>` goes there.
    pub postmaster: Option<torwart_core::Mailbox>,
    pub enforcement: Enforcement,
    pub removal_grace: Duration,
    /// How long a client that speaks too early is waited for before the banner.
    pub greet_delay: Duration,
    pub ranges: RangeTable,
    pub senders: SenderLists,
    pub dns_lists: Vec<DnsList>,
}

/// One MailDomain, effective: the gateway's defaults are already in it.
#[derive(Debug)]
pub struct Domain {
    /// `namespace/name` of the object.
    pub object: Arc<str>,
    pub enforcement: Enforcement,
    pub route: RouteDigest,
    pub class: ClassDigest,
    pub greylisting: Greylisting,
    pub ranges: RangeTable,
    pub senders: SenderLists,
    pub recipients: RecipientLists,
    pub dns_lists: DnsListsCheck,
    pub scoring: Scoring,
    pub message_size: u64,
    pub max_recipients: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    Enforce,
    /// Judged in full, let pass, counted as what would have been.
    Monitor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greylisting {
    pub mode: GreylistMode,
    pub delay: Duration,
    pub retry_window: Duration,
    pub pass_ttl: Duration,
    pub auto_pass_after: u32,
    pub prefix_ipv4: u8,
    pub prefix_ipv6: u8,
    pub pool_identity: bool,
    /// Local parts, lower case.
    pub exempt_recipients: Vec<Box<str>>,
    pub accept_on_store_failure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreylistMode {
    Suspicious,
    Always,
    Off,
}

/// Which of the gateway's DNS lists are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsListsCheck {
    pub enabled: bool,
    pub enforcement: Enforcement,
    /// Names; empty: all.
    pub only: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scoring {
    pub tag_at: f32,
    pub greylist_at: f32,
    pub reject_at: f32,
}

/// What an IP range says of the addresses in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub name: Arc<str>,
    pub action: RangeAction,
    pub priority: i32,
    /// Unix seconds; the range is as if absent from then on.
    pub expires: Option<i64>,
    pub tls: Option<ListenerTls>,
    /// What EHLO does not offer to these clients. In a MailGateway only, as `tls`.
    pub hidden: Vec<Keyword>,
    /// Overrides `enabled` of the domain's DNS lists for these clients.
    pub dns_lists: Option<bool>,
    /// Overrides the domain's mode for these clients.
    pub greylisting: Option<GreylistMode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeAction {
    /// Trust: no anti-spam check, no greylisting, no rate limit. The recipient must still be ours.
    Allow,
    Check,
    Reject,
    Defer,
}

#[derive(Debug, Default)]
pub struct SenderLists {
    pub allow: Vec<SenderEntry>,
    pub deny: Vec<SenderEntry>,
}

#[derive(Clone, Debug)]
pub struct SenderEntry {
    pub pattern: crate::patterns::AddressPattern,
    /// Empty: from anywhere.
    pub clients: Vec<ipnet::IpNet>,
    /// Unix seconds.
    pub expires: Option<i64>,
}

#[derive(Debug, Default)]
pub struct RecipientLists {
    /// Empty: everyone.
    pub accept: Vec<crate::patterns::AddressPattern>,
    pub deny: Vec<crate::patterns::AddressPattern>,
    /// Exempt from anti-spam checks and greylisting.
    pub exempt: Vec<crate::patterns::AddressPattern>,
    /// Allows `%`, `!` and a quoted `@` in the local part.
    pub allow_routed_local_parts: bool,
}

/// What a mail domain of a recipient means under a policy.
#[derive(Clone, Debug)]
pub enum DomainMatch<'a> {
    /// `pattern` is the mail domain as the manifest wrote it, in A-label form (`example.org`, `*.example.org`).
    Known {
        pattern: &'a Arc<str>,
        domain: &'a Arc<Domain>,
    },
    /// Left the policy; `until` (Unix seconds) it answers 451.
    Removed {
        until: i64,
    },
    /// An object that is not in force names it: it was written with a mistake, or twice.
    Held,
    Unknown,
}

impl SenderEntry {
    pub fn applies(&self, client: IpAddr, now: i64) -> bool {
        self.expires.is_none_or(|at| now < at)
            && (self.clients.is_empty() || self.clients.iter().any(|net| net.contains(&client)))
    }
}
