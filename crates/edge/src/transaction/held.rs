//! A message that is held: spooled and shown to the verdict while it arrives, brought upstream when the verdict has
//! answered.
//!
//! ```text
//!   start_data --> room in the spool?  the upstream is kept, the verdict is asked       354 is our own
//!   body       --> spool, verdict
//!   the dot    --> the verdict's word --> refused: said, the upstream hears RSET
//!                                     --> DATA, our fields, the message without what goes, the dot
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use torwart_core::{
    Action, BodyPart, CheckResult, Id, MessageAnswer, MessageBody, MessageQuestion, Unavailable, Verdicts,
};
use torwart_smtp::{HeaderEditor, Removals};
use tracing::Instrument;

use super::bound::{Bound, Loss, RelayState};
use super::message::{DATA, DOT};
use super::{RECIPIENTS, Transaction};
use crate::edge::Shared;
use crate::reply::Said;
use crate::spool::{Reading, Spool, SpoolFault, Spooled};
use crate::trace;
use crate::upstream::{DataReply, LAST_REPLY, Relay};

/// What a transaction needs of the process to hold its message.
#[derive(Clone)]
pub(super) struct Means {
    verdicts: Arc<dyn Verdicts>,
    spool: Arc<Spool>,
    end_all: CancellationToken,
}

/// The message that is held. Dropping it gives up the question to the verdict, and the room.
#[derive(Debug)]
pub(super) struct Held {
    spool: Arc<Spool>,
    spooled: Spooled,
    /// `None` once it does not listen any more.
    feed: Option<mpsc::Sender<BodyPart>>,
    /// For the feed's next piece.
    piece: Vec<u8>,
    answer: AbortOnDropHandle<Result<MessageAnswer, Unavailable>>,
    end_all: CancellationToken,
    received: String,
    removals: Removals,
}

/// The feed's other end.
struct Body(mpsc::Receiver<BodyPart>);

/// From the client's dot to the verdict's word. What is left of the 8 min until our reply is the upstream's.
const VERDICT: Duration = Duration::from_secs(180);
/// For the verdict to take one piece of the message. Its client is held up so long, and has 10 min for a block
/// (RFC 5321 section 4.5.3.2.5 has 3).
const FEED: Duration = Duration::from_secs(60);
/// For the word of a verdict that has stopped to listen: it said so, or it is gone.
const LAST_WORD: Duration = Duration::from_secs(5);
/// What is handed to the verdict at once, and how much of it may wait there.
const PIECE: usize = 32 * 1024;
const PIECES: usize = 2;

// === impl Transaction ===

impl Transaction {
    /// After `Ok` the client hears 354, and the upstream nothing yet.
    pub(super) fn start_holding(&mut self, received: String, removals: Removals) -> Result<(), Said> {
        let Some(bound) = &mut self.bound else { return Err(Said::no_route()) };
        let Means { verdicts, spool, end_all } = bound.means.clone();
        let spooled = match spool.begin(self.peer.address.ip(), self.envelope.declared_size) {
            Ok(spooled) => spooled,
            Err(fault) => {
                spool.complain(&fault);
                let said = Said::spool_full();
                bound.lose(said.clone());
                return Err(said);
            }
        };
        if let RelayState::Open(relay) = std::mem::replace(&mut bound.relay, RelayState::Yielded) {
            bound.relay = RelayState::Kept(relay.keep());
        }
        let question = MessageQuestion {
            peer: Arc::clone(&self.peer),
            transaction: self.id,
            envelope: Arc::clone(&self.envelope),
            recipients: bound.accepted.clone(),
            checks: self.checks.clone(),
        };
        let (feed, body) = mpsc::channel(PIECES);
        let span = trace::question(&self.message, "message");
        let asked = async move { verdicts.check_message(question, Box::new(Body(body))).await };
        self.held = Some(Box::new(Held {
            spooled,
            spool,
            feed: Some(feed),
            piece: Vec::new(),
            answer: AbortOnDropHandle::new(tokio::spawn(asked.instrument(span))),
            end_all,
            received,
            removals,
        }));
        Ok(())
    }

