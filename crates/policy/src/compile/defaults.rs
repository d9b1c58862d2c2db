//! What holds if nobody says otherwise, each with its reason.

use torwart_api::{
    ArcCheck, Checks, DkimCheck, DmarcAction, DmarcCheck, DnsListsCheck, Duration, EarlyTalkerCheck,
    Enforcement, GreylistIdentity, GreylistMode, GreylistPrefix, Greylisting, HeloCheck, Limits, Rate,
    ReverseDnsCheck, Scoring, SenderDomainCheck, Size, SpfCheck, StoreFailure, UriListsCheck,
};

/// A day: long enough to notice on the next morning that an object was deleted by mistake.
pub(crate) const REMOVAL_GRACE: Duration = Duration::from_secs(86_400);
/// Longer than any sender keeps trying (RFC 5321 section 4.5.4.1: 4 to 5 days) would be no grace.
pub(crate) const MAX_REMOVAL_GRACE: Duration = Duration::from_secs(7 * 86_400);

/// RFC 5321 section 4.5.4.2.
pub(crate) const SMTP_PORT: u16 = 25;
/// RFC 2033 forbids port 25; 24 is IANA's port for private mail systems, and what Dovecot and Cyrus use.
pub(crate) const LMTP_PORT: u16 = 24;
pub(crate) const PRIORITY: u32 = 0;
pub(crate) const WEIGHT: u32 = 1;
pub(crate) const MAX_WEIGHT: u32 = 1_000;
/// What Postfix's destination concurrency limit is, so that a server built for Postfix is not flooded.
pub(crate) const MAX_CONNECTIONS: u32 = 20;
/// Each is a file descriptor at the edge.
pub(crate) const MOST_CONNECTIONS: u32 = 10_000;

/// The prefix lengths that may be one client: shorter ones would hold whole countries.
pub(crate) const PREFIX_IPV4: std::ops::RangeInclusive<u8> = 8..=32;
pub(crate) const PREFIX_IPV6: std::ops::RangeInclusive<u8> = 32..=128;

/// Nothing beyond it makes sense: the largest built-in threshold is 10.
pub(crate) const MAX_SCORE: f64 = 1_000.0;

/// The banner may be held back for less than the five minutes that a client waits (RFC 5321 section 4.5.3.2.1); a
/// minute keeps connections from piling up.
pub(crate) const MAX_GREET_DELAY: Duration = Duration::from_secs(60);

/// The recipients of one transaction: a hard bound on what one session may hold.
pub(crate) const MAX_RECIPIENTS: u32 = 10_000;
/// The largest `limits.messageSize`: what the widest mail systems take, and far from any overflow.
pub(crate) const MAX_MESSAGE_SIZE: Size = Size::bytes(1 << 30);
/// No mail would fit (RFC 5321 section 4.5.3.1.7 asks for 64 KiB).
pub(crate) const MIN_MESSAGE_SIZE: Size = Size::bytes(64 << 10);

/// RFC 6647 section 5, recommendations 2 to 5.
pub(crate) fn greylisting() -> Greylisting {
    Greylisting {
        mode: Some(GreylistMode::Suspicious),
        // Postgrey's; most senders retry after 5 to 15 minutes.
        delay: Some(Duration::from_secs(5 * 60)),
        // Some senders back off to a day; RFC 6647 says 24 hours at least.
        retry_window: Some(Duration::from_secs(48 * 3600)),
        // A monthly newsletter passes: 36 days.
        pass_ttl: Some(Duration::from_secs(864 * 3600)),
        // Postgrey's auto-whitelist-clients.
        auto_pass_after: Some(5),
        // The networks that providers give to one customer: Postgrey's /24, RFC 6177's /64.
        prefix: Some(GreylistPrefix { ipv4: Some(24), ipv6: Some(64) }),
        // Senders with many servers pass at their first retry.
        identity: Some(GreylistIdentity::Pool),
        // RFC 2142: the addresses that people in trouble write to.
        exempt_recipients: Some(vec!["postmaster".to_owned(), "abuse".to_owned()]),
        // Mail is worth more than one wave of spam.
        on_store_failure: Some(StoreFailure::Accept),
    }
}

/// On, with scores of which no single one refuses, but two or three together do.
pub(crate) fn checks() -> Checks {
    let (enabled, enforcement) = (Some(true), Some(Enforcement::Enforce));
    Checks {
        dns_lists: Some(DnsListsCheck { enabled, enforcement, only: Some(Vec::new()) }),
        uri_lists: Some(UriListsCheck { enabled, enforcement, only: Some(Vec::new()) }),
        // Forwarding breaks SPF, so a failure alone only greylists.
        spf: Some(SpfCheck {
            enabled,
            enforcement,
            fail_score: Some(3.0),
            soft_fail_score: Some(1.0),
            permissive_score: Some(2.0),
        }),
        // Small honest servers often have no proper name.
        reverse_dns: Some(ReverseDnsCheck {
            enabled,
            enforcement,
            missing_score: Some(1.0),
            mismatch_score: Some(1.0),
            generic_score: Some(1.5),
        }),
        // Nobody honest says that it is us.
        helo: Some(HeloCheck { enabled, enforcement, invalid_score: Some(2.0), ours_score: Some(5.0) }),
        // RFC 7505: a domain with a null MX sends no mail that could be answered.
        sender_domain: Some(SenderDomainCheck {
            enabled,
            enforcement,
            missing_score: Some(3.0),
            null_mx_score: Some(10.0),
        }),
        dkim: Some(DkimCheck { enabled, enforcement }),
        // Mailing lists break DMARC, so even p=reject alone does not refuse.
        dmarc: Some(DmarcCheck {
            enabled,
            enforcement,
            action: Some(DmarcAction::Score),
            reject_score: Some(5.0),
            quarantine_score: Some(4.0),
        }),
        arc: Some(ArcCheck { enforcement, trusted_sealers: Some(Vec::new()) }),
        early_talker: Some(EarlyTalkerCheck {
            enabled,
            enforcement,
            score: Some(4.0),
            greet_delay: Some(Duration::from_secs(0)),
        }),
    }
}

/// One doubt greylists, two mark, three or four refuse.
pub(crate) fn scoring() -> Scoring {
    Scoring { tag_at: Some(4.0), greylist_at: Some(2.0), reject_at: Some(10.0) }
}

pub(crate) fn limits() -> Limits {
    Limits {
        // What the large providers take, with their 25 MB attachments grown by base64.
        message_size: Some(Size::bytes(50 << 20)),
        // The least that RFC 5321 section 4.5.3.1.8 allows.
        recipients: Some(100),
        rate_per_network: Some(Rate::Unlimited),
        rate_per_identity: Some(Rate::Unlimited),
        // Far above typing errors, far below a dictionary attack.
        unknown_recipients: Some(Rate::Limited { count: 30, window: Duration::from_secs(600) }),
    }
}
