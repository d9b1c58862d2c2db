//! The recipients of one question and what becomes of each: decided as values, before any upstream is spoken to.

use torwart_core::{Action, ClassDigest, Mailbox, RecipientVerdict};

use crate::log::RecipientRecord;
use crate::reply::Said;

/// One recipient on its way from verdict to reply.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) to: Mailbox,
    /// `None` when there was no verdict to be had.
    pub(super) verdict: Option<RecipientVerdict>,
    /// `None` while the upstream's word is still missing.
    pub(super) said: Option<Said>,
}

/// What the transaction is bound to since its first accepted recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) class: ClassDigest,
    pub(super) size_limit: u64,
    /// LMTP: its final replies are one per recipient, so there is one recipient (RFC 2033 section 4.2).
    pub(super) one_recipient: bool,
}

// === impl Asked ===

impl Asked {
    pub(super) fn unanswered(to: Mailbox) -> Self {
        Self { to, verdict: None, said: Some(Said::no_verdict()) }
    }

    /// Settled at once unless the verdict accepts.
    pub(super) fn judged(to: Mailbox, verdict: RecipientVerdict, declared_size: Option<u64>) -> Self {
        let said = match verdict.action {
            Action::Accept if declared_size.is_some_and(|size| size > verdict.size_limit) => {
                Some(Said::too_large(verdict.size_limit))
            }
            Action::Accept if verdict.class.is_none() || verdict.route.is_none() => Some(Said::no_route()),
            Action::Accept => None,
            Action::Defer | Action::Reject => Some(match &verdict.reply {
                Some(reply) => Said { action: verdict.action, reply: reply.clone(), reason: verdict.reason },
                None => Said::no_verdict(),
            }),
        };
        Self { to, verdict: Some(verdict), said }
    }

    /// Where the upstream shall deliver to.
    pub(super) fn upstream_path(&self) -> String {
        let elsewhere = self.verdict.as_ref().and_then(|verdict| verdict.deliver_to.as_ref());
        elsewhere.unwrap_or(&self.to).to_string()
    }

    pub(super) fn record(&self, said: &Said) -> RecipientRecord {
        let verdict = self.verdict.as_ref();
        // The upstream took it; why it was let through is the verdict's to say.
        let let_through = verdict.filter(|_| said.action == Action::Accept);
        RecipientRecord {
            to: self.to.clone(),
            domain: verdict.and_then(|verdict| verdict.domain.clone()),
            action: said.action,
            code: said.reply.code,
            enhanced: said.reply.enhanced,
            reason: let_through.map_or(said.reason, |verdict| verdict.reason),
            greylist: verdict.and_then(|verdict| verdict.greylist),
            score: verdict.map_or(0.0, |verdict| verdict.score),
        }
    }

    /// What a transaction is bound to that begins with this recipient.
    pub(super) fn binding(&self, one_recipient: bool) -> Binding {
        Binding {
            class: self.class().unwrap_or(ClassDigest([0; 16])),
            size_limit: self.verdict.as_ref().map_or(0, |verdict| verdict.size_limit),
            one_recipient,
        }
    }

    fn class(&self) -> Option<ClassDigest> {
        self.verdict.as_ref().and_then(|verdict| verdict.class)
    }

    /// Two domains of one class may differ in size. A declared size was compared with each; without one, only
    /// recipients of one limit go together, so that none is refused for another's limit.
    fn fits(&self, binding: &Binding, declared_size: Option<u64>) -> bool {
        let limit = self.verdict.as_ref().map_or(0, |verdict| verdict.size_limit);
        self.class() == Some(binding.class) && (limit == binding.size_limit || declared_size.is_some())
    }
}

