use super::*;

/// A client of a network of its own.
fn client(n: usize) -> IpAddr {
    let [.., a, b] = n.to_be_bytes();
    [10, a, b, 1].into()
}

fn spool(memory: u64, max: u64) -> (Arc<Spool>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = SpoolSettings { dir: folder.path().to_owned(), memory, max };
    (Spool::new(settings, &Registry::new()).unwrap(), folder)
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn read_all(message: &Spooled) -> Vec<u8> {
    let (mut reading, mut buffer, mut all) = (Reading::default(), Vec::new(), Vec::new());
    loop {
        message.read(&mut reading, &mut buffer).await.unwrap();
        if buffer.is_empty() {
            return all;
        }
        assert!(buffer.len() <= BLOCK);
        all.extend_from_slice(&buffer);
    }
}

#[tokio::test]
async fn what_was_written_is_read_wherever_it_was_kept() {
    for (length, piece, on_disk) in [
        (0, 1, false),
        (1000, 100, false),
        (1001, 100, true),
        (300_000, 1, true),
        (300_000, 70_001, true),
        (BLOCK + 1000, BLOCK, true),
    ] {
        let (spool, folder) = spool(1000, 1_000_000);
        let (mut message, expected) = (spool.begin(client(0), None).unwrap(), text(length));
        for piece in expected.chunks(piece) {
            message.write(piece).await.unwrap();
        }
        message.finish().await.unwrap();
        assert!(read_all(&message).await == expected, "{length} bytes by {piece}");
        assert!(read_all(&message).await == expected, "again");
        assert_eq!((message.file.is_some(), spool.files_gauge.get()), (on_disk, i64::from(on_disk)));
        assert_eq!(spool.bytes_gauge.get(), i64::try_from(length).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the file has no name");
        drop(message);
        assert_eq!((spool.bytes_gauge.get(), spool.files_gauge.get()), (0, 0));
        assert_eq!((spool.room.all(), spool.in_memory.load(Ordering::Relaxed)), (Share::default(), 0));
    }
}

#[tokio::test]
async fn all_messages_share_the_room_and_give_it_back() {
    let (spool, _folder) = spool(100, 1000);
    let mut first = spool.begin(client(1), None).unwrap();
    first.write(&text(700)).await.unwrap();
    for (size, fits) in [(300, true), (301, false), (u64::MAX, false)] {
        assert_eq!(spool.begin(client(2), Some(size)).is_ok(), fits, "{size}");
    }
    let mut second = spool.begin(client(2), None).unwrap();
    second.write(&text(300)).await.unwrap();
    assert!(matches!(second.write(&[0]).await, Err(SpoolFault::Full)));
    drop(first);
    let mut third = spool.begin(client(3), None).unwrap();
    third.write(&text(700)).await.unwrap();
    assert_eq!(spool.bytes_gauge.get(), 1000);
}

#[tokio::test]
async fn so_many_messages_are_in_memory_and_no_more() {
    let (spool, _folder) = spool(10, 1_000_000);
    let mut messages = Vec::new();
    for n in 0..usize::try_from(IN_MEMORY).unwrap() + 5 {
        let mut message = spool.begin(client(n), None).unwrap();
        message.write(&text(10)).await.unwrap();
        messages.push(message);
    }
    assert_eq!(spool.files_gauge.get(), 5);
    assert_eq!(spool.in_memory.load(Ordering::Relaxed), 10 * IN_MEMORY);
}

#[tokio::test]
async fn so_many_messages_are_held_and_no_more() {
    let (spool, _folder) = spool(10, 1000);
    let mut messages: Vec<_> =
        (0..usize::try_from(MESSAGES).unwrap()).map(|n| spool.begin(client(n), None).unwrap()).collect();
    assert!(matches!(spool.begin(client(60_000), None), Err(SpoolFault::Crowded)));
    messages.pop();
    assert!(matches!(spool.begin(client(60_000), Some(1001)), Err(SpoolFault::Full)));
    assert!(spool.begin(client(60_000), Some(1000)).is_ok());
}

#[tokio::test]
async fn a_folder_that_is_gone_is_a_fault_of_the_disk() {
    let (spool, folder) = spool(10, 1000);
    drop(folder);
    let mut message = spool.begin(client(0), None).unwrap();
    message.write(&text(10)).await.unwrap();
    assert!(matches!(message.write(&[0]).await, Err(SpoolFault::Disk(_))));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_holds_up_so_many_threads_and_no_more() {
    let (spool, _folder) = spool(10, 1000);
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let hang = Arc::new(Mutex::new(hang));
    let mut hanging = Vec::new();
    for _ in 0..WAITING + 10 {
        let (spool, hang) = (Arc::clone(&spool), Arc::clone(&hang));
        hanging.push(tokio::spawn(async move {
            let wait = move || {
                let _ = hang.lock().map(|hang| hang.recv());
                Ok(())
            };
            spool.wait_for(wait).await
        }));
    }
    while spool.disk.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(DISK).await;
    for hanging in hanging {
        let fault = hanging.await.unwrap().unwrap_err();
        assert!(matches!(fault, SpoolFault::Disk(error) if error.kind() == io::ErrorKind::TimedOut));
    }
    assert_eq!(spool.disk.available_permits(), 0);
    drop(release);
}
