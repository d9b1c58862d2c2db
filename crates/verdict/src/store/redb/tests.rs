use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use torwart_core::Greylist;

use super::super::suite::mk_call;
use super::*;
use crate::clock::{ManualClock, SystemClock};

const START: i64 = 1_800_000_000;
const CHILD: &str = "TORWART_TEST_STORE_CHILD";

fn mk_store(path: &Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(path, Arc::new(ManualClock::new(START)), RedbOptions::default())
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let text = "root:x:0:0:root:/root:/bin/bash\n".repeat(300);
    std::fs::write(&path, &text).unwrap();
    let error = mk_store(&path).unwrap_err();
    assert!(error.to_string().contains("is no greylist store of Torwart"), "{error}");
    assert!(error.to_string().contains("greylist.redb"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn another_programs_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, u64>::new("accounts");
    transaction.open_table(table).unwrap().insert("a", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = mk_store(&path).unwrap_err();
    assert!(error.to_string().contains("belongs to another program"), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    drop(mk_store(&path).unwrap());
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    transaction.open_table(meta).unwrap().insert("torwart-greylist-format", &2u32.to_be_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = mk_store(&path).unwrap_err();
    assert!(error.to_string().contains("was written by a newer Torwart (format 2"), "{error}");
}

#[test]
fn a_file_belongs_to_one_process_and_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let store = mk_store(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = mk_store(&path).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(store);
    mk_store(&path).unwrap();
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = mk_store(Path::new("/nowhere/at/all/greylist.redb")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all/greylist.redb: cannot be opened"), "{error}");
}

#[tokio::test]
async fn records_and_secret_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let clock = Arc::new(ManualClock::new(START));
    let open = || RedbStore::open(&path, clock.clone(), RedbOptions::default()).unwrap();
    let store = open();
    store.secret([7; 32]).await.unwrap();
    store.check(mk_call(1, &[1], &[1])).await.unwrap();
    drop(store);
    clock.advance(300);
    let store = open();
    assert_eq!(store.secret([8; 32]).await.unwrap(), [7; 32]);
    assert_eq!(store.check(mk_call(1, &[1], &[1])).await.unwrap()[0].outcome, Greylist::Passed);
}

#[tokio::test]
async fn a_full_store_drops_what_expires_first() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let options = RedbOptions { max_records: 100, ..RedbOptions::default() };
    let store = RedbStore::open(&folder.path().join("greylist.redb"), clock.clone(), options).unwrap();
    store.deliver(mk_call(1, &[1], &[1]), false).await.unwrap();
    for sender in 2..300 {
        clock.advance(60);
        store.check(mk_call(sender, &[1], &[1])).await.unwrap();
        assert!(store.stats().await.unwrap().records <= 100);
    }
    assert_eq!(store.stats().await.unwrap().records, 100);
    let outcome = async |sender| store.check(mk_call(sender, &[1], &[1])).await.unwrap()[0].outcome;
    assert_eq!(outcome(1).await, Greylist::Passed, "what has passed outlives what only waits");
    assert_eq!(outcome(290).await, Greylist::Passed);
    assert_eq!(outcome(2).await, Greylist::StoreFailure, "what was dropped is not new");
}

#[tokio::test]
async fn a_store_whose_queue_is_full_says_so_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = mk_store(&folder.path().join("greylist.redb")).unwrap();
    let calls: Vec<_> =
        (0..30_000u32).map(|sender| store.check(mk_call(sender + 1, &[sender % 10], &[1]))).collect();
    let mut busy = 0;
    for call in calls {
        match call.await {
            Ok(_) => {}
            Err(StoreError::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0, "the queue holds {QUEUE}, and one thread asks faster than a disk can answer");
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.records, 30_000 - busy, "what was not refused was done");
}

#[tokio::test]
async fn a_store_that_is_closed_in_the_middle_answers_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = mk_store(&folder.path().join("greylist.redb")).unwrap();
    let (answer, result) = oneshot::channel();
    let queue = store.queue.take().unwrap();
    queue.try_send(Operation::Check(mk_call(1, &[1], &[1]), answer)).unwrap();
    drop(queue);
    drop(store);
    assert_eq!(result.await.unwrap().unwrap()[0].outcome, Greylist::New);
}

/// Run by the next test as a process of its own: writes records for as long as it lives, and prints each that was
/// acknowledged.
#[test]
fn a_writer_that_will_be_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(
            RedbStore::open(Path::new(&path), Arc::new(SystemClock), RedbOptions::default()).unwrap(),
        );
        let mut tasks = tokio::task::JoinSet::new();
        let mut out = std::io::stdout().lock();
        for sender in 1..1_000_000u32 {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                store.check(mk_call(sender, &[1], &[1, 2])).await.unwrap();
                sender
            });
            if tasks.len() >= 100 {
                let sender = tasks.join_next().await.unwrap().unwrap();
                writeln!(out, "acknowledged {sender}").unwrap();
                out.flush().unwrap();
            }
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let mut acknowledged = Vec::new();
    for kill_after in [500, 1500, 2300] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::redb::tests::a_writer_that_will_be_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let Some(sender) = line.strip_prefix("acknowledged ") else { continue };
            acknowledged.push(sender.parse::<u32>().unwrap());
            seen += 1;
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(seen >= kill_after);
    }
    let store = RedbStore::open(&path, Arc::new(SystemClock), RedbOptions::default()).unwrap();
    let database_has = async |sender: u32| {
        store.check(mk_call(sender, &[1], &[1, 2])).await.unwrap().iter().all(|j| j.outcome != Greylist::New)
    };
    for sender in acknowledged {
        assert!(database_has(sender).await, "{sender} was acknowledged and is gone");
    }
}

