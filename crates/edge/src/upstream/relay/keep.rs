//! A transaction that waits for its message to be checked.
//!
//! MAIL and RCPT were accepted, DATA was not said. NOOP from time to time keeps the upstream from giving up (RFC 5321
//! section 4.5.3.2.7 gives a client 5 min between commands; some servers take less). Nothing is lost if it does, or if
//! others need the connection meanwhile: the transaction is begun again when its message is ready.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use torwart_smtp::Stage;

use super::super::metrics::FailureKind;
use super::super::pool::Gate;
use super::super::setback::Setback;
use super::{CLOSING, Relay, UpstreamRefusal};

/// A relay in the hands of a task of its own. Dropping it closes the connection.
#[derive(Debug)]
pub struct Kept {
    stop: oneshot::Sender<()>,
    task: AbortOnDropHandle<Option<Relay>>,
}

/// How DATA went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataReply {
    /// 354.
    Go,
    /// The upstream had gone away, or was going: it has nothing of this transaction, which may be begun again.
    Gone,
}

// === impl Relay ===

impl Relay {
    /// Hands it to a task. Must be called inside a tokio runtime, before DATA.
    pub fn keep(self) -> Kept {
        let (stop, stopped) = oneshot::channel();
        let task = AbortOnDropHandle::new(tokio::spawn(self.wait(stopped)));
        Kept { stop, task }
    }

    /// As [`Relay::data`], but that the upstream is gone is no refusal.
    pub async fn data_unless_gone(&mut self, deadline: Instant) -> Result<DataReply, UpstreamRefusal> {
        let it = &mut *self.0;
        it.check()?;
        match it.start_data(deadline).await {
            Err(setback) if is_gone(&setback) => {
                it.upstreams.metrics.failed(FailureKind::Closed);
                it.fit = false;
                Ok(DataReply::Gone)
            }
            result => it.noting(result).map(|()| DataReply::Go),
        }
    }

    async fn wait(mut self, mut stopped: oneshot::Receiver<()>) -> Option<Self> {
        let settings = self.0.upstreams.settings.clone();
        let gate = Arc::clone(self.0.slot.gate());
        let mut next_noop = Instant::now() + settings.noop;
        // nobody needs it here before the verdict's word: whoever is in line goes first, however fast the client is
        let patience = Instant::now() + settings.patience;
        loop {
            tokio::select! {
                biased;
                // whoever spoke unasked would be heard as the answer to DATA
                _taken = &mut stopped => return self.0.connection.is_quiet().then_some(self),
                () = self.0.connection.disturbed() => {
                    self.0.upstreams.metrics.failed(FailureKind::Closed);
                    return None;
                }
                () = wanted(&gate, patience) => {
                    if self.give_way() {
                        self.abandon();
                        return None;
                    }
                }
                () = tokio::time::sleep_until(next_noop.into()) => {
                    if !self.noop(Instant::now() + settings.reset).await {
                        self.0.upstreams.metrics.failed(FailureKind::Closed);
                        return None;
                    }
                    next_noop = Instant::now() + settings.noop;
                }
            }
        }
    }

    /// Whether the upstream is still there.
    async fn noop(&mut self, until: Instant) -> bool {
        let it = &mut *self.0;
        it.connection.client().noop();
        it.connection.flush(until).await.is_ok() && it.hear(Stage::Noop, until).await.is_ok()
    }
}

async fn wanted(gate: &Gate, from: Instant) {
    tokio::time::sleep_until(from.into()).await;
    gate.wanted().await;
}

fn is_gone(setback: &Setback) -> bool {
    let closing = |reply: &String| reply.starts_with(&CLOSING.to_string());
    setback.failure == Some(FailureKind::Closed) || setback.upstream_reply.as_ref().is_some_and(closing)
}

// === impl Kept ===

impl Kept {
    /// The relay, in step. `None`: the upstream went away, or others needed the connection. Takes as long as the answer
    /// to a NOOP at most.
    pub async fn take(self) -> Option<Relay> {
        let Self { stop, task } = self;
        // if the task is over, its result is there
        let _ = stop.send(());
        task.await.ok().flatten()
    }

    /// Gives the transaction up, as [`Relay::abandon`]; in the background.
    pub fn abandon(self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(relay) = self.take().await {
                    relay.abandon();
                }
            });
        }
    }
}
