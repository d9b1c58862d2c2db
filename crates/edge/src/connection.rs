//! One client's connection: the loop that moves bytes between socket and [`Session`] and does what its events ask.
//!
//! A waiting session holds its state and nothing else: input and output are allocated while bytes are there, a
//! transaction is boxed, and so is every future that is only there for a while (verdict, relay, handshake). A test
//! holds the future of an idle session to 2 KiB.

mod message;
mod open;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use torwart_core::{Envelope, Id, Mailbox, Peer, Reason, TlsFacts};
use torwart_proto::trace::{child, trace_id};
use torwart_smtp::{CloseReason, Event, ForwardPath, ReversePath, Session, Violation};
use tracing::Span;

use crate::edge::Shared;
use crate::farewell::{LINGER, linger};
use crate::log::{Record, SessionRecord};
use crate::metrics::SessionOutcome;
use crate::permits::{NetworkPermit, TotalPermit};
use crate::reply::{self, Said};
use crate::stream::{Stream, tls_facts};
use crate::transaction::{Beginning, Ended, Transaction};
use crate::{tls, trace};

/// Everything that a session is made of.
struct Connection<S> {
    shared: Arc<Shared>,
    stream: Stream<S>,
    session: Session,
    input: Vec<u8>,
    transaction: Option<Box<Transaction>>,
    peer: Arc<Peer>,
    started: Instant,
    /// None if the session is not traced.
    span: Span,
    had_transaction: bool,
    received: bool,
    /// The order to end between transactions was heard.
    ending: bool,
    _network: NetworkPermit,
}

/// What ended the wait for the client.
enum Wake {
    Input,
    Gone,
    Deadline,
    EndIdle,
    EndAll,
    /// The client is silent, and others need the upstream's connection.
    InTheWay,
}

/// Go on with the session, or end it.
type Flow = ControlFlow<SessionOutcome>;

/// How long the client may take to accept our replies.
const WRITE: Duration = Duration::from_secs(60);

/// Serves one client to its end. `permits` are its share of the limits; the network's is missing where the client's
/// address comes in a PROXY header first.
pub(crate) async fn serve<S>(
    shared: Arc<Shared>,
    stream: S,
    address: SocketAddr,
    permits: (TotalPermit, Option<NetworkPermit>),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (total, network) = permits;
    let _counted = (total, Counted::new(&shared));
    if let Some(mut connection) = Box::pin(open::open(shared, stream, address, network)).await {
        let outcome = connection.run().await;
        Box::pin(connection.end(outcome)).await;
    }
}

/// Holds `torwart_smtp_connections` up.
struct Counted(prometheus::IntGauge);

