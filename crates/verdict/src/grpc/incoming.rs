//! A message from the wire: its parts as the engine reads them, within time limits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream as _;
use tonic::{Status, Streaming};
use torwart_core::{BodyPart, MessageBody};
use torwart_proto::v1;

/// The parts after the first.
pub(super) struct Incoming {
    parts: Streaming<v1::CheckMessageRequest>,
    silence_limit: Duration,
    silence: Pin<Box<Sleep>>,
    outcome: Arc<Outcome>,
}

/// How it ended, for whoever answers the call.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    fault: Mutex<Option<Fault>>,
    whole: Notify,
}

/// Why there was no end.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The edge gave it up, or its connection broke.
    Broken(Status),
    Malformed(String),
    /// Nothing came for too long.
    Silent,
}

// === impl Incoming ===

impl Incoming {
    pub(super) fn new(
        parts: Streaming<v1::CheckMessageRequest>,
        silence_limit: Duration,
    ) -> (Self, Arc<Outcome>) {
        let outcome = Arc::new(Outcome::default());
        let silence = Box::pin(sleep(silence_limit));
        (Self { parts, silence_limit, silence, outcome: Arc::clone(&outcome) }, outcome)
    }

    fn fail(&self, fault: Fault) -> Poll<Option<BodyPart>> {
        *self.outcome.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        Poll::Ready(None)
    }
}

impl MessageBody for Incoming {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<BodyPart>> {
        let next = match Pin::new(&mut self.parts).poll_next(context) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                ready!(self.silence.as_mut().poll(context));
                return self.fail(Fault::Silent);
            }
        };
        let part = match next {
            Some(Ok(part)) => BodyPart::try_from(part),
            Some(Err(status)) => return self.fail(Fault::Broken(status)),
            None => {
                return self.fail(Fault::Malformed("part: the stream ended before the message".to_owned()));
            }
        };
        let deadline = Instant::now() + self.silence_limit;
        self.silence.as_mut().reset(deadline);
        match part {
            Ok(part) => {
                if matches!(part, BodyPart::End { .. }) {
                    self.outcome.whole.notify_one();
                }
                Poll::Ready(Some(part))
            }
            Err(malformed) => self.fail(Fault::Malformed(malformed.to_string())),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the message's end, and then for so long.
    pub(super) async fn overdue(&self, limit: Duration) {
        self.whole.notified().await;
        sleep(limit).await;
    }
}
