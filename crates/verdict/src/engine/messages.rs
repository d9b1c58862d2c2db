//! Messages that are held: read as they arrive, the beginning kept within a bound, judged when they are whole.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use torwart_core::{
    Action, BodyPart, MessageAnswer, MessageBody, MessageQuestion, Reason, Revision, Unavailable,
    UnavailableKind,
};

use super::test_check;

/// What messages may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// `--message-memory`: bytes of all messages that are being checked.
    pub memory: usize,
    /// `--inspect-limit`: bytes that are kept of one. The rest is counted and thrown away.
    pub inspect: usize,
    /// `--test-message-check`: every message is held, and says itself what becomes of it.
    pub test_check: bool,
}

/// The memory that messages share.
#[derive(Debug)]
pub(super) struct Messages {
    limits: MessageLimits,
    /// In [`UNIT`]s.
    room: Arc<Semaphore>,
}

/// A whole message, or its beginning.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    pub(super) beginning: Vec<u8>,
    /// Of the whole.
    pub(super) size: u64,
    /// What `beginning` takes, in [`UNIT`]s.
    room: Option<OwnedSemaphorePermit>,
}

/// What is taken of the memory at a time. A message takes it as it grows, so that a short one takes little.
const UNIT: usize = 4096;

// === impl MessageLimits ===

impl Default for MessageLimits {
    /// 256 MiB hold 25 of the largest at once, or 25,000 of common size. What scanners look at ends at 10 MiB as a rule
    /// (rspamd 50 MB, spamc 512 KB, clamd 25 MB).
    fn default() -> Self {
        Self { memory: 256 * 1024 * 1024, inspect: 10 * 1024 * 1024, test_check: false }
    }
}

// === impl Messages ===

impl Messages {
    pub(super) fn new(limits: MessageLimits) -> Self {
        let units = (limits.memory / UNIT).min(Semaphore::MAX_PERMITS);
        Self { limits, room: Arc::new(Semaphore::new(units)) }
    }

    pub(super) fn hold_all(&self) -> bool {
        self.limits.test_check
    }

    /// Reads to the end. Nobody is kept waiting for room: whoever finds none comes again, since those that have some
    /// may be slow.
    pub(super) async fn read(&self, mut body: Box<dyn MessageBody>) -> Result<Inspected, Unavailable> {
        let mut inspected = Inspected::default();
        let mut came = 0_u64;
        loop {
            match poll_fn(|context| body.poll_next(context)).await {
                Some(BodyPart::Chunk(chunk)) => {
                    came = came.saturating_add(chunk.len() as u64);
                    self.keep(&mut inspected, &chunk)?;
                }
                Some(BodyPart::End { size }) if size < came => {
                    let why = "the message is smaller than what came of it";
                    return Err(Unavailable::new(UnavailableKind::Unanswered, why));
                }
                Some(BodyPart::End { size }) => {
                    inspected.size = size;
                    return Ok(inspected);
                }
                None => {
                    let why = "the message was given up before its end";
                    return Err(Unavailable::new(UnavailableKind::Unanswered, why));
                }
            }
        }
    }

    fn keep(&self, inspected: &mut Inspected, chunk: &[u8]) -> Result<(), Unavailable> {
        let left = self.limits.inspect.saturating_sub(inspected.beginning.len());
        let chunk = chunk.get(..left).unwrap_or(chunk);
        let length = inspected.beginning.len() + chunk.len();
        let (has, needs) = (inspected.units(), length.div_ceil(UNIT));
        if needs > has {
            // twice as much, so that little is copied; no more than is needed, if that is all there is
            let ample = (2 * has).clamp(needs, self.limits.inspect.div_ceil(UNIT).max(needs));
            let room = self.take(ample - has).or_else(|| self.take(needs - has)).ok_or_else(|| {
                let why = "messages under way have taken all of --message-memory";
                Unavailable::new(UnavailableKind::Overloaded, why)
            })?;
            match &mut inspected.room {
                Some(all) => all.merge(room),
                None => inspected.room = Some(room),
            }
            inspected.beginning.reserve_exact(inspected.units() * UNIT - inspected.beginning.len());
        }
        inspected.beginning.extend_from_slice(chunk);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn room_left(&self) -> usize {
        self.room.available_permits()
    }

    fn take(&self, units: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(units).ok()?).ok()
    }

    /// No check of a policy looks at messages yet.
    pub(super) async fn judge(
        &self,
        question: &MessageQuestion,
        message: &Inspected,
        revision: &Revision,
    ) -> MessageAnswer {
        let score: f32 = question.checks.iter().map(|check| check.score).sum();
        let answer = MessageAnswer {
            action: Action::Accept,
            reply: None,
            reason: Reason::Accepted,
            monitored: None,
            score,
            checks: Vec::new(),
            add_fields: Vec::new(),
            remove_fields: Vec::new(),
            remove_authserv_id: None,
            revision: revision.clone(),
        };
        if self.limits.test_check {
            return test_check::judge(answer, &message.beginning, message.size).await;
        }
        answer
    }
}

// === impl Inspected ===

impl Inspected {
    fn units(&self) -> usize {
        self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sizes: &[usize], end: Option<u64>) -> Box<dyn MessageBody> {
        let chunks = sizes.iter().map(|size| BodyPart::Chunk(vec![b'x'; *size]));
        let parts: Vec<_> = chunks.chain(end.map(|size| BodyPart::End { size })).collect();
        Box::new(parts.into_iter())
    }

    fn messages(memory: usize, inspect: usize) -> Messages {
        Messages::new(MessageLimits { memory, inspect, test_check: false })
    }

    #[tokio::test]
    async fn the_beginning_is_kept_and_the_rest_is_counted() {
        let messages = messages(16 * UNIT, 10_000);
        let read = messages.read(parts(&[6000, 6000, 6000], Some(18_000))).await.unwrap();
        assert_eq!((read.beginning.len(), read.size), (10_000, 18_000));
        let read = messages.read(parts(&[100], Some(5_000_000))).await.unwrap();
        assert_eq!((read.beginning.len(), read.size), (100, 5_000_000));
    }

    #[tokio::test]
    async fn without_an_end_there_is_no_message() {
        let messages = messages(16 * UNIT, 10_000);
        for body in [parts(&[100], None), parts(&[], None), parts(&[100], Some(99))] {
            assert_eq!(messages.read(body).await.unwrap_err().kind, UnavailableKind::Unanswered);
        }
        assert_eq!(messages.read(parts(&[], Some(0))).await.unwrap().size, 0);
    }

    #[tokio::test]
    async fn all_messages_share_the_memory_and_give_it_back() {
        let messages = messages(8 * UNIT, 10 * UNIT);
        let first = messages.read(parts(&[3 * UNIT, 3 * UNIT], Some(6 * UNIT as u64))).await.unwrap();
        let refused = messages.read(parts(&[UNIT, UNIT, 1], Some(1))).await.unwrap_err();
        assert_eq!(refused.kind, UnavailableKind::Overloaded);
        assert_eq!(messages.room.available_permits(), 2);
        drop(first);
        assert_eq!(messages.room.available_permits(), 8);
        let read = messages.read(parts(&[8 * UNIT], Some(8 * UNIT as u64))).await.unwrap();
        assert_eq!(read.beginning.capacity(), 8 * UNIT, "no more than what is counted");
        drop(read);
        let pieces = messages.read(parts(&[UNIT; 7], Some(7 * UNIT as u64))).await.unwrap();
        assert!(pieces.beginning.capacity() <= pieces.units() * UNIT, "{}", pieces.beginning.capacity());
    }
}