// === impl Connection ===

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    async fn run(&mut self) -> SessionOutcome {
        loop {
            if let ControlFlow::Break(outcome) = self.advance().await {
                return outcome;
            }
            match self.wait().await {
                Wake::Input => self.received = true,
                Wake::Gone if !self.received => return SessionOutcome::Probe,
                Wake::Gone => return SessionOutcome::ClientGone,
                Wake::Deadline => {
                    self.session.handle_timeout(now());
                }
                Wake::EndIdle => {
                    self.ending = true;
                    self.session.shut_down();
                }
                Wake::EndAll => return SessionOutcome::Shutdown,
                Wake::InTheWay => self.give_way(),
            }
        }
    }

    /// Acts on everything that the input holds and writes what there is to say.
    async fn advance(&mut self) -> Flow {
        loop {
            let (used, event) = self.session.receive(now(), &self.input, &mut Vec::new());
            self.consume(used);
            match event {
                None => return self.flush().await,
                Some(Event::Flush) => self.flush().await?,
                Some(Event::Recipients(paths)) => {
                    let orders = self.shared.orders.clone();
                    unless(&orders.end_all, Box::pin(self.recipients(paths))).await?;
                }
                Some(Event::Data) => {
                    Box::pin(self.message()).await?;
                    self.heed_drain();
                }
                Some(Event::StartTls) => Box::pin(self.start_tls()).await?,
                Some(Event::Reset) => {
                    self.end_transaction(None, Reason::Reset).await;
                    self.heed_drain();
                }
                Some(Event::Close) => {
                    self.flush().await?;
                    return ControlFlow::Break(self.close_outcome());
                }
                Some(Event::Body | Event::MessageSpoiled(_) | Event::EndOfMessage { .. }) => {
                    tracing::error!("a message outside of DATA");
                    return ControlFlow::Break(SessionOutcome::Violation);
                }
            }
        }
    }

    /// The order to end between transactions is not heard inside one, and the client may have sent the next already.
    fn heed_drain(&mut self) {
        if !self.ending && self.shared.orders.end_idle.is_cancelled() {
            self.ending = true;
            self.session.shut_down();
        }
    }

    fn consume(&mut self, used: usize) {
        if used >= self.input.len() {
            self.input.clear();
        } else {
            self.input.drain(..used);
        }
    }

    /// Waits for the client, for the session's deadline or for an order.
    async fn wait(&mut self) -> Wake {
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        let orders = &self.shared.orders;
        let order = if self.ending { &orders.end_all } else { &orders.end_idle };
        let deadline = tokio::time::Instant::from_std(self.session.deadline());
        tokio::select! {
            biased;
            read = self.stream.read_command(&mut self.input) => match read {
                Ok(0) | Err(_) => Wake::Gone,
                Ok(_) => Wake::Input,
            },
            () = order.cancelled() => if self.ending { Wake::EndAll } else { Wake::EndIdle },
            () = tokio::time::sleep_until(deadline) => Wake::Deadline,
            () = in_the_way(self.transaction.as_deref()) => Wake::InTheWay,
        }
    }

    fn give_way(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.give_way();
        }
    }

    /// Writes the session's output. A client that does not take it in time is gone.
    async fn flush(&mut self) -> Flow {
        for (verb, class, count) in self.session.take_commands().iter() {
            self.shared.metrics.commands(verb, class, count);
        }
        let output = std::mem::take(self.session.output());
        if output.is_empty() {
            return ControlFlow::Continue(());
        }
        match tokio::time::timeout(WRITE, write(&mut self.stream, &output)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break(SessionOutcome::ClientGone),
            Err(_) => ControlFlow::Break(SessionOutcome::Timeout),
        }
    }

    async fn recipients(&mut self, paths: Vec<ForwardPath>) {
        if self.transaction.is_none() {
            self.begin_transaction();
        }
        let to = paths.iter().map(mailbox).collect();
        let Some(transaction) = &mut self.transaction else {
            self.session.answer_recipients(now(), Vec::new());
            return;
        };
        let before = transaction.named();
        let replies = transaction.recipients(&self.shared, to).await;
        let answered = self.session.answer_recipients(now(), replies);
        transaction.forget_unanswered(before + answered);
    }

    fn begin_transaction(&mut self) {
        let Some(envelope) = self.session.envelope() else { return };
        let envelope = Arc::new(Envelope {
            sender: match &envelope.sender {
                ReversePath::Null => None,
                ReversePath::Mailbox(path) => Some(Mailbox::new(path.local(), path.domain())),
            },
            declared_size: envelope.declared_size,
            eight_bit: envelope.eight_bit,
            smtputf8: envelope.smtputf8,
        });
        if self.peer.helo.as_deref() != self.session.helo() {
            self.peer = Arc::new(Peer { helo: self.session.helo().map(Arc::from), ..(*self.peer).clone() });
        }
        self.had_transaction = true;
        let id = self.shared.new_id();
        self.session.label_transaction(&reply::label(id));
        self.transaction = Some(Box::new(Transaction::new(Beginning {
            id,
            started: now(),
            peer: Arc::clone(&self.peer),
            envelope,
            hostname: Arc::clone(&self.shared.config.load().hostname),
            esmtp: self.session.esmtp(),
            span: child(&self.span, trace::TRANSACTION),
        })));
    }

    /// Logs the transaction, if there is one, and reports how it went upstream. `said` was its last word.
    async fn end_transaction(&mut self, said: Option<&Said>, reason: Reason) {
        let Some(transaction) = self.transaction.take() else { return };
        let Ended { record, delivery, span } = transaction.end(said, reason);
        let shared = &self.shared;
        if let Some(delivery) = delivery {
            let report = child(&span, trace::REPORT);
            shared.reports.send(&shared.verdicts, &shared.tasks, delivery, report);
        }
        drop(span);
        shared.log.write(Record::Transaction(Box::new(record))).await;
    }

    async fn start_tls(&mut self) -> Flow {
        self.flush().await?;
        // bytes that came with STARTTLS were not encrypted and must not be taken for it (CVE-2011-0411)
        if let (_, Some(Event::Close)) = self.session.receive(now(), &self.input, &mut Vec::new()) {
            return ControlFlow::Break(self.close_outcome());
        }
        let acceptor = self.shared.tls.clone();
        let (Some(acceptor), Stream::Plain(stream)) =
            (acceptor, std::mem::replace(&mut self.stream, Stream::Gone))
        else {
            return ControlFlow::Break(SessionOutcome::TlsFailed);
        };
        match tokio::time::timeout(tls::HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let tls: Option<TlsFacts> = Some(tls_facts(&stream));
                self.peer = Arc::new(Peer { tls, helo: None, ..(*self.peer).clone() });
                self.stream = Stream::Tls(Box::new(stream));
                self.session.tls_established(now());
                ControlFlow::Continue(())
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, client = %self.peer.address, "TLS handshake failed");
                ControlFlow::Break(SessionOutcome::TlsFailed)
            }
            Err(_) => ControlFlow::Break(SessionOutcome::TlsFailed),
        }
    }

    fn close_outcome(&self) -> SessionOutcome {
        match self.session.close_reason() {
            Some(CloseReason::Quit) => SessionOutcome::Quit,
            Some(CloseReason::Refused) => SessionOutcome::Refused,
            Some(CloseReason::ShutDown) => SessionOutcome::Shutdown,
            Some(CloseReason::Violation(Violation::Idle | Violation::SessionTooOld)) => {
                SessionOutcome::Timeout
            }
            Some(CloseReason::Violation(Violation::Injection)) => SessionOutcome::TlsInjection,
            Some(CloseReason::Violation(_)) | None => SessionOutcome::Violation,
        }
    }

    /// Says goodbye, logs and counts.
    async fn end(mut self, outcome: SessionOutcome) {
        if outcome == SessionOutcome::Shutdown && self.session.close_reason().is_none() {
            self.say_shutdown().await;
        }
        let (said, reason) = self.last_word(outcome);
        self.end_transaction(said.as_ref(), reason).await;
        self.shared.metrics.session(outcome);
        trace::end_session(&self.span, self.peer.session, self.peer.tls.as_ref(), outcome);
        if !self.had_transaction {
            self.shared.log.write(self.record(outcome)).await;
        }
        let gone = matches!(outcome, SessionOutcome::ClientGone | SessionOutcome::Probe);
        let plain_quit = outcome == SessionOutcome::Quit && self.stream.is_plain() && self.input.is_empty();
        if !gone && !plain_quit {
            // however it goes, the socket is closed after this
            let _ = tokio::time::timeout(LINGER, linger(&mut self.stream)).await;
        }
    }

    /// The 421 that a transaction heard if the session ended like this inside it, and why it ended.
    fn last_word(&self, outcome: SessionOutcome) -> (Option<Said>, Reason) {
        let said = match (outcome, self.session.close_reason()) {
            (SessionOutcome::ClientGone | SessionOutcome::Probe, _) => None,
            (SessionOutcome::Shutdown, _) => Some(Said::shutdown()),
            (_, Some(CloseReason::Violation(violation))) => Some(Said::violation(violation)),
            (SessionOutcome::Timeout, _) => return (None, Reason::Timeout),
            _ => None,
        };
        let reason = said.as_ref().map_or(Reason::ClientGone, |said| said.reason);
        (said, reason)
    }

    /// The order to end everything came inside a transaction (RFC 5321 section 3.8: 421 at any time).
    async fn say_shutdown(&mut self) {
        let id = self.transaction.as_ref().map_or(self.peer.session, |transaction| transaction.id());
        Said::shutdown().to_smtp(id).write_to(self.session.output());
        // the session is over whether it is heard or not
        let _ = self.flush().await;
    }

    fn record(&self, outcome: SessionOutcome) -> Record {
        let early_talker = self.peer.early_talker;
        session_record(self.peer.session, self.peer.address, early_talker, self.started, outcome, &self.span)
    }
}

