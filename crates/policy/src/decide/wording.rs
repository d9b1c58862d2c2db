//! Every reply that the verdict gives, in one place. The edge adds the transaction id.
//!
//! Codes are those of RFC 5321 section 4.2, enhanced codes those of RFC 3463 and RFC 5248's registry. Texts are
//! read by the sender's postmaster, often years later in a bounce: they say what is wrong and what to do.

use torwart_core::{Action, Reason, Reply};

use super::Refusal;

fn reject(reason: Reason, code: u16, enhanced: (u8, u16, u16), text: &str) -> Refusal {
    Refusal { action: Action::Reject, reason, reply: Reply::new(code, enhanced, text) }
}

fn defer(reason: Reason, code: u16, enhanced: (u8, u16, u16), text: &str) -> Refusal {
    Refusal { action: Action::Defer, reason, reply: Reply::new(code, enhanced, text) }
}

pub(super) fn unknown_domain() -> Refusal {
    reject(
        Reason::UnknownDomain,
        550,
        (5, 7, 1),
        "Relay access denied: this server takes no mail for that domain",
    )
}

pub(super) fn removed_domain() -> Refusal {
    defer(
        Reason::RemovedDomain,
        451,
        (4, 3, 5),
        "This server has just stopped taking mail for that domain, try later",
    )
}

/// A fault of ours, so no refusal.
pub(super) fn policy_unavailable() -> Refusal {
    defer(
        Reason::PolicyUnavailable,
        451,
        (4, 3, 5),
        "This server's settings for that domain can't be read at the moment, try later",
    )
}

pub(super) fn no_postmaster() -> Refusal {
    defer(Reason::PolicyUnavailable, 451, (4, 3, 5), "No postmaster is set up on this server yet, try later")
}

pub(super) fn routed_recipient() -> Refusal {
    reject(Reason::RecipientRouted, 553, (5, 1, 3), "Addresses that name a further route are not accepted")
}

pub(super) fn message_too_large() -> Refusal {
    reject(
        Reason::MessageTooLarge,
        552,
        (5, 3, 4),
        "The message is larger than this recipient's domain accepts",
    )
}

pub(super) fn too_many_recipients() -> Refusal {
    defer(
        Reason::TooManyRecipients,
        452,
        (4, 5, 3),
        "Too many recipients, send the rest in another transaction",
    )
}

pub(super) fn recipient_denied() -> Refusal {
    reject(Reason::RecipientDenied, 550, (5, 1, 1), "There is no such mailbox here")
}

pub(super) fn sender_denied() -> Refusal {
    reject(Reason::SenderDenied, 550, (5, 7, 1), "Mail from this sender is not accepted here")
}

pub(super) fn client_rejected() -> Refusal {
    reject(Reason::IpRange, 550, (5, 7, 1), "Mail from your network is not accepted here")
}

pub(super) fn client_deferred() -> Refusal {
    defer(Reason::IpRange, 450, (4, 7, 1), "Mail from your network is not accepted at the moment, try later")
}

/// Not the 530 of RFC 3207: this session may never have been offered STARTTLS.
pub(super) fn tls_required() -> Refusal {
    defer(
        Reason::IpRange,
        451,
        (4, 7, 0),
        "Mail from your network is accepted over TLS only, try again with STARTTLS",
    )
}

/// At the banner.
pub(super) fn connection_rejected() -> Reply {
    Reply::new(554, (5, 7, 1), "Mail from your network is not accepted here")
}

pub(super) fn score() -> Refusal {
    reject(Reason::Score, 550, (5, 7, 1), "The message looks like spam, ask your postmaster to look into it")
}

/// Names of lists are words (`compile` sees to it).
pub(super) fn listed(list: &str) -> Refusal {
    let text = format!("Your address is on the block list {list}, ask whoever keeps it to take it off");
    reject(Reason::DnsList, 550, (5, 7, 1), &text)
}

pub(super) fn greylisted(wait: u32) -> Refusal {
    let unit = if wait == 1 { "second" } else { "seconds" };
    let text = format!("Greylisted: nothing is wrong, please send it again in {wait} {unit}");
    defer(Reason::Greylisted, 450, (4, 2, 0), &text)
}

pub(super) fn greylist_unavailable() -> Refusal {
    defer(
        Reason::Greylisted,
        451,
        (4, 3, 0),
        "A look-up has failed here, please send it again in a few minutes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_is_one_line_of_printable_ascii() {
        let refusals = [
            unknown_domain(),
            removed_domain(),
            policy_unavailable(),
            no_postmaster(),
            routed_recipient(),
            message_too_large(),
            too_many_recipients(),
            recipient_denied(),
            sender_denied(),
            client_rejected(),
            client_deferred(),
            tls_required(),
            score(),
            listed(&"z".repeat(torwart_api::limits::MAX_NAME)),
            greylisted(1),
            greylisted(u32::MAX),
            greylist_unavailable(),
        ];
        for refusal in refusals {
            let Refusal { action, reply, .. } = refusal;
            // RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets; the edge adds the transaction id.
            assert!(
                reply.text.len() < 400 && reply.text.bytes().all(|c| (b' '..=b'~').contains(&c)),
                "{reply}"
            );
            let class = u16::from(reply.enhanced.0);
            assert_eq!(reply.code / 100, class, "{reply}");
            assert_eq!(action == Action::Reject, class == 5, "{reply}");
        }
        assert!(greylisted(299).reply.text.contains("299 seconds"));
    }
}
