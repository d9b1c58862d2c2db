//! The mail log: one JSON line per transaction, one per session that had none.
//!
//! A session hands over a record; a thread of its own turns records into lines and writes them in batches, so that
//! no session waits for stdout. What is under way is bounded: when it is full, a session waits up to
//! [`PATIENCE`] and then the line is dropped and counted (`torwart_mail_log_dropped_total`).

mod record;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::{IntCounter, Registry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub(crate) use self::record::{RecipientRecord, Record, SessionRecord, TransactionRecord};

/// `--log-addresses`: how much of a mail address the log shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogAddresses {
    #[default]
    Full,
    /// Only what follows the `@`.
    Domain,
    /// 32 hexadecimal digits of the SHA-256 of the address (its domain in lower case): the same address can be
    /// followed from line to line without being readable. A guessed address can be checked against it.
    Hash,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Json,
    /// `key=value`, for people.
    Text,
}

#[derive(Clone, Debug, Default)]
pub struct MailLogOptions {
    pub addresses: LogAddresses,
    pub format: LogFormat,
    /// The name of this process's pod, if it has one.
    pub pod: Option<Arc<str>>,
}

/// Where sessions leave their records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MailLog {
    sender: mpsc::UnboundedSender<(Record, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    dropped: IntCounter,
}

/// The writing thread.
#[derive(Debug)]
pub struct MailLogWriter {
    thread: JoinHandle<()>,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MailLogError {
    #[error("the mail log's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the mail log's metric could not be registered: {0}")]
    Metric(#[from] prometheus::Error),
}

struct Writer<W> {
    sink: W,
    options: MailLogOptions,
    lost: IntCounter,
    failing: bool,
}

/// What may wait for the writer: one unit per record and one per recipient in it. At some 300 bytes each this is
/// 5 MiB at most.
const ROOM: usize = 16_384;
/// How long a session waits for room before its line is dropped.
const PATIENCE: Duration = Duration::from_secs(1);
/// The writer writes when it has this many bytes, or nothing more to add.
const BATCH: usize = 64 * 1024;
/// The rest between two batches: it lets lines gather, so that a busy writer is not woken for each.
const PAUSE: Duration = Duration::from_millis(3);

// === impl MailLog ===

impl MailLog {
    /// Starts the thread that writes to `sink`. A failing sink is reported once and the lines are counted as dropped.
    pub fn start(
        sink: impl Write + Send + 'static,
        options: MailLogOptions,
        registry: &Registry,
    ) -> Result<(Self, MailLogWriter), MailLogError> {
        let dropped = IntCounter::new(
            "torwart_mail_log_dropped_total",
            "Lines of the mail log that were lost because the log was full or could not be written.",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let writer = Writer { sink, options, lost: dropped.clone(), failing: false };
        let thread =
            std::thread::Builder::new().name("mail-log".into()).spawn(move || writer.run(receiver))?;
        Ok((Self { sender, room: Arc::new(Semaphore::new(ROOM)), dropped }, MailLogWriter { thread }))
    }

    /// Hands one record over; waits only when the log is full, and then not longer than [`PATIENCE`].
    pub(crate) async fn write(&self, record: Record) {
        let weight = record.weight().min(ROOM as u32);
        let permit = match Arc::clone(&self.room).try_acquire_many_owned(weight) {
            Ok(permit) => permit,
            Err(_) => match self.wait_for_room(weight).await {
                Some(permit) => permit,
                None => return self.dropped.inc(),
            },
        };
        if self.sender.send((record, permit)).is_err() {
            self.dropped.inc();
        }
    }

    /// Hands a record over if there is room; otherwise its line is dropped and counted.
    pub(crate) fn try_write(&self, record: Record) {
        let weight = record.weight().min(ROOM as u32);
        let sent = Arc::clone(&self.room)
            .try_acquire_many_owned(weight)
            .is_ok_and(|permit| self.sender.send((record, permit)).is_ok());
        if !sent {
            self.dropped.inc();
        }
    }

    async fn wait_for_room(&self, weight: u32) -> Option<OwnedSemaphorePermit> {
        let acquire = Box::pin(Arc::clone(&self.room).acquire_many_owned(weight));
        tokio::time::timeout(PATIENCE, acquire).await.ok()?.ok()
    }
}

// === impl MailLogWriter ===

impl MailLogWriter {
    /// Waits until every line is written. It returns once the last [`MailLog`] is gone, so drop the edge first.
    pub fn finish(self) {
        if self.thread.join().is_err() {
            tracing::error!("the mail log's thread had failed");
        }
    }
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    fn run(mut self, mut receiver: mpsc::UnboundedReceiver<(Record, OwnedSemaphorePermit)>) {
        let mut batch = Vec::new();
        while let Some((record, permit)) = receiver.blocking_recv() {
            let mut lines = 1;
            record.append_line(&self.options, &mut batch);
            drop((record, permit));
            while batch.len() < BATCH {
                let Ok((record, permit)) = receiver.try_recv() else { break };
                record.append_line(&self.options, &mut batch);
                drop((record, permit));
                lines += 1;
            }
            self.flush(&batch, lines);
            batch.clear();
            batch.shrink_to(2 * BATCH);
            std::thread::sleep(PAUSE);
        }
    }

    fn flush(&mut self, batch: &[u8], lines: u64) {
        let outcome = self.sink.write_all(batch).and_then(|()| self.sink.flush());
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.lost.inc_by(lines);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the mail log cannot be written");
                }
            }
        }
    }
}
