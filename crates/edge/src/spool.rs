//! Where held messages wait for their verdict: the beginning in memory, the rest in a file without a name, which is gone
//! with the process.
//!
//! ```text
//!   write --> memory, up to --spool-memory --> blocks --> unlinked file in --spool-dir
//!             |_______ all messages together: --spool-max _______|     of which no client network has all (`room.rs`)
//! ```
//!
//! A disk is waited for on threads made for waiting; a disk that hangs holds up so many of them and no more.

mod room;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntGauge, Registry};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::room::{Room, Share};
use crate::permits::Network;

/// What the spool may take. [`SpoolSettings::default`] holds the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// `--spool-dir`.
    pub dir: PathBuf,
    /// `--spool-memory`: bytes of one message that are kept in memory.
    pub memory: u64,
    /// `--spool-max`: bytes of all held messages, wherever they are.
    pub max: u64,
}

/// The process's spool.
#[derive(Debug)]
pub(crate) struct Spool {
    settings: SpoolSettings,
    room: Room,
    /// Of all messages.
    in_memory: AtomicU64,
    disk: Arc<Semaphore>,
    bytes_gauge: IntGauge,
    files_gauge: IntGauge,
    complained: Mutex<Option<Instant>>,
}

/// One message, gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Spooled {
    spool: Arc<Spool>,
    network: Network,
    memory: Vec<u8>,
    file: Option<SpoolFile>,
    /// For the file's next block.
    block: Vec<u8>,
    /// Bytes of the spool that are this message's.
    taken: u64,
}

/// The part behind `memory`.
#[derive(Debug)]
struct SpoolFile {
    file: Arc<File>,
    length: u64,
    files_gauge: IntGauge,
}

/// How far a message has been read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    at: u64,
}

/// The message can't be held.
#[derive(Debug)]
pub(crate) enum SpoolFault {
    /// `--spool-max` is reached, or this client's share of it.
    Full,
    /// So many are held already.
    Crowded,
    /// The disk is full, broken or takes too long.
    Disk(io::Error),
}

/// Written and read at once. Small beside a disk's own speed, and large enough that its latency does not count.
const BLOCK: usize = 64 * 1024;
/// Messages whose beginning is all in memory at once. More go to the disk from their first byte, so that however many
/// senders come, memory stays bounded: 64 MiB by default.
const IN_MEMORY: u64 = 256;
/// Messages at once. Each takes up to 160 KiB of buffers beside what is counted here: 320 MiB for all of them. A message
/// is held for a second or two as a rule.
const MESSAGES: u64 = 2048;
/// What a disk may take for one block. Longer is broken, for a client that waits for its reply.
const DISK: Duration = Duration::from_secs(30);
/// Threads that wait for the disk, of the runtime's 512.
const WAITING: usize = 64;
/// One complaint about the disk in so long.
const COMPLAINTS: Duration = Duration::from_secs(10);

// === impl SpoolSettings ===

impl Default for SpoolSettings {
    /// 256 KiB hold nine of ten messages whole; 2 GiB hold forty of the largest.
    fn default() -> Self {
        Self { dir: std::env::temp_dir(), memory: 256 * 1024, max: 2 * 1024 * 1024 * 1024 }
    }
}

// === impl Spool ===

impl Spool {
    /// An error means that a metric's name is taken.
    pub(crate) fn new(settings: SpoolSettings, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let bytes_gauge =
            IntGauge::new("torwart_spool_bytes", "Bytes of held messages, in memory and on disk.")?;
        let files_gauge = IntGauge::new("torwart_spool_files", "Held messages that are partly on disk.")?;
        registry.register(Box::new(bytes_gauge.clone()))?;
        registry.register(Box::new(files_gauge.clone()))?;
        Ok(Arc::new(Self {
            room: Room::new(Share { bytes: settings.max, messages: MESSAGES }),
            settings,
            in_memory: AtomicU64::new(0),
            disk: Arc::new(Semaphore::new(WAITING)),
            bytes_gauge,
            files_gauge,
            complained: Mutex::new(None),
        }))
    }

    /// Room for a message of this client, which declared this size if it did.
    pub(crate) fn begin(
        self: &Arc<Self>,
        client: IpAddr,
        declared: Option<u64>,
    ) -> Result<Spooled, SpoolFault> {
        let network = Network::of(client);
        self.room.admit(network, declared)?;
        Ok(Spooled {
            spool: Arc::clone(self),
            network,
            memory: Vec::new(),
            file: None,
            block: Vec::new(),
            taken: 0,
        })
    }

