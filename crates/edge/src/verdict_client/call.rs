//! The five questions: how long each may take, and what an answer that is none means.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use torwart_core::{Unavailable, UnavailableKind};
use torwart_proto::channel::is_not_done;

use super::balancer::{Effect, End, Target};
use super::metrics::FailureKind;

/// The label of `torwart_verdict_client_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    CheckConnection,
    CheckRecipients,
    CheckMessage,
    ReportOutcome,
    GetRoute,
}

/// Why one backend gave no answer.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// The server surely did not act.
    pub(super) not_done: bool,
    pub(super) detail: String,
}

/// What the verdict needs at most must fit in: its store, and DNS.
pub const RECIPIENTS_BUDGET: Duration = Duration::from_millis(4900);

/// Characters of what a server says that go to the log.
const LONGEST_DETAIL: usize = 200;

// === impl Call ===

impl Call {
    pub(super) const ALL: [Self; 5] = [
        Self::CheckConnection,
        Self::CheckRecipients,
        Self::CheckMessage,
        Self::ReportOutcome,
        Self::GetRoute,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CheckConnection => "check_connection",
            Self::CheckRecipients => "check_recipients",
            Self::CheckMessage => "check_message",
            Self::ReportOutcome => "report_outcome",
            Self::GetRoute => "get_route",
        }
    }

    /// A little less than the session waits (2 s before the banner, else 5 s), so that it hears why. A message's question
    /// lasts as long as its client takes; this is for a backend to take it up.
    pub(super) fn budget(self) -> Duration {
        match self {
            Self::CheckConnection => Duration::from_millis(1900),
            Self::CheckRecipients | Self::CheckMessage | Self::ReportOutcome | Self::GetRoute => {
                RECIPIENTS_BUDGET
            }
        }
    }

    /// A report that arrives twice would count twice.
    pub(super) fn effect(self) -> Effect {
        match self {
            Self::CheckConnection | Self::GetRoute => Effect::None,
            Self::CheckRecipients | Self::CheckMessage | Self::ReportOutcome => Effect::Remembered,
        }
    }

    /// How often it may be asked elsewhere; about a message only before anything of it was sent.
    pub(super) fn retries(self) -> usize {
        match self {
            Self::CheckConnection | Self::CheckRecipients | Self::CheckMessage | Self::GetRoute => 2,
            Self::ReportOutcome => 1,
        }
    }

    /// Whether `failure` leaves the question open for somebody else.
    pub(super) fn may_retry(self, failure: &Failure) -> bool {
        match failure.kind {
            // whoever is asked says the same
            FailureKind::Rejected | FailureKind::NoBackend | FailureKind::Limit | FailureKind::Resolve => {
                false
            }
            FailureKind::Connect
            | FailureKind::Timeout
            | FailureKind::Transport
            | FailureKind::Refused
            | FailureKind::Overload
            | FailureKind::Malformed
            | FailureKind::Internal
            | FailureKind::UnknownRoute
            | FailureKind::Unimplemented => failure.not_done || self.effect() == Effect::None,
        }
    }
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, not_done: false, detail: detail.into() }
    }

    pub(super) fn timeout() -> Self {
        Self::new(FailureKind::Timeout, "no answer in time")
    }

    pub(super) fn from_status(call: Call, status: &Status) -> Self {
        let not_done = is_not_done(status);
        let kind = match status.code() {
            Code::ResourceExhausted => FailureKind::Overload,
            _ if caused_by::<TimeoutExpired>(status) => FailureKind::Timeout,
            _ if caused_by::<ConnectError>(status) => FailureKind::Connect,
            _ if not_done => FailureKind::Refused,
            Code::NotFound if call == Call::GetRoute => FailureKind::UnknownRoute,
            Code::DeadlineExceeded => FailureKind::Timeout,
            // without a cause it is what the server said, with one it is what the transport met
            _ if status.source().is_some() => FailureKind::Transport,
            // a replica of another version
            Code::Unimplemented => FailureKind::Unimplemented,
            Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated => FailureKind::Rejected,
            Code::Ok | Code::DataLoss => FailureKind::Malformed,
            Code::Unavailable
            | Code::Cancelled
            | Code::Unknown
            | Code::AlreadyExists
            | Code::Aborted
            | Code::Internal => FailureKind::Internal,
        };
        let not_done = not_done || kind == FailureKind::Unimplemented;
        Self { kind, not_done, detail: describe(status) }
    }

    /// What it says of the backend that was asked so.
    pub(super) fn end(&self, call: Call) -> End {
        match self.kind {
            // it waits for the store with all that a large message teaches, and holds up nobody's question
            FailureKind::Timeout if call == Call::ReportOutcome => End::Open,
            FailureKind::Connect
            | FailureKind::Timeout
            | FailureKind::Transport
            | FailureKind::Refused
            | FailureKind::Malformed
            | FailureKind::Internal => End::Failed,
            FailureKind::Overload => End::Overloaded,
            FailureKind::Rejected | FailureKind::UnknownRoute | FailureKind::Unimplemented => End::Answered,
            FailureKind::NoBackend | FailureKind::Limit | FailureKind::Resolve => End::Open,
        }
    }

    /// A connection is gone, is going, or cannot be had: the name may have other addresses by now.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self.kind, FailureKind::Connect | FailureKind::Transport | FailureKind::Refused)
    }

    pub(super) fn malformed(what: impl fmt::Display) -> Self {
        Self::new(FailureKind::Malformed, what.to_string())
    }

    /// For the log, with the address.
    pub(super) fn unavailable(&self, call: Call, target: Option<Target>) -> Unavailable {
        let kind = match self.kind {
            FailureKind::UnknownRoute => UnavailableKind::UnknownRoute,
            FailureKind::Overload | FailureKind::Limit => UnavailableKind::Overloaded,
            _ => UnavailableKind::Unanswered,
        };
        let (call, why, detail) = (call.as_str(), self.kind.as_str(), &self.detail);
        match target {
            Some(target) => Unavailable::new(kind, format!("{call} at {}: {why}: {detail}", target.address)),
            None => Unavailable::new(kind, format!("{call}: {why}: {detail}")),
        }
    }
}

