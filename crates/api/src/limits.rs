//! The maxima of lists and texts. An object that fits the Kubernetes API (about 1.5 MiB) rarely meets one; they keep
//! a mistake, such as a list in the wrong field, from becoming a slow gateway.

/// `spec.domains` of one MailDomain: one object is one mail server's worth of domains.
pub const MAX_DOMAINS: usize = 1_000;
/// `spec.route.upstreams`: all may be tried within the minute that a recipient has.
pub const MAX_UPSTREAMS: usize = 32;
/// `ipRanges` of one object.
pub const MAX_IP_RANGES: usize = 1_000;
/// `cidrs` of one IP range: as many as fit an object of the Kubernetes API, twice over.
pub const MAX_CIDRS: usize = 100_000;
/// `hideKeywords` of one IP range: there are six, and more to come.
pub const MAX_HIDDEN_KEYWORDS: usize = 16;
/// `senders.allow` and `senders.deny`, each: they are read in order for every recipient.
pub const MAX_SENDERS: usize = 1_000;
/// `clients` of one entry in a sender list.
pub const MAX_SENDER_CLIENTS: usize = 100;
/// `recipients.accept`, `deny` and `exempt`, each: longer lists of mailboxes belong to the mail server, which is asked.
pub const MAX_RECIPIENTS: usize = 5_000;
/// `greylisting.exemptRecipients`.
pub const MAX_EXEMPT_RECIPIENTS: usize = 100;
/// Bytes of the certificates that `tls.caRef` leads to: some dozens of authorities.
pub const MAX_AUTHORITY: usize = 64 << 10;
/// `tenants` of the MailGateway.
pub const MAX_TENANTS: usize = 1_000;
/// Each list of one tenant.
pub const MAX_TENANT_ENTRIES: usize = 1_000;
/// `matchLabels` and `matchExpressions` of one selector, each.
pub const MAX_SELECTOR_TERMS: usize = 100;
/// `greylisting.autoPassAfter`: nobody sends so many good messages, at one an hour.
pub const MAX_AUTO_PASS_AFTER: u32 = 1_000_000;
/// `dnsLists` and `uriLists`, each: every one is a query per client.
pub const MAX_DNS_LISTS: usize = 32;
/// `responses` of one list, and `codes` of one response.
pub const MAX_RESPONSES: usize = 32;
/// `checks.arc.trustedSealers`.
pub const MAX_TRUSTED_SEALERS: usize = 100;
/// Names of IP ranges and lists: they are seen in logs and in check results.
pub const MAX_NAME: usize = 63;
/// A host or domain in text form (RFC 1035 section 2.3.4), with room for U-labels.
pub const MAX_HOST: usize = 253;
/// Any pattern for an address: a local part of 64 and a domain of 255 octets (RFC 5321 section 4.5.3.1), with the @.
pub const MAX_PATTERN: usize = 320;
/// Free text, such as `reason`.
pub const MAX_TEXT: usize = 1_024;