    fn take(&self, network: Network, bytes: u64) -> bool {
        let took = self.room.take(network, bytes);
        if took {
            self.bytes_gauge.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        took
    }

    fn give_back(&self, network: Network, bytes: u64) {
        self.room.give_back(network, bytes);
        self.bytes_gauge.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Waits for the disk, within its time limit.
    async fn wait_for<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, SpoolFault> {
        let disk = Arc::clone(&self.disk);
        let done = async {
            let place = disk.acquire_owned().await.map_err(io::Error::other)?;
            // the place is held until the disk is done, even if nobody waits for it any more
            let working = spawn_blocking(move || (work(), place).0);
            working.await.map_err(io::Error::other)?
        };
        match timeout(DISK, done).await {
            Ok(done) => done.map_err(SpoolFault::Disk),
            Err(_) => Err(SpoolFault::Disk(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Says why messages are not taken, now and then.
    pub(crate) fn complain(&self, fault: &SpoolFault) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if complained.is_some_and(|last| now.duration_since(last) < COMPLAINTS) {
            return;
        }
        *complained = Some(now);
        match fault {
            SpoolFault::Full => {
                let max = self.settings.max;
                tracing::warn!(
                    max,
                    "held messages fill --spool-max, or one client network's share of it; others are deferred"
                );
            }
            SpoolFault::Crowded => {
                tracing::warn!(most = MESSAGES, "too many messages are held, others are deferred")
            }
            SpoolFault::Disk(error) => {
                let dir = self.settings.dir.display();
                tracing::error!(%error, %dir, "--spool-dir can't hold a message, it is deferred");
            }
        }
    }
}

fn add_up_to(counter: &AtomicU64, more: u64, most: u64) -> bool {
    let sum = |now: u64| now.checked_add(more).filter(|sum| *sum <= most);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

// === impl Spooled ===

impl Spooled {
    /// Appends to the message. After an error it is of no use.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolFault> {
        let more = bytes.len() as u64;
        if !self.spool.take(self.network, more) {
            return Err(SpoolFault::Full);
        }
        self.taken += more;
        let fits = self.memory.len() as u64 + more <= self.spool.settings.memory;
        let most = IN_MEMORY.saturating_mul(self.spool.settings.memory);
        if self.file.is_none() && fits && add_up_to(&self.spool.in_memory, more, most) {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        self.open().await?;
        for piece in bytes.chunks(BLOCK) {
            self.block.extend_from_slice(piece);
            if self.block.len() >= BLOCK {
                self.write_block().await?;
            }
        }
        Ok(())
    }

    /// The message is whole.
    pub(crate) async fn finish(&mut self) -> Result<(), SpoolFault> {
        if !self.block.is_empty() {
            self.write_block().await?;
        }
        self.block = Vec::new();
        Ok(())
    }

    /// The next bytes of a message that is whole, in place of what `buffer` held; none at its end.
    pub(crate) async fn read(&self, reading: &mut Reading, buffer: &mut Vec<u8>) -> Result<(), SpoolFault> {
        let in_memory = self.memory.len() as u64;
        buffer.clear();
        if let Some(rest) = usize::try_from(reading.at).ok().and_then(|at| self.memory.get(at..))
            && !rest.is_empty()
        {
            buffer.extend_from_slice(rest.get(..BLOCK).unwrap_or(rest));
        } else if let Some(SpoolFile { file, length, .. }) = &self.file {
            let at = reading.at.saturating_sub(in_memory);
            let left = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX).min(BLOCK);
            let (file, mut block) = (Arc::clone(file), std::mem::take(buffer));
            *buffer = self
                .spool
                .wait_for(move || {
                    block.resize(left, 0);
                    file.read_exact_at(&mut block, at)?;
                    Ok(block)
                })
                .await?;
        }
        reading.at += buffer.len() as u64;
        Ok(())
    }

    async fn open(&mut self) -> Result<(), SpoolFault> {
        if self.file.is_some() {
            return Ok(());
        }
        let dir = self.spool.settings.dir.clone();
        let file = self.spool.wait_for(move || tempfile::tempfile_in(dir)).await?;
        let files_gauge = self.spool.files_gauge.clone();
        files_gauge.inc();
        self.file = Some(SpoolFile { file: Arc::new(file), length: 0, files_gauge });
        Ok(())
    }

    async fn write_block(&mut self) -> Result<(), SpoolFault> {
        let Some(SpoolFile { file, length, .. }) = &mut self.file else { return Ok(()) };
        let (file, at, block) = (Arc::clone(file), *length, std::mem::take(&mut self.block));
        let mut block = self
            .spool
            .wait_for(move || {
                file.write_all_at(&block, at)?;
                Ok(block)
            })
            .await?;
        *length += block.len() as u64;
        block.clear();
        self.block = block;
        Ok(())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.spool.give_back(self.network, self.taken);
        self.spool.in_memory.fetch_sub(self.memory.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.files_gauge.dec();
    }
}