fn caused_by<E: Error + 'static>(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Bounded and without control characters.
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            text.push_str(": ");
            text.push_str(&error_text);
        }
        cause = error.source();
    }
    text.chars().take(LONGEST_DETAIL).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use torwart_proto::channel::not_done;

    #[test]
    fn what_a_server_s_status_means() {
        let table = [
            (Code::ResourceExhausted, FailureKind::Overload, End::Overloaded),
            (Code::Unavailable, FailureKind::Internal, End::Failed),
            (Code::DeadlineExceeded, FailureKind::Timeout, End::Failed),
            (Code::InvalidArgument, FailureKind::Rejected, End::Answered),
            (Code::Unimplemented, FailureKind::Unimplemented, End::Answered),
            (Code::Internal, FailureKind::Internal, End::Failed),
            (Code::Unknown, FailureKind::Internal, End::Failed),
        ];
        for (code, kind, end) in table {
            let failure = Failure::from_status(Call::CheckRecipients, &Status::new(code, "x"));
            assert_eq!((failure.kind, failure.end(Call::CheckRecipients)), (kind, end), "{code:?}");
            assert_eq!(failure.not_done, code == Code::Unimplemented, "{code:?}");
        }
    }

    #[test]
    fn a_report_that_takes_long_says_nothing_of_the_backend() {
        for call in Call::ALL {
            let expected = if call == Call::ReportOutcome { End::Open } else { End::Failed };
            assert_eq!(Failure::timeout().end(call), expected, "{call:?}");
        }
    }

    #[test]
    fn only_what_was_surely_not_done_is_asked_twice_unless_it_has_no_effect() {
        let unavailable = Status::unavailable("no policy");
        let overloaded = Status::resource_exhausted("busy");
        let table = [
            (unavailable.clone(), false, true),
            (not_done(unavailable), true, true),
            (overloaded.clone(), false, true),
            (not_done(overloaded), true, true),
            (Status::internal("x"), false, true),
            (Status::deadline_exceeded("x"), false, true),
            (Status::invalid_argument("x"), false, false),
            (Status::unimplemented("x"), true, true),
        ];
        for (status, with_effect, without) in table {
            for call in Call::ALL {
                let expected = if call.effect() == Effect::None { without } else { with_effect };
                let failure = Failure::from_status(call, &status);
                assert_eq!(call.may_retry(&failure), expected, "{call:?} {status}");
            }
        }
    }

    #[test]
    fn a_route_that_one_replica_does_not_know_yet_may_be_known_to_another() {
        let failure = Failure::from_status(Call::GetRoute, &Status::not_found("x"));
        assert_eq!((failure.kind, failure.end(Call::GetRoute)), (FailureKind::UnknownRoute, End::Answered));
        assert!(Call::GetRoute.may_retry(&failure));
        let kind = failure.unavailable(Call::GetRoute, None).kind;
        assert_eq!(kind, UnavailableKind::UnknownRoute);
    }

    #[test]
    fn what_a_server_says_is_bounded_and_clean_in_the_log() {
        let failure =
            Failure::from_status(Call::GetRoute, &Status::internal(format!("a\r\nb{}", "x".repeat(9999))));
        assert!(
            failure.detail.len() <= LONGEST_DETAIL && !failure.detail.contains(['\r', '\n']),
            "{failure:?}"
        );
    }
}
