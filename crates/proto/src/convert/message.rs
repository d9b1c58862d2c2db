//! A message while it arrives, and what holds for it.

use torwart_core as core;
use torwart_core::{Action, Reason};

use super::answer::{check, monitored, to_action, to_check, to_monitored, to_revision, wire_action};
use super::{Malformed, parts, reply};
use crate::v1;
use crate::v1::check_message_request::Part;

/// Header fields that one answer may add, and names that it may take out.
const MOST_FIELDS: usize = 64;
/// Octets of one field: an Authentication-Results of a message with many signatures has some thousands.
const LONGEST_FIELD: usize = 16 * 1024;
/// Octets of a line (RFC 5322 section 2.1.1), without its CRLF.
const LONGEST_LINE: usize = 998;
/// Octets of a field's name, and of an authserv-id (a domain name as a rule).
const LONGEST_NAME: usize = 255;
/// Results that are kept of one list of checks.
const MOST_CHECKS: usize = 1000;

// === question ===

impl From<&core::MessageQuestion> for v1::MessageBegin {
    fn from(question: &core::MessageQuestion) -> Self {
        let core::MessageQuestion { peer, transaction, envelope, recipients, checks } = question;
        Self {
            peer: Some(parts::peer(peer)),
            transaction_id: parts::id(*transaction),
            envelope: Some(parts::envelope(envelope)),
            recipients: recipients.iter().map(parts::mailbox).collect(),
            checks: checks.iter().map(check).collect(),
        }
    }
}

impl TryFrom<v1::MessageBegin> for core::MessageQuestion {
    type Error = Malformed;

    fn try_from(begin: v1::MessageBegin) -> Result<Self, Malformed> {
        let v1::MessageBegin { peer, transaction_id, envelope, recipients, checks } = begin;
        if recipients.is_empty() {
            return Err(Malformed::new("recipients", "there is none"));
        }
        Ok(Self {
            peer: parts::to_peer(peer)?,
            transaction: parts::to_id(&transaction_id, "transaction_id")?,
            envelope: parts::to_envelope(envelope)?,
            recipients: parts::to_recipients(recipients)?,
            checks: checks.into_iter().take(MOST_CHECKS).filter_map(to_check).collect(),
        })
    }
}

/// The first part.
pub fn message_begin(question: &core::MessageQuestion) -> v1::CheckMessageRequest {
    v1::CheckMessageRequest { part: Some(Part::Begin(question.into())) }
}

/// Whose message it is, as the first part says.
///
/// # Errors
/// If it is no such part.
pub fn to_message_begin(request: v1::CheckMessageRequest) -> Result<core::MessageQuestion, Malformed> {
    match request.part {
        Some(Part::Begin(begin)) => begin.try_into(),
        Some(Part::Chunk(_) | Part::End(_)) | None => {
            Err(Malformed::new("part", "the first is not the beginning"))
        }
    }
}

