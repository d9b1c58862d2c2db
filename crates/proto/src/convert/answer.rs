//! What the verdict answers.

use std::sync::Arc;
use std::time::Duration;

use torwart_core as core;
use torwart_core::{Action, Reason};

use super::{Malformed, parts, reply, route};
use crate::v1;

/// Octets of a revision: 64 hexadecimal digits today.
const LONGEST_REVISION: usize = 128;

// === connection ===

/// `RecipientVerdict.size_limit` of a domain without one of its own.
const NO_LIMIT: u64 = 0;

impl From<&core::ConnectionAnswer> for v1::CheckConnectionResponse {
    fn from(answer: &core::ConnectionAnswer) -> Self {
        let core::ConnectionAnswer { refuse, tls, greet_delay, hidden, revision, ask_connections } = answer;
        let (refuse, reason) = refuse.as_ref().map_or((None, String::new()), |(said, reason)| {
            (Some(reply::reply(said)), reason.as_str().to_owned())
        });
        let tls = match tls {
            core::ListenerTls::Offer => v1::ListenerTls::Offer,
            core::ListenerTls::Hide => v1::ListenerTls::Hide,
            core::ListenerTls::Require => v1::ListenerTls::Require,
        };
        Self {
            refuse,
            reason,
            tls: tls.into(),
            revision: revision.0.as_ref().to_owned(),
            ask_connections: *ask_connections,
            greet_delay_milliseconds: u32::try_from(greet_delay.as_millis()).unwrap_or(u32::MAX),
            hidden_keywords: hidden.iter().map(|keyword| keyword.as_str().to_owned()).collect(),
        }
    }
}

impl TryFrom<v1::CheckConnectionResponse> for core::ConnectionAnswer {
    type Error = Malformed;

    fn try_from(response: v1::CheckConnectionResponse) -> Result<Self, Malformed> {
        let v1::CheckConnectionResponse {
            refuse,
            reason,
            tls,
            revision,
            ask_connections,
            greet_delay_milliseconds,
            hidden_keywords,
        } = response;
        let refuse = refuse.map(|refuse| reply::to_refusal(refuse, "refuse")).transpose()?;
        Ok(Self {
            refuse: refuse.map(|refuse| (refuse, Reason::from_word(&reason))),
            tls: match v1::ListenerTls::try_from(tls) {
                Ok(v1::ListenerTls::Hide) => core::ListenerTls::Hide,
                Ok(v1::ListenerTls::Require) => core::ListenerTls::Require,
                Ok(v1::ListenerTls::Offer | v1::ListenerTls::Unspecified) | Err(_) => {
                    core::ListenerTls::Offer
                }
            },
            greet_delay: Duration::from_millis(greet_delay_milliseconds.into()),
            // what this build does not know it does not offer
            hidden: core::Keyword::ALL
                .into_iter()
                .filter(|keyword| hidden_keywords.iter().any(|hidden| hidden == keyword.as_str()))
                .collect(),
            revision: to_revision(revision)?,
            ask_connections,
        })
    }
}

// === recipients ===

impl From<&core::RecipientsAnswer> for v1::CheckRecipientsResponse {
    fn from(answer: &core::RecipientsAnswer) -> Self {
        let core::RecipientsAnswer { recipients, identity, checks, revision, ask_connections } = answer;
        Self {
            recipients: recipients.iter().map(verdict).collect(),
            identity: parts::text(identity.as_ref()),
            checks: checks.iter().map(check).collect(),
            revision: revision.0.as_ref().to_owned(),
            ask_connections: *ask_connections,
            // nobody asks for it before reverse DNS is checked
            rdns: None,
        }
    }
}

/// Whether there is one verdict for each recipient asked about is for the caller to check, who knows how many they were.
impl TryFrom<v1::CheckRecipientsResponse> for core::RecipientsAnswer {
    type Error = Malformed;

    fn try_from(response: v1::CheckRecipientsResponse) -> Result<Self, Malformed> {
        let v1::CheckRecipientsResponse { recipients, identity, checks, revision, ask_connections, rdns: _ } =
            response;
        Ok(Self {
            recipients: recipients.into_iter().map(to_verdict).collect(),
            identity: identity.map(Arc::from),
            checks: checks.into_iter().filter_map(to_check).collect(),
            revision: to_revision(revision)?,
            ask_connections,
        })
    }
}

fn verdict(verdict: &core::RecipientVerdict) -> v1::RecipientVerdict {
    let core::RecipientVerdict {
        action,
        reply,
        reason,
        monitored: would,
        greylist,
        score,
        domain,
        object,
        route,
        class,
        size_limit,
        deliver_to,
        refuse_data,
        hold_message,
    } = verdict;
    v1::RecipientVerdict {
        action: wire_action(*action).into(),
        reply: reply.as_ref().map(reply::reply),
        reason: reason.as_str().to_owned(),
        monitored: would.as_ref().map(monitored),
        greylist: greylist.map(|greylist| greylist.as_str().to_owned()),
        score: *score,
        domain: parts::text(domain.as_ref()),
        object: parts::text(object.as_ref()),
        route: route.map(|digest| digest.0.to_vec()),
        delivery_class: class.map(|digest| digest.0.to_vec()),
        size_limit: if *size_limit == u64::MAX { NO_LIMIT } else { *size_limit },
        deliver_to: deliver_to.as_ref().map(parts::mailbox),
        refuse_data: refuse_data.as_ref().map(reply::reply),
        hold_message: *hold_message,
    }
}

