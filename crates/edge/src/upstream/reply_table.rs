//! The one table from (stage, upstream's code) to what the client hears.
//!
//! A pure function. Its rules, in the order in which they are tried:
//!
//! | upstream says | where | client hears | and |
//! |---|---|---|---|
//! | 354 at DATA, 2xx elsewhere | | go on | |
//! | another 2xx or 3xx, or no SMTP code | anywhere | 451 4.5.0 | next upstream |
//! | 421 | anywhere | 451 | next upstream |
//! | another 4xx, 5xx | STARTTLS | 451 4.7.5 | next upstream |
//! | 4xx, 5xx | every other stage | 451 4.3.5 | next upstream |
//! | 500-504, 530-538, 555 | MAIL, RCPT, dot | 451 4.3.5 | next upstream |
//! | 550-554 | MAIL, RCPT, dot | the same code | |
//! | another 5xx | MAIL, RCPT, dot | 451 4.3.5 | next upstream |
//! | 450, 451, 452 | MAIL, RCPT, dot | the same code | |
//! | another 4xx | MAIL, RCPT, dot | 451 | |
//!
//! What is reported of the upstream ([`DeliveryResult`], if the transaction ends with it) stands beside each: a 4xx at
//! MAIL, RCPT or the dot, and 421 anywhere, is `Deferred`; 550-554 at the dot is `Rejected`, and at MAIL or RCPT nothing,
//! since a server that knows its senders and recipients does its job; every other row is `Unreachable`.
//!
//! The text is ours: the upstream's own names hosts that are nobody's business. Its enhanced code (RFC 3463) is kept
//! where its class agrees with the code that the client hears (RFC 2034 section 4).

use torwart_core::{DeliveryResult, Reason, Reply};
use torwart_smtp::Stage;

use super::metrics::FailureKind;

/// What an upstream's reply means for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// What the stage waits for.
    Go,
    Refused(Refused),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reply: Reply,
    pub(super) reason: Reason,
    /// Another upstream of the same route may do better. Advice: it can only be followed while no recipient has
    /// been accepted.
    pub(super) try_next: bool,
    /// What to count; `None` is a server that does its job, such as a 550 for an unknown recipient.
    pub(super) failure: Option<FailureKind>,
    /// What is reported if the transaction ends with this; `None` is a server that does its job.
    pub(super) result: Option<DeliveryResult>,
}

type Enhanced = (u8, u16, u16);

/// The largest subject and detail (RFC 3463 section 2: up to three digits).
const ENHANCED_MAX: u16 = 999;

const TEXT_CONFIGURATION: &str = "Mail server configuration problem, try again later";
const TEXT_CLOSING: &str = "Mail server is closing connections, try again later";
const TEXT_TLS: &str = "Mail server cannot be reached securely, try again later";
const TEXT_PROTOCOL: &str = "Mail server gave no usable answer, try again later";

/// Judges one reply. `code` may be anything that three digits can say.
pub(super) fn judge(stage: Stage, code: u16, enhanced: Option<Enhanced>) -> Judgement {
    if is_success(stage, code) {
        return Judgement::Go;
    }
    Judgement::Refused(match (stage, code) {
        (_, 421) => Refused {
            reply: reply(451, kept(4, enhanced).unwrap_or((4, 3, 2)), TEXT_CLOSING),
            reason: Reason::UpstreamDeferred,
            try_next: true,
            failure: Some(FailureKind::Refused),
            result: Some(DeliveryResult::Deferred),
        },
        (Stage::Mail | Stage::Rcpt | Stage::Dot, 550..=554) => Refused {
            reply: reply(code, kept(5, enhanced).unwrap_or_else(|| permanent(code)), permanent_text(stage)),
            reason: Reason::UpstreamRejected,
            try_next: false,
            failure: None,
            result: (stage == Stage::Dot).then_some(DeliveryResult::Rejected),
        },
        (Stage::Mail | Stage::Rcpt | Stage::Dot, 400..=499) => {
            let code = if (450..=452).contains(&code) { code } else { 451 };
            Refused {
                reply: reply(
                    code,
                    kept(4, enhanced).unwrap_or_else(|| transient(stage, code)),
                    transient_text(stage),
                ),
                reason: Reason::UpstreamDeferred,
                try_next: false,
                failure: None,
                result: Some(DeliveryResult::Deferred),
            }
        }
        // Only where TLS is required; otherwise the client goes on in clear text.
        (Stage::StartTls, 400..=599) => Refused {
            reply: reply(451, (4, 7, 5), TEXT_TLS),
            reason: Reason::UpstreamTls,
            try_next: true,
            failure: Some(FailureKind::Tls),
            result: Some(DeliveryResult::Unreachable),
        },
        (_, 400..=599) => Refused {
            reply: reply(451, (4, 3, 5), TEXT_CONFIGURATION),
            reason: Reason::UpstreamDeferred,
            try_next: true,
            failure: Some(FailureKind::Refused),
            result: Some(DeliveryResult::Unreachable),
        },
        _ => Refused {
            reply: reply(451, (4, 5, 0), TEXT_PROTOCOL),
            reason: Reason::UpstreamDeferred,
            try_next: true,
            failure: Some(FailureKind::Protocol),
            result: Some(DeliveryResult::Unreachable),
        },
    })
}

