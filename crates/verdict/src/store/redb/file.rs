//! The file's tables.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError,
    Table as RedbTable, TableDefinition, TableError, TableHandle, WriteTransaction,
};
use torwart_policy::greylist::{Counter, Record, Time};

use crate::store::overflow::Overflow;
use crate::store::steps::Table;
use crate::store::value::{decode_counter, decode_record, encode_counter, encode_record};
use crate::store::{Key, Stats, StoreError};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const RECORDS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("records");
const COUNTERS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("counters");
/// Minute (4 bytes), kind (1 byte), key (16 bytes); all big-endian, so that what expires first comes first.
const EXPIRY: TableDefinition<'_, &[u8; 21], ()> = TableDefinition::new("expiry");

/// Of the tables; values have versions of their own.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "torwart-greylist-format";
const SECRET_KEY: &str = "secret";

const RECORD: u8 = 0;
const COUNTER: u8 = 1;
/// How many entries one eviction may file anew before it drops the next whatever its time.
const EVICTION_TRIES: usize = 256;

pub(super) struct Tables<'t> {
    meta: RedbTable<'t, &'static str, &'static [u8]>,
    records: RedbTable<'t, &'static [u8; 16], &'static [u8]>,
    counters: RedbTable<'t, &'static [u8; 16], &'static [u8]>,
    expiry: RedbTable<'t, &'static [u8; 21], ()>,
    max_records: u64,
    overflow: &'t Overflow,
    pub(super) now: Time,
    /// Whether there is anything to commit.
    pub(super) changed: bool,
}

/// Opens the file, or creates it for its owner alone.
pub(super) fn open_file(path: &Path, cache_size: usize) -> Result<Database, StoreError> {
    let shown = path.display();
    let unusable = |why: String| StoreError::Unusable(format!("{shown}: {why}").into());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| unusable(format!("cannot be opened: {error}")))?;
    let empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    drop(file);
    let database = Builder::new().set_cache_size(cache_size).create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => unusable("is in use by another process".into()),
        DatabaseError::UpgradeRequired(_) => {
            unusable("was written by an older version of its format; move it away to start anew".into())
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            unusable(format!("cannot be used: {error}"))
        }
        error => {
            unusable(format!("is no greylist store of Torwart, or is damaged ({error}); name another file"))
        }
    })?;
    match format_of(&database, empty).map_err(|error| unusable(error.to_string()))? {
        Format::Ours(FORMAT) => Ok(database),
        Format::Ours(newer) => Err(unusable(format!(
            "was written by a newer Torwart (format {newer}, this one reads {FORMAT}); upgrade, or name another file"
        ))),
        Format::Foreign => {
            Err(unusable("belongs to another program, not to Torwart's greylist; name another file".into()))
        }
    }
}

enum Format {
    Ours(u32),
    Foreign,
}

/// Marks a database without tables as ours.
fn format_of(database: &Database, new: bool) -> Result<Format, redb::Error> {
    if !new {
        let transaction = database.begin_read()?;
        let names: Vec<_> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
        let multimaps = transaction.list_multimap_tables()?.count();
        if !names.is_empty() || multimaps > 0 {
            let meta = match transaction.open_table(META) {
                Ok(meta) => meta,
                Err(TableError::Storage(error)) => return Err(error.into()),
                Err(_) => return Ok(Format::Foreign),
            };
            let format =
                meta.get(FORMAT_KEY)?.and_then(|value| value.value().try_into().ok().map(u32::from_be_bytes));
            return Ok(format.map_or(Format::Foreign, Format::Ours));
        }
    }
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_KEY, &FORMAT.to_be_bytes()[..])?;
    transaction.commit()?;
    Ok(Format::Ours(FORMAT))
}

fn io(error: impl std::fmt::Display) -> StoreError {
    StoreError::Io(error.to_string().into())
}

// === impl Tables ===

