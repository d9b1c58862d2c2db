//! From screening and greylist to the answer.

use std::sync::Arc;

use torwart_core::{Action, Greylist, Monitored, Reason, RecipientVerdict, RecipientsAnswer};

use crate::model::{Enforcement, Policy};

use super::{Facts, Finding, GreylistWord, Refusal, Screened, Screening, listed, wording};

/// What was found for one recipient, before Monitor and limits.
struct Judgement {
    refusal: Option<Refusal>,
    /// Holds whatever the enforcement.
    is_final: bool,
    /// With no refusal: why it is accepted.
    reason: Reason,
    greylist: Option<Greylist>,
}

/// `greylist` has one entry for each recipient; those that need no greylisting may have none. A recipient that
/// needs it and got no word counts as a failure of the store.
pub fn judge(
    policy: &Policy,
    facts: &Facts<'_>,
    screening: &Screening<'_>,
    greylist: &[Option<GreylistWord>],
) -> RecipientsAnswer {
    let mut accepted = facts.accepted_before;
    let words = greylist.iter().copied().chain(std::iter::repeat(None));
    let recipients = screening
        .recipients
        .iter()
        .zip(words)
        .map(|(screened, word)| {
            let verdict = judge_one(facts, screened, word, accepted);
            accepted = accepted.saturating_add(u32::from(verdict.action == Action::Accept));
            verdict
        })
        .collect();
    RecipientsAnswer {
        recipients,
        identity: screening.identity(facts).map(|identity| identity.to_string().into()),
        checks: [listed::results(screening, facts), facts.checks.to_vec()].concat(),
        revision: policy.revision.clone(),
        ask_connections: policy.asks_connections,
    }
}

fn judge_one(
    facts: &Facts<'_>,
    screened: &Screened<'_>,
    word: Option<GreylistWord>,
    accepted: u32,
) -> RecipientVerdict {
    let judgement = judgement(screened, word);
    let mut verdict = RecipientVerdict {
        action: Action::Accept,
        reply: None,
        reason: judgement.reason,
        monitored: None,
        greylist: judgement.greylist,
        score: screened.score,
        domain: screened.target.map(|target| Arc::clone(target.pattern)),
        object: screened.target.map(|target| Arc::clone(&target.domain.object)),
        route: None,
        class: None,
        size_limit: screened.target.map_or(0, |target| target.domain.message_size),
        deliver_to: screened.deliver_to.cloned(),
        refuse_data: None,
        // no check of a policy looks at messages yet
        hold_message: false,
    };
    let Some(target) = screened.target else {
        if let Some(refusal) = judgement.refusal {
            refuse(&mut verdict, refusal);
        }
        return verdict;
    };
    match judgement.refusal {
        None => {}
        Some(refusal) if judgement.is_final => {
            refuse(&mut verdict, refusal);
            return verdict;
        }
        Some(refusal) if target.enforcement == Enforcement::Monitor => {
            verdict.monitored = Some(Monitored { action: refusal.action, reason: refusal.reason });
            verdict.reason = Reason::Accepted;
        }
        // RFC 6647 section 5.2 and 5.6: call-outs send `<>` up to RCPT and must not be told that nobody is there.
        Some(Refusal { reason, reply, .. }) if reason == Reason::Greylisted && facts.sender.is_none() => {
            verdict.reason = reason;
            verdict.refuse_data = Some(reply);
        }
        Some(refusal) => {
            // Its upstream may be known not to know this recipient: then it need not come again.
            verdict.route = (refusal.reason == Reason::Greylisted).then_some(target.domain.route);
            refuse(&mut verdict, refusal);
            return verdict;
        }
    }
    if accepted >= target.domain.max_recipients {
        verdict.monitored = None;
        verdict.refuse_data = None;
        refuse(&mut verdict, wording::too_many_recipients());
        return verdict;
    }
    verdict.route = Some(target.domain.route);
    verdict.class = Some(target.domain.class);
    verdict
}

fn refuse(verdict: &mut RecipientVerdict, refusal: Refusal) {
    let Refusal { action, reason, reply } = refusal;
    verdict.action = action;
    verdict.reason = reason;
    verdict.reply = Some(reply);
    verdict.deliver_to = None;
}

fn judgement(screened: &Screened<'_>, word: Option<GreylistWord>) -> Judgement {
    match &screened.finding {
        Finding::Final(refusal) => Judgement::refusal(refusal.clone(), true, None),
        Finding::Refuse(refusal) => Judgement::refusal(refusal.clone(), false, None),
        Finding::Accept { reason, greylist } => Judgement::acceptance(*reason, *greylist),
        Finding::Greylist => match word {
            Some(GreylistWord::Judged(judged)) if judged.passes() => {
                Judgement::acceptance(Reason::Accepted, judged.outcome)
            }
            Some(GreylistWord::Judged(judged)) => {
                Judgement::refusal(wording::greylisted(judged.wait), false, Some(judged.outcome))
            }
            Some(GreylistWord::Failed | GreylistWord::Overloaded) | None => {
                let accept =
                    screened.target.is_none_or(|target| target.domain.greylisting.accept_on_store_failure);
                if accept && word != Some(GreylistWord::Overloaded) {
                    Judgement::acceptance(Reason::Accepted, Greylist::StoreFailure)
                } else {
                    let refusal = wording::greylist_unavailable();
                    Judgement::refusal(refusal, false, Some(Greylist::StoreFailure))
                }
            }
        },
    }
}

// === impl Judgement ===

impl Judgement {
    fn refusal(refusal: Refusal, is_final: bool, greylist: Option<Greylist>) -> Self {
        Self { reason: refusal.reason, refusal: Some(refusal), is_final, greylist }
    }

    fn acceptance(reason: Reason, greylist: Greylist) -> Self {
        Self { refusal: None, is_final: false, reason, greylist: Some(greylist) }
    }
}