/// RFC 5321 section 4.3.2. Elsewhere the first digit decides (section 4.2.1); DATA has one positive reply only.
fn is_success(stage: Stage, code: u16) -> bool {
    match stage {
        Stage::Data => code == 354,
        _ => (200..=299).contains(&code),
    }
}

/// The upstream's enhanced code, if it is well formed and of the class that the client's code has.
fn kept(class: u8, enhanced: Option<Enhanced>) -> Option<Enhanced> {
    enhanced.filter(|&(c, subject, detail)| c == class && subject <= ENHANCED_MAX && detail <= ENHANCED_MAX)
}

/// What RFC 3463 has for a code that came without one.
fn permanent(code: u16) -> Enhanced {
    match code {
        551 => (5, 1, 6),
        552 => (5, 2, 2),
        553 => (5, 1, 3),
        _ => (5, 0, 0),
    }
}

/// The same for 4xx. 452 at RCPT is "too many recipients" (RFC 5321 section 4.5.3.1.10).
fn transient(stage: Stage, code: u16) -> Enhanced {
    match (stage, code) {
        (Stage::Rcpt, 452) => (4, 5, 3),
        (_, 452) => (4, 3, 1),
        (Stage::Rcpt, 450) => (4, 2, 0),
        _ => (4, 3, 0),
    }
}

fn permanent_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Mail => "Sender refused by the mail server",
        Stage::Rcpt => "Recipient refused by the mail server",
        _ => "Message refused by the mail server",
    }
}

fn transient_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Mail => "Sender deferred by the mail server",
        Stage::Rcpt => "Recipient deferred by the mail server",
        _ => "Message deferred by the mail server",
    }
}

