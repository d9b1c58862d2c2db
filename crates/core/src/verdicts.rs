//! The seam between edge and verdict.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::{
    ConnectionAnswer, ConnectionQuestion, Delivery, MessageAnswer, MessageBody, MessageQuestion,
    RecipientsAnswer, RecipientsQuestion, Route, RouteDigest,
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Answers the edge's questions: in process, or over gRPC.
///
/// Guarantees: an answer has one verdict per recipient asked about; every route named in an answer can be
/// fetched by [`Verdicts::route`] while the session lasts. The caller sets the time limit and may drop the
/// future at any point.
pub trait Verdicts: Send + Sync + 'static {
    fn check_connection(
        &self,
        question: ConnectionQuestion,
    ) -> BoxFuture<'_, Result<ConnectionAnswer, Unavailable>>;

    fn check_recipients(
        &self,
        question: RecipientsQuestion,
    ) -> BoxFuture<'_, Result<RecipientsAnswer, Unavailable>>;

    /// Reads the body to its end as it comes, and then answers. Without an end there is no answer. Never asked again
    /// elsewhere once the body was begun.
    fn check_message(
        &self,
        question: MessageQuestion,
        body: Box<dyn MessageBody>,
    ) -> BoxFuture<'_, Result<MessageAnswer, Unavailable>>;

    /// Never fails as far as the edge is concerned: what is lost is counted by the implementation.
    fn report_delivery(&self, delivery: Delivery) -> BoxFuture<'_, ()>;

    fn route(&self, digest: RouteDigest) -> BoxFuture<'_, Result<Arc<Route>, Unavailable>>;
}

/// No verdict is to be had: the mail hears 451 4.3.5 and waits at its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    pub kind: UnavailableKind,
    /// For the log: what happened.
    pub detail: Arc<str>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnavailableKind {
    /// The verdict has not loaded a policy yet.
    NoPolicy,
    /// No policy in force or lately in force has the route.
    UnknownRoute,
    /// Too many questions at once.
    Overloaded,
    /// Nobody could be asked, or whoever was asked did not answer.
    Unanswered,
}

// === impl Unavailable ===

impl Unavailable {
    pub fn new(kind: UnavailableKind, detail: impl Into<Arc<str>>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no verdict: {}", self.detail)
    }
}

impl std::error::Error for Unavailable {}
