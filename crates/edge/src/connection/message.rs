//! From DATA to the reply to the dot, or from the first BDAT to the reply to the last.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use torwart_core::{Id, Reason};
use torwart_smtp::{Event, Violation};

use super::{Connection, Flow, in_the_way, now, unless};
use crate::metrics::{MessageOutcome, SessionOutcome};
use crate::reply::Said;

/// The client's dot came, or its last chunk.
struct Dot {
    result: Result<(), Violation>,
    size: u64,
}

/// What is read at once. With the decoded copy of it, and what the relay gathers, this is all that a message takes;
/// while the client is waited for, only what the relay gathers is there.
const MESSAGE_READ: usize = 32 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    pub(super) async fn message(&mut self) -> Flow {
        let end_all = self.shared.orders.end_all.clone();
        // up to the dot the order to end everything holds; from there on the upstream is waited for
        let started = match unless(&end_all, self.start_message()).await {
            ControlFlow::Continue(started) => started,
            ControlFlow::Break(outcome) => return self.cut_off(outcome),
        };
        if let Err(said) = started {
            self.session.refuse_data(now(), &said.to_smtp(self.transaction_id()));
            self.shared.metrics.message(outcome_of(&said));
            self.end_transaction(Some(&said), said.reason).await;
            return ControlFlow::Continue(());
        }
        let dot = match unless(&end_all, self.stream_message()).await {
            ControlFlow::Continue(ControlFlow::Continue(Some(dot))) => dot,
            ControlFlow::Continue(ControlFlow::Continue(None)) => {
                self.shared.metrics.message(MessageOutcome::ClientGone);
                self.end_transaction(None, Reason::Reset).await;
                return ControlFlow::Continue(());
            }
            ControlFlow::Continue(ControlFlow::Break(outcome)) | ControlFlow::Break(outcome) => {
                return self.cut_off(outcome);
            }
        };
        self.input.shrink_to_fit();
        self.finish(dot).await
    }

    /// There will be no dot; the transaction ends with the session.
    fn cut_off(&self, outcome: SessionOutcome) -> Flow {
        let (said, _) = self.last_word(outcome);
        let counted = said.as_ref().map_or(MessageOutcome::ClientGone, outcome_of);
        self.shared.metrics.message(counted);
        ControlFlow::Break(outcome)
    }

    async fn start_message(&mut self) -> Result<(), Said> {
        let config = self.shared.config.load_full();
        match &mut self.transaction {
            Some(transaction) => transaction.start_data(&config.hostname, self.session.esmtp()).await,
            None => Err(Said::no_route()),
        }
    }

    /// Says 354 and passes the message on until its dot, or its last chunk. `None`: it was given up between two chunks.
    async fn stream_message(&mut self) -> ControlFlow<SessionOutcome, Option<Dot>> {
        self.session.start_data(now());
        self.flush().await?;
        let mut body = Vec::new();
        loop {
            let (used, event) = self.session.receive(now(), &self.input, &mut body);
            self.consume(used);
            match event {
                Some(Event::MessageSpoiled(violation)) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.spoil(violation);
                    }
                }
                Some(Event::EndOfMessage { result, size }) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.dot_came();
                    }
                    if result.is_ok() {
                        self.pass_on(&body).await;
                    }
                    return ControlFlow::Continue(Some(Dot { result, size }));
                }
                Some(Event::Close) => {
                    self.flush().await?;
                    return ControlFlow::Break(self.close_outcome());
                }
                Some(Event::Reset) => return ControlFlow::Continue(None),
                Some(Event::Flush) => self.flush().await?,
                Some(Event::Body) => self.pass_on(&body).await,
                Some(Event::Recipients(_) | Event::Data | Event::StartTls) => {
                    tracing::error!("a command inside a message");
                    return ControlFlow::Break(SessionOutcome::Violation);
                }
                None => {
                    // what was said of chunks
                    self.flush().await?;
                    self.read_message(&mut body).await?;
                }
            }
            body.clear();
        }
    }

    async fn pass_on(&mut self, body: &[u8]) {
        if let Some(transaction) = &mut self.transaction
            && !body.is_empty()
        {
            transaction.body(body).await;
        }
    }

    async fn read_message(&mut self, body: &mut Vec<u8>) -> Flow {
        self.session.wait_for_message(now());
        let deadline = tokio::time::Instant::from_std(self.session.deadline());
        let read = tokio::select! {
            biased;
            read = tokio::time::timeout_at(deadline, read_piece(&mut self.stream, &mut self.input, body)) => read,
            () = in_the_way(self.transaction.as_deref()) => {
                self.give_way();
                return ControlFlow::Continue(());
            }
        };
        match read {
            Ok(Ok(0) | Err(_)) => ControlFlow::Break(SessionOutcome::ClientGone),
            Ok(Ok(_)) => ControlFlow::Continue(()),
            Err(_) => {
                self.session.handle_timeout(now());
                self.flush().await?;
                ControlFlow::Break(SessionOutcome::Timeout)
            }
        }
    }

    /// The upstream's word decides ours. It is waited for and counted even if the client is gone meanwhile.
    async fn finish(&mut self, dot: Dot) -> Flow {
        let id = self.transaction_id();
        let (said, outcome) = match &mut self.transaction {
            Some(transaction) => transaction.finish(dot.result, dot.size).await,
            None => (Said::no_route(), MessageOutcome::Deferred),
        };
        let metrics = &self.shared.metrics;
        metrics.message(outcome);
        match outcome {
            MessageOutcome::Delivered => metrics.message_bytes.inc_by(dot.size),
            MessageOutcome::Unknown => metrics.outcome_unknown.inc(),
            MessageOutcome::Deferred | MessageOutcome::Rejected | MessageOutcome::ClientGone => {}
        }
        self.session.finish_message(now(), &said.to_smtp(id));
        let written = self.flush().await;
        self.end_transaction(Some(&said), said.reason).await;
        written
    }

    fn transaction_id(&self) -> Id {
        self.transaction.as_ref().map_or(self.peer.session, |transaction| transaction.id())
    }
}

/// Appends what is there to `input`. As long as nothing is there neither buffer holds memory; as long as more comes
/// both keep theirs.
pub(super) async fn read_piece<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> io::Result<usize> {
    poll_fn(|context| {
        input.reserve(MESSAGE_READ);
        let read = pin!(stream.read_buf(input)).poll(context);
        if read.is_pending() {
            input.shrink_to_fit();
            *body = Vec::new();
        }
        read
    })
    .await
}

fn outcome_of(said: &Said) -> MessageOutcome {
    if said.reply.code >= 500 { MessageOutcome::Rejected } else { MessageOutcome::Deferred }
}