    /// Takes in bytes of the message.
    pub(super) async fn hold(&mut self, decoded: &[u8]) {
        let Some(held) = &mut self.held else { return };
        if let Err(said) = held.take_in(decoded).await {
            self.drop_held(said);
        }
    }

    /// The message goes nowhere.
    pub(super) fn drop_held(&mut self, said: Said) {
        self.held = None;
        if let Some(bound) = &mut self.bound {
            bound.lose(said);
        }
    }

    /// Brings the message to where a streamed one is at its dot: the relay is open and has all of it; or it is lost, with
    /// what the client hears. The order to end everything is heard up to here: nothing has a dot yet.
    pub(super) async fn release(&mut self, mut held: Box<Held>, size: u64) {
        let end_all = held.end_all.clone();
        let loss = match end_all.run_until_cancelled(self.bring_held(&mut held, size)).await {
            Some(Ok(())) => return,
            Some(Err(loss)) => loss,
            None => Said::stopping().into(),
        };
        trace::refused(&self.message, &loss.said);
        if let Some(bound) = &mut self.bound {
            bound.lose(loss);
        }
    }

    async fn bring_held(&mut self, held: &mut Held, size: u64) -> Result<(), Loss> {
        let deadline = self.dot_deadline.unwrap_or_else(|| Instant::now() + DOT);
        let answer = held.word(size, deadline).await?;
        let (added, removals) = self.heed(answer, held)?;
        let fields = format!("{}{}", held.received, fields_on_top(self.id, &added));
        let Some(bound) = &mut self.bound else { return Err(Said::no_route().into()) };
        bound.take_back().await;
        let mut again = true;
        loop {
            let until = deadline.min(Instant::now() + RECIPIENTS);
            bound.begin_again(&self.mail, until, &mut self.upstream).await;
            let relay = open(&mut bound.relay)?;
            match relay.data_unless_gone(deadline.min(Instant::now() + DATA)).await {
                Ok(DataReply::Go) => break,
                Ok(DataReply::Gone) if again => {
                    again = false;
                    bound.yield_upstream();
                }
                Ok(DataReply::Gone) => return Err(Said::upstream_left().into()),
                Err(refusal) => return Err(self.upstream.refused(refusal)),
            }
        }
        let relay = open(&mut bound.relay)?;
        let sent = async {
            relay.body(fields.as_bytes(), Some(deadline)).await?;
            let mut editor = HeaderEditor::new(removals);
            let (mut reading, mut block, mut kept) = (Reading::default(), Vec::new(), Vec::new());
            loop {
                if let Err(fault) = held.spooled.read(&mut reading, &mut block).await {
                    return Ok(Some(fault));
                }
                let rest = editor.edit(&block, &mut kept);
                if block.is_empty() {
                    editor.finish(&mut kept);
                }
                relay.body(&kept, Some(deadline)).await?;
                relay.body(rest, Some(deadline)).await?;
                if block.is_empty() {
                    return Ok(None);
                }
                kept.clear();
            }
        };
        // A disk may be slow, too.
        let by = deadline.checked_sub(LAST_REPLY).unwrap_or(deadline);
        let Ok(sent) = timeout_at(by.into(), sent).await else { return Err(Said::too_slow().into()) };
        match sent {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => {
                held.spool.complain(&fault);
                Err(Said::spool_full().into())
            }
            Err(refusal) => Err(self.upstream.refused(refusal)),
        }
    }