/// The next recipients to be brought to one upstream, as positions in `asked`; empty when all are settled.
/// With a binding those that do not fit are settled here; without one the first open recipient sets the class.
pub(super) fn next_group(
    asked: &mut [Asked],
    bound: Option<Binding>,
    declared_size: Option<u64>,
) -> Vec<usize> {
    let mut group = Vec::new();
    let mut leading = bound;
    for (i, recipient) in asked.iter_mut().enumerate() {
        if recipient.said.is_some() {
            continue;
        }
        let binding = leading.get_or_insert_with(|| recipient.binding(false));
        if binding.one_recipient {
            recipient.said = Some(Said::one_recipient_only());
        } else if recipient.fits(binding, declared_size) {
            group.push(i);
        } else if bound.is_some() {
            recipient.said = Some(Said::other_class());
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use torwart_core::{Reason, Reply, RouteDigest};

    use super::*;

    fn verdict(class: u8, size_limit: u64) -> RecipientVerdict {
        RecipientVerdict {
            action: Action::Accept,
            reply: None,
            reason: Reason::Accepted,
            monitored: None,
            greylist: None,
            score: 0.0,
            domain: None,
            object: None,
            route: Some(RouteDigest([class; 16])),
            class: Some(ClassDigest([class; 16])),
            size_limit,
            deliver_to: None,
            refuse_data: None,
            hold_message: false,
        }
    }

    fn asked(class: u8, size_limit: u64) -> Asked {
        Asked::judged(Mailbox::new("a", "example.org"), verdict(class, size_limit), None)
    }

    fn bound(class: u8, size_limit: u64, one_recipient: bool) -> Option<Binding> {
        Some(Binding { class: ClassDigest([class; 16]), size_limit, one_recipient })
    }

    #[test]
    fn the_first_open_recipient_sets_the_class() {
        let mut asked = [asked(1, 9), asked(2, 9), asked(1, 9)];
        assert_eq!(next_group(&mut asked, None, None), [0, 2]);
        assert!(
            asked.iter().all(|recipient| recipient.said.is_none()),
            "nobody is refused before one was accepted"
        );
        asked[0].said = Some(Said::no_route());
        asked[2].said = Some(Said::no_route());
        assert_eq!(next_group(&mut asked, None, None), [1]);
    }

    #[test]
    fn a_bound_transaction_sends_other_classes_away() {
        let mut asked = [asked(2, 9), asked(1, 9)];
        assert_eq!(next_group(&mut asked, bound(1, 9, false), None), [1]);
        assert_eq!(asked[0].said.as_ref().unwrap().reason, Reason::OtherClass);
        assert_eq!(asked[0].said.as_ref().unwrap().reply.code, 452);
    }

    #[test]
    fn another_size_limit_goes_along_only_with_a_declared_size() {
        for (declared, together) in [(None, false), (Some(5), true)] {
            let mut asked = [asked(1, 100)];
            let group = next_group(&mut asked, bound(1, 9, false), declared);
            assert_eq!(!group.is_empty(), together);
        }
    }

    #[test]
    fn lmtp_takes_one_recipient() {
        let mut asked = [asked(1, 9)];
        assert!(next_group(&mut asked, bound(1, 9, true), None).is_empty());
        assert_eq!(asked[0].said.as_ref().unwrap().reason, Reason::TooManyRecipients);
    }

    #[test]
    fn what_the_verdict_settles_needs_no_upstream() {
        let to = || Mailbox::new("a", "example.org");
        let refused = RecipientVerdict {
            action: Action::Defer,
            reply: Some(Reply::new(450, (4, 2, 0), "later")),
            reason: Reason::Greylisted,
            ..verdict(1, 9)
        };
        let speechless = RecipientVerdict { action: Action::Reject, reply: None, ..verdict(1, 9) };
        let nowhere = RecipientVerdict { route: None, ..verdict(1, 9) };
        let classless = RecipientVerdict { class: None, ..verdict(1, 9) };
        let table = [
            (Asked::judged(to(), refused, None), 450, Reason::Greylisted),
            (Asked::judged(to(), speechless, None), 451, Reason::VerdictUnavailable),
            (Asked::judged(to(), nowhere, None), 451, Reason::PolicyUnavailable),
            (Asked::judged(to(), classless, None), 451, Reason::PolicyUnavailable),
            (Asked::judged(to(), verdict(1, 9), Some(10)), 552, Reason::MessageTooLarge),
            (Asked::unanswered(to()), 451, Reason::VerdictUnavailable),
        ];
        for (asked, code, reason) in table {
            let said = asked.said.unwrap();
            assert_eq!((said.reply.code, said.reason), (code, reason));
        }
        assert!(Asked::judged(to(), verdict(1, 9), Some(9)).said.is_none());
    }

    #[test]
    fn the_log_says_why_a_recipient_was_let_through() {
        let verdict = RecipientVerdict { reason: Reason::SenderAllowed, ..verdict(1, 9) };
        let asked = Asked::judged(Mailbox::new("a", "example.org"), verdict, None);
        let taken = Said::new(Reply::new(250, (2, 1, 5), ""), Reason::Accepted);
        let refused = Said::new(Reply::new(550, (5, 1, 1), ""), Reason::UpstreamRejected);
        assert_eq!(asked.record(&taken).reason, Reason::SenderAllowed);
        assert_eq!(asked.record(&refused).reason, Reason::UpstreamRejected);
    }

    #[test]
    fn the_bare_postmaster_goes_where_the_verdict_says() {
        let deliver_to = Some(Mailbox::new("postmaster", "example.net"));
        let verdict = RecipientVerdict { deliver_to, ..verdict(1, 9) };
        let asked = Asked::judged(Mailbox::new("Postmaster", ""), verdict, None);
        assert_eq!(asked.upstream_path(), "postmaster@example.net");
    }
}