fn session_record(
    id: Id,
    client: SocketAddr,
    early_talker: bool,
    started: Instant,
    outcome: SessionOutcome,
    span: &Span,
) -> Record {
    let duration = now().saturating_duration_since(started);
    Record::Session(SessionRecord {
        id,
        time: SystemTime::now(),
        client,
        early_talker,
        outcome,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        trace_id: trace_id(span).map(Into::into),
    })
}

fn mailbox(path: &ForwardPath) -> Mailbox {
    match path {
        ForwardPath::Mailbox(path) => Mailbox::new(path.local(), path.domain()),
        ForwardPath::Postmaster(name) => Mailbox::new(&**name, ""),
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, output: &[u8]) -> io::Result<()> {
    stream.write_all(output).await?;
    stream.flush().await
}

/// Waits until the transaction holds up others; without one, for ever.
async fn in_the_way(transaction: Option<&Transaction>) {
    match transaction {
        Some(transaction) => transaction.holds_up_others().await,
        None => std::future::pending().await,
    }
}

/// Does it unless the order comes first.
async fn unless<T>(
    order: &CancellationToken,
    work: impl Future<Output = T>,
) -> ControlFlow<SessionOutcome, T> {
    match order.run_until_cancelled(work).await {
        Some(done) => ControlFlow::Continue(done),
        None => ControlFlow::Break(SessionOutcome::Shutdown),
    }
}

/// The clock that timers run by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

// === impl Counted ===

impl Counted {
    fn new(shared: &Shared) -> Self {
        shared.metrics.connections.inc();
        Self(shared.metrics.connections.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