#[test]
fn a_failed_disk_is_an_error_and_then_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let options = RedbOptions::default();
    let clock = Arc::new(ManualClock::new(START));
    let mut writer = Writer::new(&path, options, clock, Arc::default(), None);
    let ask = |writer: &mut Writer| {
        let (answer, mut result) = oneshot::channel();
        writer.write(vec![Operation::Check(mk_call(1, &[1], &[1]), answer)]);
        result.try_recv().unwrap()
    };
    assert!(matches!(ask(&mut writer), Err(StoreError::Io(_))), "not before the interval is over");
    writer.opened -= REOPEN_INTERVAL;
    assert_eq!(ask(&mut writer).unwrap()[0].outcome, Greylist::New);
    assert_eq!(ask(&mut writer).unwrap()[0].outcome, Greylist::Early);
}

#[tokio::test]
async fn a_batch_is_bounded_by_its_records() {
    let (queue, operations) = sync_channel(QUEUE);
    let recipients: Vec<u32> = (0..90).collect();
    for sender in 1..=40 {
        let (answer, _) = oneshot::channel();
        queue.try_send(Operation::Check(mk_call(sender, &[1], &recipients), answer)).unwrap();
    }
    let batch = gather(operations.recv().unwrap(), &operations);
    let records: usize = batch.iter().map(Operation::weight).sum();
    assert!(records < BATCH + 91, "{records} records in a batch of {}", batch.len());
}

#[test]
fn a_file_that_is_deleted_or_replaced_under_a_store_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    for replaced in [false, true] {
        let path = folder.path().join("greylist.redb");
        let shared = Arc::<Shared>::default();
        let database = open_file(&path, 1 << 20).unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let mut writer =
            Writer::new(&path, RedbOptions::default(), clock, Arc::clone(&shared), Some(database));
        let told = |writer: &mut Writer| {
            writer.look();
            shared.file_gone.swap(false, Ordering::Relaxed)
        };
        assert!(!told(&mut writer));
        if replaced {
            std::fs::rename(&path, folder.path().join("moved.redb")).unwrap();
            std::fs::write(&path, "").unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        assert!(told(&mut writer), "replaced: {replaced}");
        assert!(!told(&mut writer));
    }
}

/// A disk that hangs, as far as the store sees it: its writer never ends.
#[test]
fn a_store_whose_disk_hangs_can_be_left() {
    let (hang, until) = sync_channel::<()>(0);
    let (ending, writer_ended) = sync_channel(0);
    let writer = std::thread::spawn(move || {
        let _ending: SyncSender<()> = ending;
        let _woken = until.recv();
    });
    let store = RedbStore {
        path: "greylist.redb".into(),
        queue: None,
        writer: Some(writer),
        writer_ended: Mutex::new(writer_ended),
        shared: Arc::default(),
    };
    drop(store);
    drop(hang);
}
