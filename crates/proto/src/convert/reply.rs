//! A reply goes to a client of SMTP word for word, so what comes from the wire is checked to be one.

use torwart_core as core;

use super::Malformed;
use crate::v1;

/// Octets of a reply's text: what a line of 512 (RFC 5321 section 4.5.3.1.5) has left beside codes, the transaction id
/// and CRLF, with room to spare.
pub(super) const LONGEST: usize = 400;

pub(super) fn reply(reply: &core::Reply) -> v1::Reply {
    let core::Reply { code, enhanced: (class, subject, detail), text } = reply;
    v1::Reply {
        code: (*code).into(),
        enhanced_class: (*class).into(),
        enhanced_subject: (*subject).into(),
        enhanced_detail: (*detail).into(),
        text: text.as_ref().to_owned(),
    }
}

/// A refusal: 421, or 450 to 554, with an enhanced code of the same class (RFC 2034 section 4), and one line of
/// printable ASCII.
pub(super) fn to_refusal(reply: v1::Reply, field: &'static str) -> Result<core::Reply, Malformed> {
    let v1::Reply { code, enhanced_class, enhanced_subject, enhanced_detail, text } = reply;
    let Ok(code @ (421 | 450..=554)) = u16::try_from(code) else {
        return Err(Malformed::new(field, "its code is no refusal: not 421, nor 450 to 554"));
    };
    let class = u8::try_from(enhanced_class)
        .ok()
        .filter(|class| u16::from(*class) == code / 100)
        .ok_or(Malformed::new(field, "code and enhanced code are not of one class"))?;
    let part = |number: u32| u16::try_from(number).ok().filter(|number| *number <= 999);
    let (Some(subject), Some(detail)) = (part(enhanced_subject), part(enhanced_detail)) else {
        return Err(Malformed::new(field, "a part of its enhanced code is over 999"));
    };
    if text.len() > LONGEST {
        return Err(Malformed::new(field, "its text is too long for a line"));
    }
    if !text.bytes().all(|c| matches!(c, b' '..=b'~')) {
        return Err(Malformed::new(field, "its text is not one line of printable ASCII"));
    }
    Ok(core::Reply::new(code, (class, subject, detail), text))
}