    /// Notes what the verdict said. `Err` if the message is not to go upstream.
    fn heed(&mut self, answer: MessageAnswer, held: &Held) -> Result<(Vec<Arc<str>>, Removals), Loss> {
        let MessageAnswer {
            action,
            reply,
            reason,
            monitored,
            score,
            checks,
            add_fields,
            remove_fields,
            remove_authserv_id,
            revision,
        } = answer;
        self.note_checks(checks);
        self.score = Some(score);
        self.revision = Some(revision);
        self.enforced &= monitored.is_none();
        if let Some(bound) = &mut self.bound {
            bound.score = score;
        }
        match (action, reply) {
            (Action::Accept, _) => {}
            (Action::Defer | Action::Reject, Some(reply)) => {
                return Err(Said { action, reply, reason }.into());
            }
            (Action::Defer | Action::Reject, None) => return Err(Said::no_verdict().into()),
        }
        let removals = remove_fields.iter().fold(held.removals.clone(), |all, name| all.field(name));
        Ok((add_fields, remove_authserv_id.iter().fold(removals, |all, id| all.authserv_id(id))))
    }

    /// A check of the same name has been superseded.
    pub(super) fn note_checks(&mut self, checks: Vec<CheckResult>) {
        self.checks.retain(|known| checks.iter().all(|check| check.name != known.name));
        self.checks.extend(checks);
    }
}

/// The clock that timers run by.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn open(relay: &mut RelayState) -> Result<&mut Relay, Loss> {
    match relay {
        RelayState::Open(relay) => Ok(relay),
        RelayState::Lost(loss) => Err(loss.clone()),
        RelayState::Kept(_) | RelayState::Yielded | RelayState::Finishing | RelayState::Delivered => {
            Err(Said::no_route().into())
        }
    }
}

