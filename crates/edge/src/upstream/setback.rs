//! Why an upstream did not do what it was asked: faults of the connection, and their words for the client.

use std::io;

use torwart_core::{DeliveryResult, Reason, Reply};

use super::connection::Answer;
use super::metrics::FailureKind;
use super::reply_table::Refused;

/// What can befall a connection where an answer was due.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the connection was closed")]
    Closed,
    #[error("no answer or no progress in time")]
    Timeout,
    #[error("protocol: {0}")]
    Protocol(String),
    #[error("TLS: {0}")]
    Tls(String),
}

/// One upstream could not do it.
#[derive(Clone, Debug)]
pub(super) struct Setback {
    pub(super) reply: Reply,
    pub(super) reason: Reason,
    /// Bounded and free of control characters, for the log.
    pub(super) upstream_reply: Option<String>,
    /// Another upstream of the route may do better.
    pub(super) try_next: bool,
    pub(super) failure: Option<FailureKind>,
    /// What is reported if the transaction ends with this; `None`: the upstream did its job.
    pub(super) result: Option<DeliveryResult>,
}

// === impl Fault ===

impl Fault {
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::Closed => FailureKind::Closed,
            Self::Timeout => FailureKind::Timeout,
            Self::Protocol(_) => FailureKind::Protocol,
            Self::Tls(_) => FailureKind::Tls,
        }
    }

    /// While the connection was being opened: nobody there (RFC 3463, X.4.1).
    pub(super) fn on_opening(&self) -> Setback {
        match self {
            Self::Closed | Self::Timeout => Setback::unreachable(self.kind(), self.to_string()),
            Self::Protocol(_) | Self::Tls(_) => self.in_transaction(),
        }
    }

    /// After it was open: a bad connection (RFC 3463, X.4.2).
    pub(super) fn in_transaction(&self) -> Setback {
        let (enhanced, reason, text) = match self {
            Self::Closed | Self::Timeout => (
                (4, 4, 2),
                Reason::UpstreamUnreachable,
                "Connection to the mail server broke, try again later",
            ),
            Self::Protocol(_) => {
                ((4, 5, 0), Reason::UpstreamDeferred, "Mail server gave no usable answer, try again later")
            }
            Self::Tls(_) => {
                ((4, 7, 5), Reason::UpstreamTls, "Mail server cannot be reached securely, try again later")
            }
        };
        Setback {
            reply: Reply::new(451, enhanced, text),
            reason,
            upstream_reply: Some(format!("({self})")),
            try_next: true,
            failure: Some(self.kind()),
            result: Some(DeliveryResult::Unreachable),
        }
    }

    /// After the dot was sent: nobody knows whether the message was taken. The sender brings it again.
    pub(super) fn after_the_dot(&self) -> Setback {
        Setback {
            reply: Reply::new(451, (4, 4, 2), "Mail server's answer was lost, try again later"),
            reason: Reason::UpstreamOutcomeUnknown,
            try_next: false,
            result: Some(DeliveryResult::Unknown),
            ..self.in_transaction()
        }
    }
}

impl From<io::Error> for Fault {
    /// rustls reports its errors as `InvalidData`; everything else ends the connection.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Tls(error.to_string()),
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Closed,
        }
    }
}

// === impl Setback ===

impl Setback {
    pub(super) fn unreachable(kind: FailureKind, detail: String) -> Self {
        Self {
            reply: Reply::new(451, (4, 4, 1), "No mail server can be reached, try again later"),
            reason: Reason::UpstreamUnreachable,
            upstream_reply: Some(format!("({detail})")),
            try_next: true,
            failure: Some(kind),
            result: Some(DeliveryResult::Unreachable),
        }
    }

    pub(super) fn busy() -> Self {
        Self {
            reply: Reply::new(451, (4, 4, 5), "Mail server is busy, try again later"),
            reason: Reason::UpstreamBusy,
            upstream_reply: None,
            try_next: true,
            failure: Some(FailureKind::Busy),
            result: Some(DeliveryResult::Deferred),
        }
    }

    /// The client was silent while others waited for its connection.
    pub(super) fn gave_way() -> Self {
        Self {
            reply: Reply::new(
                451,
                (4, 4, 5),
                "Message came too slowly for a busy mail server, try again later",
            ),
            upstream_reply: Some("(the client was silent and others waited)".to_owned()),
            ..Self::busy()
        }
    }

    /// After the transaction was begun again, the upstream answered otherwise.
    pub(super) fn changed_its_mind(detail: String) -> Self {
        Self {
            reply: Reply::new(451, (4, 3, 0), "Mail server answers otherwise than before, try again later"),
            reason: Reason::UpstreamDeferred,
            upstream_reply: Some(detail),
            try_next: false,
            failure: None,
            result: Some(DeliveryResult::Deferred),
        }
    }

    /// Something in the route that this gateway cannot do.
    pub(super) fn misconfigured(detail: &str) -> Self {
        Self {
            reply: Reply::new(451, (4, 3, 5), "Mail server configuration problem, try again later"),
            reason: Reason::UpstreamDeferred,
            upstream_reply: Some(format!("({detail})")),
            try_next: true,
            failure: None,
            result: Some(DeliveryResult::Unreachable),
        }
    }

    /// The upstream would take the client for us, and judge us by its rules for the client.
    pub(super) fn client_identity(detail: &str) -> Self {
        Self { failure: Some(FailureKind::Refused), ..Self::misconfigured(detail) }
    }

    pub(super) fn refused(refused: Refused, answer: Answer) -> Self {
        let Refused { reply, reason, try_next, failure, result } = refused;
        Self { reply, reason, upstream_reply: Some(answer.text), try_next, failure, result }
    }
}