impl From<core::BodyPart> for v1::CheckMessageRequest {
    fn from(part: core::BodyPart) -> Self {
        let part = match part {
            core::BodyPart::Chunk(bytes) => Part::Chunk(bytes.into()),
            core::BodyPart::End { size } => Part::End(v1::MessageEnd { size }),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<v1::CheckMessageRequest> for core::BodyPart {
    type Error = Malformed;

    fn try_from(request: v1::CheckMessageRequest) -> Result<Self, Malformed> {
        match request.part {
            Some(Part::Chunk(bytes)) if bytes.len() > Self::LONGEST_CHUNK => {
                Err(Malformed::new("part.chunk", "it has more than 64 KiB"))
            }
            Some(Part::Chunk(bytes)) => Ok(Self::Chunk(bytes.into())),
            Some(Part::End(v1::MessageEnd { size })) => Ok(Self::End { size }),
            Some(Part::Begin(_)) => Err(Malformed::new("part", "a second beginning")),
            None => Err(Malformed::new("part", "this build does not know it")),
        }
    }
}

// === answer ===

impl From<&core::MessageAnswer> for v1::CheckMessageResponse {
    fn from(answer: &core::MessageAnswer) -> Self {
        let core::MessageAnswer {
            action,
            reply,
            reason,
            monitored: would,
            score,
            checks,
            add_fields,
            remove_fields,
            remove_authserv_id,
            revision,
        } = answer;
        Self {
            action: wire_action(*action).into(),
            reply: reply.as_ref().map(reply::reply),
            reason: reason.as_str().to_owned(),
            monitored: would.as_ref().map(monitored),
            score: *score,
            checks: checks.iter().map(check).collect(),
            add_fields: add_fields.iter().map(|field| field.as_ref().to_owned()).collect(),
            remove_fields: remove_fields.iter().map(|name| name.as_ref().to_owned()).collect(),
            remove_authserv_id: remove_authserv_id.as_deref().unwrap_or_default().to_owned(),
            revision: revision.0.as_ref().to_owned(),
        }
    }
}

/// Taken whole or not at all: a message goes upstream as the verdict wants it, or it waits.
impl TryFrom<v1::CheckMessageResponse> for core::MessageAnswer {
    type Error = Malformed;

    fn try_from(response: v1::CheckMessageResponse) -> Result<Self, Malformed> {
        let v1::CheckMessageResponse {
            action,
            reply,
            reason,
            monitored,
            score,
            checks,
            add_fields,
            remove_fields,
            remove_authserv_id,
            revision,
        } = response;
        let action =
            to_action(action).ok_or(Malformed::new("action", "this build does not know the value"))?;
        if !score.is_finite() {
            return Err(Malformed::new("score", "it is no number"));
        }
        let reply = match (action, reply) {
            (Action::Accept, _) => None,
            (Action::Defer | Action::Reject, None) => {
                return Err(Malformed::new("reply", "it is missing with a refusal"));
            }
            (Action::Defer | Action::Reject, Some(reply)) => Some(reply::to_refusal(reply, "reply")?),
        };
        if reply.as_ref().is_some_and(|reply| (action == Action::Reject) != (reply.code >= 500)) {
            return Err(Malformed::new("reply", "its code is not of the action's class"));
        }
        if add_fields.len() > MOST_FIELDS {
            return Err(Malformed::new("add_fields", "there are more than 64"));
        }
        if remove_fields.len() > MOST_FIELDS {
            return Err(Malformed::new("remove_fields", "there are more than 64"));
        }
        if !add_fields.iter().all(|field| is_field(field)) {
            return Err(Malformed::new("add_fields", "one is no header field in ASCII"));
        }
        if !remove_fields.iter().all(|name| is_name(name.strip_suffix('*').unwrap_or(name), name)) {
            return Err(Malformed::new("remove_fields", "one is no name of a header field"));
        }
        if remove_authserv_id.len() > LONGEST_NAME || remove_authserv_id.chars().any(char::is_control) {
            return Err(Malformed::new("remove_authserv_id", "it is none"));
        }
        Ok(Self {
            action,
            reply,
            reason: Reason::from_word(&reason),
            monitored: monitored.and_then(to_monitored),
            score,
            checks: checks.into_iter().take(MOST_CHECKS).filter_map(to_check).collect(),
            add_fields: add_fields.into_iter().map(Into::into).collect(),
            remove_fields: remove_fields.into_iter().map(Into::into).collect(),
            remove_authserv_id: Some(remove_authserv_id).filter(|id| !id.is_empty()).map(Into::into),
            revision: to_revision(revision)?,
        })
    }
}

/// RFC 5322 section 2.2: a name, a colon, and printable ASCII in lines; each line after the first begins with a blank
/// and is not empty.
fn is_field(field: &str) -> bool {
    let Some((name, _)) = field.split_once(':') else { return false };
    let text = |line: &str| {
        line.len() <= LONGEST_LINE && line.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    };
    let mut lines = field.split("\r\n");
    field.len() <= LONGEST_FIELD
        && is_name(name, name)
        && lines.next().is_some_and(text)
        && lines.all(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty() && text(line))
}

/// RFC 5322 section 3.6.8: printable ASCII but the colon. `whole` may not be empty; with a star, nothing before it would
/// take out every field.
fn is_name(name: &str, whole: &str) -> bool {
    !name.is_empty()
        && whole.len() <= LONGEST_NAME
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}