/// The verdict's fields with our X-Torwart-Id before the first of its X-Torwart ones, or else last.
pub(super) fn fields_on_top(id: Id, added: &[Arc<str>]) -> String {
    let begins = |field: &str, start: &str| {
        field.get(..start.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
    };
    let place = added.iter().position(|field| begins(field, "X-Torwart-")).unwrap_or(added.len());
    let (before, behind) = added.split_at_checked(place).unwrap_or((added, &[]));
    let mut text = String::new();
    for field in before {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text.push_str(&format!("X-Torwart-Id: {id}\r\n"));
    for field in behind.iter().filter(|field| !begins(field, "X-Torwart-Id:")) {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text
}

// === impl Means ===

impl Means {
    pub(super) fn of(shared: &Shared) -> Self {
        Self {
            verdicts: Arc::clone(&shared.verdicts),
            spool: Arc::clone(&shared.spool),
            end_all: shared.orders.end_all.clone(),
        }
    }
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

// === impl Held ===

impl Held {
    async fn take_in(&mut self, decoded: &[u8]) -> Result<(), Said> {
        if let Err(fault) = self.spooled.write(decoded).await {
            return Err(self.no_room(&fault));
        }
        for bytes in decoded.chunks(PIECE) {
            self.piece.extend_from_slice(bytes);
            if self.piece.len() >= PIECE {
                let piece = std::mem::take(&mut self.piece);
                self.tell(BodyPart::Chunk(piece)).await?;
            }
        }
        Ok(())
    }

    fn no_room(&self, fault: &SpoolFault) -> Said {
        self.spool.complain(fault);
        Said::spool_full()
    }

    async fn tell(&mut self, part: BodyPart) -> Result<(), Said> {
        let Some(feed) = &self.feed else { return Err(Said::no_verdict()) };
        match timeout(FEED, feed.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.last_word().await),
            Err(_) => {
                tracing::warn!("the verdict does not take a message that it asked for");
                Err(Said::no_verdict())
            }
        }
    }

    /// What a verdict said that has not heard the message to its end. It can't have accepted it.
    async fn last_word(&mut self) -> Said {
        self.feed = None;
        match timeout(LAST_WORD, &mut self.answer).await {
            Ok(Ok(Ok(MessageAnswer { action, reply: Some(reply), reason, .. })))
                if action != Action::Accept =>
            {
                Said { action, reply, reason }
            }
            _ => Said::no_verdict(),
        }
    }

    /// The message is whole: waits for the verdict.
    async fn word(&mut self, size: u64, deadline: Instant) -> Result<MessageAnswer, Said> {
        if let Err(fault) = self.spooled.finish().await {
            return Err(self.no_room(&fault));
        }
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            self.tell(BodyPart::Chunk(piece)).await?;
        }
        self.tell(BodyPart::End { size }).await?;
        self.feed = None;
        match timeout_at(deadline.min(clock() + VERDICT).into(), &mut self.answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => {
                // the verdict, or its client, has said why, and not for each mail
                tracing::debug!(%error, "a message could not be judged");
                Err(Said::no_verdict())
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the question about a message failed");
                Err(Said::no_verdict())
            }
            Err(_) => {
                tracing::warn!("a message was not judged in time");
                Err(Said::no_verdict())
            }
        }
    }
}

impl MessageBody for Body {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<BodyPart>> {
        self.0.poll_recv(context)
    }
}

// === impl Bound ===

impl Bound {
    /// Takes the upstream back from whoever kept it.
    async fn take_back(&mut self) {
        if !matches!(self.relay, RelayState::Kept(_)) {
            return;
        }
        if let RelayState::Kept(kept) = std::mem::replace(&mut self.relay, RelayState::Yielded)
            && let Some(relay) = kept.take().await
        {
            self.relay = RelayState::Open(relay);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tokio::time::Instant as Clock;

    use super::*;
    use crate::spool::SpoolSettings;

    /// Held for a verdict that never says anything, and listens or does not.
    fn held(listens: bool) -> Held {
        let (feed, mut body) = mpsc::channel(PIECES);
        let answer = async move {
            while listens && body.recv().await.is_some() {}
            std::future::pending().await
        };
        let spool = Spool::new(SpoolSettings::default(), &Registry::new()).unwrap();
        Held {
            spooled: spool.begin([192, 0, 2, 1].into(), None).unwrap(),
            spool,
            feed: Some(feed),
            piece: Vec::new(),
            answer: AbortOnDropHandle::new(tokio::spawn(answer)),
            end_all: CancellationToken::new(),
            received: String::new(),
            removals: Removals::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_that_says_nothing_is_waited_for_so_long_and_never_beyond_the_dot_s_limit() {
        for (left, waited) in [(DOT, VERDICT), (Duration::from_secs(20), Duration::from_secs(20))] {
            let (mut held, began) = (held(true), Clock::now());
            held.take_in(b"body\r\n").await.unwrap();
            let said = held.word(6, (began + left).into_std()).await.unwrap_err();
            assert_eq!(said, Said::no_verdict());
            assert_eq!(began.elapsed(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_that_does_not_listen_holds_its_client_up_so_long_and_no_longer() {
        let (mut held, began) = (held(false), Clock::now());
        held.take_in(&[b'x'; PIECES * PIECE]).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(held.take_in(&[b'x'; PIECE]).await.unwrap_err(), Said::no_verdict());
        assert_eq!(began.elapsed(), FEED);
    }

    #[test]
    fn our_id_stands_behind_authentication_results_and_before_score_and_status() {
        let id = Id::from_u128(1);
        let ours = format!("X-Torwart-Id: {id}\r\n");
        let on_top = |added: &[&str]| {
            let added: Vec<Arc<str>> = added.iter().map(|field| Arc::from(*field)).collect();
            fields_on_top(id, &added)
        };
        assert_eq!(on_top(&[]), ours);
        assert_eq!(
            on_top(&["Authentication-Results: x;\r\n none"]),
            format!("Authentication-Results: x;\r\n none\r\n{ours}")
        );
        assert_eq!(
            on_top(&["A: b", "x-torwart-id: forged", "X-Torwart-Score: 1", "X-Torwart-Status: No"]),
            format!("A: b\r\n{ours}X-Torwart-Score: 1\r\nX-Torwart-Status: No\r\n")
        );
    }
}