fn reply(code: u16, enhanced: Enhanced, text: &str) -> Reply {
    Reply::new(code, enhanced, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Stage; 12] = [
        Stage::Banner,
        Stage::Ehlo,
        Stage::StartTls,
        Stage::Xclient,
        Stage::Xforward,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Dot,
        Stage::Rset,
        Stage::Noop,
        Stage::Quit,
    ];

    fn refused(stage: Stage, code: u16, enhanced: Option<Enhanced>) -> Refused {
        match judge(stage, code, enhanced) {
            Judgement::Refused(refused) => refused,
            Judgement::Go => panic!("{stage:?} {code} was taken for success"),
        }
    }

    fn hears(stage: Stage, code: u16) -> (u16, Enhanced, Reason, bool) {
        let refused = refused(stage, code, None);
        (refused.reply.code, refused.reply.enhanced, refused.reason, refused.try_next)
    }

    /// Each rule of DESIGN's reply table, restated as a predicate and held against every stage and code.
    #[test]
    fn every_stage_and_code_follows_the_rules() {
        let candidates = [
            None,
            Some((2, 0, 0)),
            Some((4, 2, 2)),
            Some((5, 1, 1)),
            Some((9, 9, 9)),
            Some((5, 1000, 1)),
            Some((4, 1, 65535)),
        ];
        for stage in STAGES {
            let passes = matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Dot);
            for code in 200..=599u16 {
                for enhanced in candidates {
                    let expected = if stage == Stage::Data { 354..=354 } else { 200..=299 };
                    let judgement = judge(stage, code, enhanced);
                    if expected.contains(&code) {
                        assert_eq!(judgement, Judgement::Go, "{stage:?} {code}");
                        continue;
                    }
                    let Judgement::Refused(refused) = judgement else { panic!("{stage:?} {code} passed") };
                    let name = format!("{stage:?} {code} {enhanced:?} -> {refused:?}");
                    let permanent = passes && (550..=554).contains(&code);
                    assert_eq!(refused.reply.code >= 500, permanent, "{name}");
                    if permanent {
                        assert_eq!(refused.reply.code, code, "{name}");
                    }
                    assert_eq!(u16::from(refused.reply.enhanced.0), refused.reply.code / 100, "{name}");
                    assert!(refused.reply.enhanced.1 <= 999 && refused.reply.enhanced.2 <= 999, "{name}");
                    assert!((400..=599).contains(&refused.reply.code), "{name}");
                    let tls = code >= 400 && stage == Stage::StartTls;
                    let configuration = code >= 400 && !passes && !tls
                        || matches!(code, 500..=504 | 530..=538 | 555)
                        || passes && code >= 500 && !permanent;
                    if code == 421 {
                        assert_eq!(refused.reply.code, 451, "{name}");
                        assert!(refused.try_next, "{name}");
                    } else if tls {
                        assert_eq!((refused.reply.code, refused.reply.enhanced), (451, (4, 7, 5)), "{name}");
                        assert_eq!(refused.failure, Some(FailureKind::Tls), "{name}");
                        assert!(refused.try_next, "{name}");
                    } else if configuration {
                        assert_eq!((refused.reply.code, refused.reply.enhanced), (451, (4, 3, 5)), "{name}");
                        assert!(refused.try_next, "{name}");
                    } else if code < 400 {
                        assert_eq!((refused.reply.code, refused.reply.enhanced), (451, (4, 5, 0)), "{name}");
                        assert_eq!(refused.failure, Some(FailureKind::Protocol), "{name}");
                    } else {
                        assert!(!refused.try_next, "{name}");
                        assert_eq!(refused.failure, None, "{name}");
                    }
                    let reason = match (permanent, code) {
                        (true, _) => Reason::UpstreamRejected,
                        (false, 421) => Reason::UpstreamDeferred,
                        (false, _) if tls => Reason::UpstreamTls,
                        (false, _) => Reason::UpstreamDeferred,
                    };
                    assert_eq!(refused.reason, reason, "{name}");
                    let result = match (stage, code) {
                        (_, 421) => Some(DeliveryResult::Deferred),
                        (Stage::Dot, _) if permanent => Some(DeliveryResult::Rejected),
                        _ if permanent => None,
                        (Stage::Mail | Stage::Rcpt | Stage::Dot, 400..=499) => Some(DeliveryResult::Deferred),
                        _ => Some(DeliveryResult::Unreachable),
                    };
                    assert_eq!(refused.result, result, "{name}");
                    assert!(refused.reply.text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{name}");
                }
            }
        }
    }

    #[test]
    fn known_rows_read_as_the_design_says() {
        use Reason::{UpstreamDeferred, UpstreamRejected};
        let rows = [
            (Stage::Rcpt, 550, (550, (5, 0, 0), UpstreamRejected, false)),
            (Stage::Rcpt, 552, (552, (5, 2, 2), UpstreamRejected, false)),
            (Stage::Mail, 553, (553, (5, 1, 3), UpstreamRejected, false)),
            (Stage::Dot, 554, (554, (5, 0, 0), UpstreamRejected, false)),
            (Stage::Rcpt, 503, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::Mail, 530, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::Mail, 555, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::Dot, 556, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::Banner, 554, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::Ehlo, 550, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::StartTls, 454, (451, (4, 7, 5), Reason::UpstreamTls, true)),
            (Stage::StartTls, 550, (451, (4, 7, 5), Reason::UpstreamTls, true)),
            (Stage::StartTls, 421, (451, (4, 3, 2), UpstreamDeferred, true)),
            (Stage::Data, 550, (451, (4, 3, 5), UpstreamDeferred, true)),
            (Stage::Data, 250, (451, (4, 5, 0), UpstreamDeferred, true)),
            (Stage::Data, 350, (451, (4, 5, 0), UpstreamDeferred, true)),
            (Stage::Rcpt, 354, (451, (4, 5, 0), UpstreamDeferred, true)),
            (Stage::Banner, 421, (451, (4, 3, 2), UpstreamDeferred, true)),
            (Stage::Dot, 421, (451, (4, 3, 2), UpstreamDeferred, true)),
            (Stage::Rcpt, 450, (450, (4, 2, 0), UpstreamDeferred, false)),
            (Stage::Rcpt, 452, (452, (4, 5, 3), UpstreamDeferred, false)),
            (Stage::Dot, 452, (452, (4, 3, 1), UpstreamDeferred, false)),
            (Stage::Mail, 454, (451, (4, 3, 0), UpstreamDeferred, false)),
        ];
        for (stage, code, expected) in rows {
            assert_eq!(hears(stage, code), expected, "{stage:?} {code}");
        }
    }

    #[test]
    fn an_enhanced_code_is_kept_only_if_its_class_agrees() {
        assert_eq!(refused(Stage::Rcpt, 550, Some((5, 1, 1))).reply.enhanced, (5, 1, 1));
        assert_eq!(refused(Stage::Rcpt, 550, Some((4, 1, 1))).reply.enhanced, (5, 0, 0));
        assert_eq!(refused(Stage::Rcpt, 450, Some((4, 7, 1))).reply.enhanced, (4, 7, 1));
        assert_eq!(refused(Stage::Mail, 454, Some((4, 7, 0))).reply.enhanced, (4, 7, 0));
        assert_eq!(refused(Stage::Dot, 421, Some((4, 4, 2))).reply.enhanced, (4, 4, 2));
        assert_eq!(refused(Stage::Data, 550, Some((5, 1, 1))).reply.enhanced, (4, 3, 5));
    }

    #[test]
    fn what_is_no_smtp_code_is_a_protocol_fault() {
        for code in [0, 1, 150, 199, 600, 999] {
            assert_eq!(refused(Stage::Rcpt, code, None).failure, Some(FailureKind::Protocol), "{code}");
        }
    }
}