/// A verdict that can't be carried out is a 451: the mail waits until edge and verdict are of one version again.
fn to_verdict(verdict: v1::RecipientVerdict) -> core::RecipientVerdict {
    let (domain, object) = (verdict.domain.clone(), verdict.object.clone());
    judged(verdict).unwrap_or_else(|why| {
        tracing::debug!(%why, "a verdict that this build can't carry out");
        unusable(domain, object)
    })
}

fn unusable(domain: Option<String>, object: Option<String>) -> core::RecipientVerdict {
    let reply = core::Reply::new(451, (4, 3, 5), "Mail cannot be checked right now, please try again later");
    core::RecipientVerdict {
        action: Action::Defer,
        reply: Some(reply),
        reason: Reason::VerdictUnavailable,
        monitored: None,
        greylist: None,
        score: 0.0,
        domain: domain.map(Arc::from),
        object: object.map(Arc::from),
        route: None,
        class: None,
        size_limit: 0,
        deliver_to: None,
        refuse_data: None,
        hold_message: false,
    }
}

fn judged(verdict: v1::RecipientVerdict) -> Result<core::RecipientVerdict, Malformed> {
    let v1::RecipientVerdict {
        action,
        reply,
        reason,
        monitored,
        greylist,
        score,
        domain,
        object,
        route,
        delivery_class,
        size_limit,
        deliver_to,
        refuse_data,
        hold_message,
    } = verdict;
    let action = to_action(action).ok_or(Malformed::new("action", "this build does not know the value"))?;
    if !score.is_finite() {
        return Err(Malformed::new("score", "it is no number"));
    }
    let route = route.map(|digest| route::to_digest(&digest, "route")).transpose()?;
    let class = delivery_class.map(|digest| route::to_class(&digest, "delivery_class")).transpose()?;
    let (reply, refuse_data) = if action == Action::Accept {
        if route.is_none() {
            return Err(Malformed::new("route", "it is missing with accept"));
        }
        if class.is_none() {
            return Err(Malformed::new("delivery_class", "it is missing with accept"));
        }
        (None, refuse_data.map(|refuse| reply::to_refusal(refuse, "refuse_data")).transpose()?)
    } else {
        let reply = reply.ok_or(Malformed::new("reply", "it is missing with a refusal"))?;
        let reply = reply::to_refusal(reply, "reply")?;
        if (action == Action::Reject) != (reply.code >= 500) {
            return Err(Malformed::new("reply", "its code is not of the action's class"));
        }
        (Some(reply), None)
    };
    Ok(core::RecipientVerdict {
        action,
        reply,
        reason: Reason::from_word(&reason),
        monitored: monitored.and_then(to_monitored),
        greylist: greylist
            .and_then(|word| core::Greylist::ALL.into_iter().find(|greylist| greylist.as_str() == word)),
        score,
        domain: domain.map(Arc::from),
        object: object.map(Arc::from),
        route,
        class,
        size_limit: if size_limit == NO_LIMIT { u64::MAX } else { size_limit },
        deliver_to: deliver_to.map(|mailbox| parts::to_mailbox(mailbox, "deliver_to")).transpose()?,
        refuse_data,
        hold_message,
    })
}

pub(super) fn monitored(monitored: &core::Monitored) -> v1::Monitored {
    let core::Monitored { action, reason } = monitored;
    v1::Monitored { action: wire_action(*action).into(), reason: reason.as_str().to_owned() }
}

pub(super) fn wire_action(action: Action) -> v1::Action {
    match action {
        Action::Accept => v1::Action::Accept,
        Action::Defer => v1::Action::Defer,
        Action::Reject => v1::Action::Reject,
    }
}

pub(super) fn to_action(action: i32) -> Option<Action> {
    match v1::Action::try_from(action) {
        Ok(v1::Action::Accept) => Some(Action::Accept),
        Ok(v1::Action::Defer) => Some(Action::Defer),
        Ok(v1::Action::Reject) => Some(Action::Reject),
        Ok(v1::Action::Unspecified) | Err(_) => None,
    }
}

/// Only told in the log: what this build does not know is left out.
pub(super) fn to_monitored(monitored: v1::Monitored) -> Option<core::Monitored> {
    let v1::Monitored { action, reason } = monitored;
    Some(core::Monitored { action: to_action(action)?, reason: Reason::from_word(&reason) })
}

pub(super) fn check(check: &core::CheckResult) -> v1::CheckResult {
    let core::CheckResult { name, result, score, detail, milliseconds } = check;
    v1::CheckResult {
        name: name.as_ref().to_owned(),
        result: result.as_str().to_owned(),
        score: *score,
        detail: detail.as_ref().to_owned(),
        milliseconds: *milliseconds,
    }
}

/// Only told in the log: what this build does not know is left out.
pub(super) fn to_check(check: v1::CheckResult) -> Option<core::CheckResult> {
    let v1::CheckResult { name, result, score, detail, milliseconds } = check;
    let result = core::CheckOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == result)?;
    score.is_finite().then(|| core::CheckResult {
        name: name.into(),
        result,
        score,
        detail: detail.into(),
        milliseconds,
    })
}

pub(super) fn to_revision(revision: String) -> Result<core::Revision, Malformed> {
    if revision.len() > LONGEST_REVISION || !revision.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(Malformed::new("revision", "it is not up to 128 printable characters"));
    }
    Ok(core::Revision(revision.into()))
}