impl<'t> Tables<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        overflow: &'t Overflow,
        now: Time,
        max_records: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(io)?,
            records: transaction.open_table(RECORDS).map_err(io)?,
            counters: transaction.open_table(COUNTERS).map_err(io)?,
            expiry: transaction.open_table(EXPIRY).map_err(io)?,
            max_records,
            overflow,
            now,
            changed: false,
        })
    }

    pub(super) fn secret(&mut self, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        if let Some(secret) = self.meta.get(SECRET_KEY).map_err(io)? {
            return secret
                .value()
                .try_into()
                .map_err(|_| StoreError::Io("the store's key is damaged".into()));
        }
        self.meta.insert(SECRET_KEY, &fresh[..]).map_err(io)?;
        self.changed = true;
        Ok(fresh)
    }

    pub(super) fn stats(&self) -> Result<Stats, StoreError> {
        let records = self.records.len().map_err(io)?;
        Ok(Stats { records, counters: self.counters.len().map_err(io)? })
    }

    /// Looks at up to `limit` entries whose minute is over; says how many records it removed.
    pub(super) fn sweep(&mut self, limit: usize) -> Result<usize, StoreError> {
        let mut removed = 0;
        for _ in 0..limit {
            let first = self.expiry.first().map_err(io)?.map(|(entry, _)| *entry.value());
            let Some(entry) = first.filter(|entry| minute_of(entry) < minute(self.now)) else { break };
            removed += usize::from(self.settle(&entry, false)?);
        }
        Ok(removed)
    }

    /// Takes an entry out of the index: its record goes if it has expired, or with `force`; otherwise it is filed
    /// anew. The time of one that goes too early stays in the overflow. Says whether a record went.
    fn settle(&mut self, entry: &[u8; 21], force: bool) -> Result<bool, StoreError> {
        self.changed = true;
        self.expiry.remove(entry).map_err(io)?;
        let Some((kind, key)) = kind_and_key(entry) else { return Ok(false) };
        let expires = match kind {
            COUNTER => {
                self.counters.get(&key).map_err(io)?.map(|v| decode_counter(v.value()).map(|c| c.expires))
            }
            _ => self.records.get(&key).map_err(io)?.map(|v| decode_record(v.value()).map(|r| r.expires)),
        };
        let Some(expires) = expires else { return Ok(false) };
        // What cannot be read is of no use to anyone.
        let expires = expires.unwrap_or(0);
        if expires > self.now && !force {
            self.file(expires, kind, &key)?;
            return Ok(false);
        }
        if kind == COUNTER {
            self.counters.remove(&key).map_err(io)?;
            return Ok(true);
        }
        let gone = self.records.remove(&key).map_err(io)?.and_then(|value| decode_record(value.value()));
        if let Some(record) = gone.filter(|record| record.passed.is_none() && !record.is_expired(self.now)) {
            let key = Key(key);
            self.overflow.note(key.tag(), &key, record.first_seen, self.now);
        }
        Ok(true)
    }

    fn file(&mut self, expires: Time, kind: u8, key: &[u8; 16]) -> Result<(), StoreError> {
        let mut entry = [kind; 21];
        entry[..4].copy_from_slice(&minute(expires).to_be_bytes());
        entry[5..].copy_from_slice(key);
        self.expiry.insert(&entry, ()).map_err(io)?;
        Ok(())
    }

    /// Makes room by dropping what expires first.
    fn evict(&mut self) -> Result<(), StoreError> {
        for attempt in 0..=EVICTION_TRIES {
            let Some(entry) = self.expiry.first().map_err(io)?.map(|(entry, _)| *entry.value()) else {
                return Ok(());
            };
            let prolonged = self.is_prolonged(&entry)? && attempt < EVICTION_TRIES;
            if self.settle(&entry, !prolonged)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_prolonged(&self, entry: &[u8; 21]) -> Result<bool, StoreError> {
        let Some((kind, key)) = kind_and_key(entry) else { return Ok(false) };
        let expires = match kind {
            COUNTER => self
                .counters
                .get(&key)
                .map_err(io)?
                .and_then(|v| decode_counter(v.value()).map(|c| c.expires)),
            _ => {
                self.records.get(&key).map_err(io)?.and_then(|v| decode_record(v.value()).map(|r| r.expires))
            }
        };
        Ok(expires.is_some_and(|expires| minute(expires) > minute_of(entry)))
    }
}

impl Table for Tables<'_> {
    type Error = StoreError;

    fn record(&mut self, key: &Key) -> Result<Option<Record>, StoreError> {
        let record = self.records.get(&key.0).map_err(io)?.and_then(|value| decode_record(value.value()));
        Ok(record.filter(|record| !record.is_expired(self.now)))
    }

    fn put_record(&mut self, key: &Key, record: Record) -> Result<(), StoreError> {
        self.changed = true;
        let value = encode_record(&record);
        let before = self.records.insert(&key.0, &value[..]).map_err(io)?;
        let before = before.and_then(|value| decode_record(value.value()));
        let is_new = before.is_none();
        if before.is_none_or(|before| record.expires < before.expires) {
            self.file(record.expires, RECORD, &key.0)?;
        }
        if is_new && self.records.len().map_err(io)? > self.max_records {
            self.evict()?;
        }
        Ok(())
    }

    fn remove_record(&mut self, key: &Key) -> Result<(), StoreError> {
        self.changed |= self.records.remove(&key.0).map_err(io)?.is_some();
        Ok(())
    }

    fn counter(&mut self, key: &Key) -> Result<Option<Counter>, StoreError> {
        let counter = self.counters.get(&key.0).map_err(io)?.and_then(|value| decode_counter(value.value()));
        Ok(counter.filter(|counter| !counter.is_expired(self.now)))
    }

    fn put_counter(&mut self, key: &Key, counter: Counter) -> Result<(), StoreError> {
        self.changed = true;
        let value = encode_counter(&counter);
        let before = self.counters.insert(&key.0, &value[..]).map_err(io)?;
        let before = before.and_then(|value| decode_counter(value.value()));
        if before.is_none_or(|before| counter.expires < before.expires) {
            self.file(counter.expires, COUNTER, &key.0)?;
        }
        Ok(())
    }

    fn remove_counter(&mut self, key: &Key) -> Result<(), StoreError> {
        self.changed |= self.counters.remove(&key.0).map_err(io)?.is_some();
        Ok(())
    }

    fn overflow(&self) -> &Overflow {
        self.overflow
    }
}

/// A record is looked at when the minute in which it expires is over.
fn minute(time: Time) -> u32 {
    time / 60
}

fn minute_of(entry: &[u8; 21]) -> u32 {
    entry.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn kind_and_key(entry: &[u8; 21]) -> Option<(u8, [u8; 16])> {
    Some((entry[4], *entry.last_chunk()?))
}
