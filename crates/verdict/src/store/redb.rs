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
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::oneshot;
use torwart_core::BoxFuture;
use torwart_policy::greylist::Judged;

use self::file::{Tables, open_file};
use super::overflow::Overflow;
use super::steps;
use super::{Call, Revocation, Stats, Store, StoreError};
use crate::clock::Clock;

/// See the module's documentation.
pub struct RedbStore {
    path: PathBuf,
    /// None while closing.
    queue: Option<SyncSender<Operation>>,
    writer: Option<JoinHandle<()>>,
    /// Disconnected when the writer has ended.
    writer_ended: Mutex<Receiver<()>>,
    shared: Arc<Shared>,
}

/// What the writer and its callers tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// Records that the operations in the queue read or write.
    queued_records: AtomicUsize,
    /// The file was lost, and nobody was told yet.
    file_gone: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub struct RedbOptions {
    /// Triplets and known senders in the file; beyond it those that expire first go first. 20 million take
    /// about 2.5 GB of disk.
    pub max_records: u64,
    /// Pages kept in memory, in bytes.
    pub cache_size: usize,
}

/// What waits for the writer beyond one batch, in operations and in records. A full queue is an error, not a wait:
/// greylisting has a time limit far below what such a queue would take on a disk that is that slow.
const QUEUE: usize = 4096;
const QUEUED_RECORDS: usize = 16_384;
/// One fsync covers at most so many records (one operation may be more): some 10 ms of work,
const BATCH: usize = 1000;
/// or what comes in so long.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// Expired records that go with each operation, and at each idle tick.
const SWEEP_PER_OPERATION: usize = 3;
const SWEEP_WHEN_IDLE: usize = 1000;
const IDLE: Duration = Duration::from_secs(30);
/// How often it is looked whether the file is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long a store that is dropped waits for the batch in hand. A disk that hangs must not keep the process.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// After a failed batch the file is closed and opened again, at most this often.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

enum Operation {
    Check(Call, Answer<Vec<Judged>>),
    Deliver(Call, bool, Answer<()>),
    GiveBack(Call, Answer<()>),
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
    shared: Arc<Shared>,
    overflow: Overflow,
    /// None after a failure.
    database: Option<Database>,
    opened: Instant,
    /// Device and inode of the file in use; none when that is unknown, or its loss was told.
    file: Option<(u64, u64)>,
    looked: Instant,
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
        let (ending, writer_ended) = sync_channel(0);
        let shared = Arc::<Shared>::default();
        let writer = Writer::new(path, options, clock, Arc::clone(&shared), Some(database));
        let thread = std::thread::Builder::new()
            .name("greylist-writer".into())
            .spawn(move || {
                let _dropped_at_the_end: SyncSender<()> = ending;
                writer.run(&operations);
            })
            .map_err(|error| StoreError::Unusable(format!("no thread for the store: {error}").into()))?;
        Ok(Self {
            path: path.to_owned(),
            queue: Some(queue),
            writer: Some(thread),
            writer_ended: Mutex::new(writer_ended),
            shared,
        })
    }

    fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(Answer<T>) -> Operation,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let (answer, result) = oneshot::channel();
        let sent = self.send(operation(answer));
        Box::pin(async move {
            sent?;
            result.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn send(&self, operation: Operation) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        let weight = operation.weight();
        let waiting = self.shared.queued_records.fetch_add(weight, Ordering::Relaxed);
        let sent = if waiting > QUEUED_RECORDS {
            Err(StoreError::Busy)
        } else {
            queue.try_send(operation).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Disconnected(_) => StoreError::Closed,
            })
        };
        if sent.is_err() {
            self.shared.queued_records.fetch_sub(weight, Ordering::Relaxed);
        }
        sent
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

    fn give_back(&self, call: Call) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|answer| Operation::GiveBack(call, answer))
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

    fn take_fault(&self) -> Option<StoreError> {
        let is_gone = self.shared.file_gone.load(Ordering::Relaxed)
            && self.shared.file_gone.swap(false, Ordering::Relaxed);
        is_gone.then_some(StoreError::FileGone)
    }
}

