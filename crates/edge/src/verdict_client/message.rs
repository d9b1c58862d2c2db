//! The question that lasts: a message goes to one backend while it arrives, on a channel of its own.
//!
//! Another backend is asked only as long as nothing of the message was sent. From then on whatever fails is the end of
//! it: what a backend has read can't be told again, and what it did with it is not known.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::timeout_at;
use tokio_stream::Stream;
use tonic::Request;
use torwart_core::{BodyPart, MessageAnswer, MessageBody, MessageQuestion, Unavailable};
use torwart_proto::convert::message_begin;
use torwart_proto::{trace, v1};
use tracing::Span;

use super::VerdictClient;
use super::balancer::{Choice, End, Target};
use super::call::{Call, Failure};
use super::metrics::FailureKind;

/// The message, as long as nobody has begun to send it.
type Unsent = Arc<Mutex<Option<(v1::CheckMessageRequest, Box<dyn MessageBody>)>>>;

/// The request's parts.
struct Parts {
    unsent: Unsent,
    body: Option<Box<dyn MessageBody>>,
    /// When the last of them was handed on.
    whole: Arc<OnceLock<Instant>>,
}

// === impl VerdictClient ===

impl VerdictClient {
    /// The caller gives it up by dropping it: only the caller knows how long the client takes.
    pub(super) async fn ask_about_message(
        &self,
        question: MessageQuestion,
        body: Box<dyn MessageBody>,
    ) -> Result<MessageAnswer, Unavailable> {
        let call = Call::CheckMessage;
        let Ok(_permit) = self.messages.try_acquire() else {
            let failure = Failure::new(FailureKind::Limit, "too many messages under way at this edge");
            return Err(self.complain(call, &failure, None));
        };
        let deadline = Instant::now() + call.budget();
        let _ = timeout_at(deadline.into(), self.backends.known()).await;
        let unsent: Unsent = Arc::new(Mutex::new(Some((message_begin(&question), body))));
        let whole = Arc::new(OnceLock::new());
        let mut tried: Vec<Target> = Vec::new();
        loop {
            let choice = Choice { effect: call.effect(), tried: &tried, prefer: None };
            let Some((ticket, mut client)) = self.backends.take_lasting(choice) else {
                let failure = Failure::new(FailureKind::NoBackend, "no address of the verdict is known");
                return Err(self.complain(call, &failure, None));
            };
            let target = ticket.target();
            tried.push(target);
            let parts = Parts { unsent: Arc::clone(&unsent), body: None, whole: Arc::clone(&whole) };
            let mut request = Request::new(parts);
            trace::inject(&Span::current(), request.metadata_mut());
            let failure = match Box::pin(client.check_message(request)).await {
                Ok(response) => match MessageAnswer::try_from(response.into_inner()) {
                    Ok(answer) => {
                        ticket.end(End::Answered);
                        if let Some(whole) = whole.get() {
                            self.metrics.took(call, whole.elapsed());
                        }
                        return Ok(answer);
                    }
                    Err(malformed) => Failure::malformed(malformed),
                },
                Err(status) => Failure::from_status(call, &status),
            };
            ticket.end(failure.end(call));
            if failure.is_of_connection() {
                self.backends.look_up_again();
            }
            let unavailable = self.complain(call, &failure, Some(target));
            let is_unsent = unsent.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            let may_go_on = is_unsent && tried.len() <= call.retries() && call.may_retry(&failure);
            if !may_go_on || !self.backends.has_untried(&tried) {
                return Err(unavailable);
            }
            self.metrics.retries.inc();
        }
    }
}

// === impl Parts ===

impl Stream for Parts {
    type Item = v1::CheckMessageRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            let unsent = this.unsent.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Poll::Ready(unsent.map(|(begin, body)| {
                this.body = Some(body);
                begin
            }));
        };
        if this.whole.get().is_some() {
            return Poll::Ready(None);
        }
        let part = std::task::ready!(body.poll_next(context));
        if matches!(part, Some(BodyPart::End { .. })) {
            let _ = this.whole.set(Instant::now());
        }
        Poll::Ready(part.map(Into::into))
    }
}
