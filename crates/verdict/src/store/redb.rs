//! State in one file, for one machine: an answer is given only after its records are on the disk.
//!
//! ```text
//!    calls --bounded queue--> writer thread: one transaction for all that has come, then one fsync
//!                                            then every caller is answered
//! ```
//!
//! Expiry index: every record has at least one entry there, at or before the minute in which it expires. A
//! prolonged record is filed anew when its old minute comes, so that a pass costs one write, not three.

mod file;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::oneshot;
use torwart_core::BoxFuture;
use torwart_policy::greylist::Judged;

use self::file::{Tables, open_file};
use super::steps::{self};
use super::{Call, Revocation, Stats, Store, StoreError};
use crate::clock::Clock;

/// See the module's documentation.
pub struct RedbStore {
    path: PathBuf,
    /// None while closing.
    queue: Option<SyncSender<Operation>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
pub struct RedbOptions {
    /// Triplets and known senders in the file; beyond it those that expire first go first. 20 million take
    /// about 2.5 GB of disk.
    pub max_records: u64,
    /// Pages kept in memory, in bytes.
    pub cache_size: usize,
}

/// What waits for the writer beyond one batch. A full queue is an error, not a wait: greylisting has a time limit
/// far below what such a queue would take on a disk that is that slow.
const QUEUE: usize = 4096;
/// One fsync covers at most so many operations,
const BATCH: usize = 1000;
/// or what comes in so long.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// Expired records that go with each operation, and at each idle tick.
const SWEEP_PER_OPERATION: usize = 3;
const SWEEP_WHEN_IDLE: usize = 1000;
const IDLE: Duration = Duration::from_secs(30);
/// After a failed batch the file is closed and opened again, at most this often.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

enum Operation {
    Check(Call, Answer<Vec<Judged>>),
    Deliver(Call, bool, Answer<()>),
    Revoke(Revocation, Answer<()>),
    Secret([u8; 32], Answer<[u8; 32]>),
    Sweep(Answer<usize>),
    Stats(Answer<Stats>),
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer that waits for the commit.
type Reply = Box<dyn FnOnce(Option<&StoreError>)>;

struct Writer {
    path: PathBuf,
    options: RedbOptions,
    clock: Arc<dyn Clock>,
    /// None after a failure.
    database: Option<Database>,
    opened: Instant,
}

// === impl RedbStore ===

impl RedbStore {
    /// Opens or creates the file, and starts its writer thread. Blocks for as long as the repair of a file takes
    /// whose last process was killed.
    ///
    /// Errs for a file that is not a store, is of a newer format, is held by another process, or cannot be used.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, options: RedbOptions) -> Result<Self, StoreError> {
        let database = open_file(path, options.cache_size)?;
        let (queue, operations) = sync_channel(QUEUE);
        let writer = Writer {
            path: path.to_owned(),
            options,
            clock,
            database: Some(database),
            opened: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("greylist-writer".into())
            .spawn(move || writer.run(&operations))
            .map_err(|error| StoreError::Unusable(format!("no thread for the store: {error}").into()))?;
        Ok(Self { path: path.to_owned(), queue: Some(queue), writer: Some(thread) })
    }

    fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(Answer<T>) -> Operation,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let (answer, result) = oneshot::channel();
        let sent = match &self.queue {
            None => Err(StoreError::Closed),
            Some(queue) => queue.try_send(operation(answer)).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Disconnected(_) => StoreError::Closed,
            }),
        };
        Box::pin(async move {
            sent?;
            result.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

impl Store for RedbStore {
    fn kind(&self) -> &'static str {
        "redb"
    }

    fn is_persistent(&self) -> bool {
        true
    }

    fn check(&self, call: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        self.ask(|answer| Operation::Check(call, answer))
    }

    fn deliver(&self, call: Call, trust: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|answer| Operation::Deliver(call, trust, answer))
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|answer| Operation::Revoke(revocation, answer))
    }

    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        self.ask(|answer| Operation::Secret(fresh, answer))
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.ask(Operation::Sweep)
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        self.ask(Operation::Stats)
    }
}

/// Waits for the batch in hand, so that the file is free afterwards.
impl Drop for RedbStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the writer of the greylist store has failed");
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { max_records: 20_000_000, cache_size: 32 << 20 }
    }
}

// === impl Writer ===