/// Waits for the batch in hand, so that the file is free afterwards; but no longer than `CLOSE_LIMIT`.
impl Drop for RedbStore {
    fn drop(&mut self) {
        self.queue = None;
        let ended = self.writer_ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(CLOSE_LIMIT) {
            tracing::error!(
                path = %self.path.display(),
                "the disk does not answer: the greylist store is left without its last records"
            );
            return;
        }
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
    fn new(
        path: &Path,
        options: RedbOptions,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        database: Option<Database>,
    ) -> Self {
        let now = Instant::now();
        Self {
            path: path.to_owned(),
            options,
            clock,
            shared,
            overflow: Overflow::new(),
            file: database.as_ref().and_then(|_| identity_of(path)),
            database,
            opened: now,
            looked: now,
        }
    }

    fn run(mut self, operations: &Receiver<Operation>) {
        loop {
            match operations.recv_timeout(IDLE) {
                Ok(first) => {
                    let batch = gather(first, operations);
                    let records = batch.iter().map(Operation::weight).sum();
                    self.shared.queued_records.fetch_sub(records, Ordering::Relaxed);
                    self.write(batch);
                }
                Err(RecvTimeoutError::Timeout) => self.write(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.looked.elapsed() >= LOOK_INTERVAL {
                self.look();
            }
        }
    }

    /// A file that was deleted or replaced can be written to as before, but its name leads elsewhere: the next
    /// process starts from nothing. Said once.
    fn look(&mut self) {
        self.looked = Instant::now();
        let Some(file) = self.file else { return };
        if identity_of(&self.path) != Some(file) {
            self.file = None;
            self.shared.file_gone.store(true, Ordering::Relaxed);
            tracing::error!(
                path = %self.path.display(),
                "the greylist store's file was deleted or replaced: what is remembered from now on ends with \
                 this process; restart it"
            );
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
        let result = self.transact(&database, batch, &mut replies);
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
        let database = open_file(&self.path, self.options.cache_size)?;
        self.file = identity_of(&self.path);
        Ok(database)
    }

    fn transact(
        &self,
        database: &Database,
        batch: Vec<Operation>,
        replies: &mut Vec<Reply>,
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
                let mut tables = Tables::open(
                    &transaction,
                    &self.overflow,
                    self.clock.record_time(),
                    self.options.max_records,
                )?;
                let sweep = if operations.len() == 0 {
                    SWEEP_WHEN_IDLE
                } else {
                    operations.len() * SWEEP_PER_OPERATION
                };
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
}

/// Device and inode.
fn identity_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn gather(first: Operation, operations: &Receiver<Operation>) -> Vec<Operation> {
    let started = Instant::now();
    let mut records = first.weight();
    let mut batch = vec![first];
    while records < BATCH && started.elapsed() < BATCH_TIME {
        let Ok(operation) = operations.try_recv() else { break };
        records += operation.weight();
        batch.push(operation);
    }
    batch
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
            Self::GiveBack(call, answer) => later(answer, steps::give_back(tables, &call), replies),
            Self::Revoke(revocation, answer) => later(answer, steps::revoke(tables, &revocation), replies),
            Self::Secret(fresh, answer) => later(answer, tables.secret(fresh), replies),
            Self::Sweep(answer) => later(answer, tables.sweep(SWEEP_WHEN_IDLE), replies),
            Self::Stats(answer) => later(answer, tables.stats(), replies),
        }
    }

    /// How many records it reads and may write.
    fn weight(&self) -> usize {
        match self {
            Self::Check(call, _) | Self::Deliver(call, ..) | Self::GiveBack(call, _) => call.weight(),
            Self::Revoke(revocation, _) => revocation.sets.iter().map(|set| set.known.len()).sum(),
            Self::Secret(..) | Self::Sweep(_) | Self::Stats(_) => 0,
        }
    }

    fn fail(self, error: &StoreError) {
        self.into_failure()(Some(error));
    }

    fn into_failure(self) -> Reply {
        match self {
            Self::Check(_, answer) => failure(answer),
            Self::Deliver(_, _, answer) | Self::GiveBack(_, answer) | Self::Revoke(_, answer) => {
                failure(answer)
            }
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