impl Writer {
    fn run(mut self, operations: &Receiver<Operation>) {
        loop {
            match operations.recv_timeout(IDLE) {
                Ok(first) => {
                    let batch = gather(first, operations);
                    self.write(batch);
                }
                Err(RecvTimeoutError::Timeout) => self.write(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Carries out a batch in one transaction, and answers when it is on the disk. If anything fails, nothing of
    /// the batch has happened.
    fn write(&mut self, batch: Vec<Operation>) {
        let database = match self.database() {
            Ok(database) => database,
            Err(error) => return batch.into_iter().for_each(|operation| operation.fail(&error)),
        };
        let mut replies = Vec::with_capacity(batch.len());
        let result = transact(&database, batch, &mut replies, &*self.clock, self.options.max_records);
        match &result {
            Ok(()) => self.database = Some(database),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the greylist store has failed")
            }
        }
        for reply in replies {
            reply(result.as_ref().err());
        }
    }

    /// Takes the file, opened again after a failure.
    fn database(&mut self) -> Result<Database, StoreError> {
        if let Some(database) = self.database.take() {
            return Ok(database);
        }
        if self.opened.elapsed() < REOPEN_INTERVAL {
            return Err(StoreError::Io("waiting to open the file again".into()));
        }
        self.opened = Instant::now();
        open_file(&self.path, self.options.cache_size)
    }
}

fn gather(first: Operation, operations: &Receiver<Operation>) -> Vec<Operation> {
    let started = Instant::now();
    let mut batch = vec![first];
    while batch.len() < BATCH && started.elapsed() < BATCH_TIME {
        let Ok(operation) = operations.try_recv() else { break };
        batch.push(operation);
    }
    batch
}

fn transact(
    database: &Database,
    batch: Vec<Operation>,
    replies: &mut Vec<Reply>,
    clock: &dyn Clock,
    max_records: u64,
) -> Result<(), StoreError> {
    let transaction = match begin(database) {
        Ok(transaction) => transaction,
        Err(error) => {
            replies.extend(batch.into_iter().map(Operation::into_failure));
            return Err(error);
        }
    };
    let changed = {
        let mut operations = batch.into_iter();
        let outcome = (|| {
            let mut tables = Tables::open(&transaction, clock.record_time(), max_records)?;
            let sweep =
                if operations.len() == 0 { SWEEP_WHEN_IDLE } else { operations.len() * SWEEP_PER_OPERATION };
            tables.sweep(sweep)?;
            for operation in operations.by_ref() {
                operation.carry_out(&mut tables, replies)?;
            }
            Ok::<_, StoreError>(tables.changed)
        })();
        replies.extend(operations.map(Operation::into_failure));
        outcome?
    };
    if !changed {
        return transaction.abort().map_err(|error| StoreError::Io(error.to_string().into()));
    }
    transaction.commit().map_err(|error| StoreError::Io(error.to_string().into()))
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(|error| StoreError::Io(error.to_string().into()))?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|error| StoreError::Io(error.to_string().into()))?;
    Ok(transaction)
}

// === impl Operation ===

impl Operation {
    /// Leaves a reply for after the commit; one that failed gets its reply all the same.
    fn carry_out(self, tables: &mut Tables<'_>, replies: &mut Vec<Reply>) -> Result<(), StoreError> {
        let now = tables.now;
        match self {
            Self::Check(call, answer) => later(answer, steps::check(tables, &call, now), replies),
            Self::Deliver(call, trust, answer) => {
                later(answer, steps::deliver(tables, &call, trust, now), replies)
            }
            Self::Revoke(revocation, answer) => later(answer, steps::revoke(tables, &revocation), replies),
            Self::Secret(fresh, answer) => later(answer, tables.secret(fresh), replies),
            Self::Sweep(answer) => later(answer, tables.sweep(SWEEP_WHEN_IDLE), replies),
            Self::Stats(answer) => later(answer, tables.stats(), replies),
        }
    }

    fn fail(self, error: &StoreError) {
        self.into_failure()(Some(error));
    }

    fn into_failure(self) -> Reply {
        match self {
            Self::Check(_, answer) => failure(answer),
            Self::Deliver(_, _, answer) | Self::Revoke(_, answer) => failure(answer),
            Self::Secret(_, answer) => failure(answer),
            Self::Sweep(answer) => failure(answer),
            Self::Stats(answer) => failure(answer),
        }
    }
}

fn later<T: 'static>(
    answer: Answer<T>,
    result: Result<T, StoreError>,
    replies: &mut Vec<Reply>,
) -> Result<(), StoreError> {
    match result {
        Err(error) => {
            replies.push(failure(answer));
            Err(error)
        }
        Ok(value) => {
            // Whoever asked may have gone away; nothing depends on it.
            replies.push(Box::new(move |error| {
                let _gone = answer.send(error.map_or(Ok(value), |error| Err(error.clone())));
            }));
            Ok(())
        }
    }
}

fn failure<T: 'static>(answer: Answer<T>) -> Reply {
    Box::new(move |error| {
        let _gone = answer.send(Err(error.cloned().unwrap_or(StoreError::Closed)));
    })
}
