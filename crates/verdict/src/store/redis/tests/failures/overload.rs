//! A server that is well, and has too much to do or to keep.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use torwart_core::Greylist;
use torwart_tests::RedisServer;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_refuses_first_tries_until_there_is_some() {
    let server = RedisServer::builder().config("maxmemory 8mb").start();
    let asker = Asker::well(&server.url()).await;
    let connects = asker.connects();
    let filler = "x".repeat(100_000);
    let mut fillers = (0..1000).map(|n| server.cli(&["SET", &format!("filler{n}"), &filler]));
    assert!(fillers.any(|answer| answer.contains("OOM")), "it is full");
    asker.until("oom").await;
    assert_eq!(server.cli(&["DEL", "filler0", "filler1", "filler2"]), "3");
    asker.until_well().await;
    assert_eq!(asker.connects(), connects, "it is not the connection's fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_somebodys_endless_script_is_well_when_that_is_killed() {
    let server = RedisServer::builder().config("busy-reply-threshold 50").start();
    let asker = Asker::well_with(&server.url(), SHORT).await;
    let (ip, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let mut somebody = std::process::Command::new("redis-cli")
        .args(["-h", &ip, "-p", &port, "EVAL", "while true do end", "0"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    asker.until("busy").await;
    assert_eq!(server.cli(&["SCRIPT", "KILL"]), "OK");
    asker.until_well().await;
    somebody.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_save_refuses_writes_until_it_can() {
    let server = RedisServer::builder().config("save 3600 1").start();
    let asker = Asker::well(&server.url()).await;
    // Something is in the way of what it saves; once that has failed, it takes no writes.
    let in_the_way = server.folder().join("dump.rdb");
    std::fs::create_dir(&in_the_way).unwrap();
    server.cli(&["BGSAVE"]);
    let error = asker.until("io").await;
    assert!(error.to_string().contains("MISCONF"), "{error}");
    let connects = asker.connects();
    for _ in 0..20 {
        assert_eq!(asker.ask().await.unwrap_err().kind(), "io", "it is not left alone");
    }
    assert_eq!(asker.connects(), connects, "it is not the connection's fault");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(server.cli(&["SAVE"]), "OK");
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_are_bounded_and_what_is_beyond_fails_at_once() {
    let server = RedisServer::start();
    let asker = Arc::new(Asker::well(&server.url()).await);
    server.signal("STOP");
    let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..1030 {
        let (asker, told) = (Arc::clone(&asker), told.clone());
        tokio::spawn(async move { told.send(asker.ask().await) });
    }
    for _ in 0..6 {
        assert_eq!(answers.recv().await.unwrap().unwrap_err(), StoreError::Busy);
    }
    server.signal("CONT");
    for _ in 0..1024 {
        assert_eq!(answers.recv().await.unwrap().unwrap(), Greylist::New);
    }
}

/// What is logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Collects until the guards are dropped.
    fn start() -> (Self, (tracing::Dispatch, tracing::subscriber::DefaultGuard)) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        // While there is but one, a line that another thread comes to first is off for all.
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        (log, (second, tracing::subscriber::set_default(subscriber)))
    }

    fn count(&self, what: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(what).count()
    }
}

/// The tasks of a test with one thread are in that thread.
#[tokio::test]
async fn a_server_that_may_forget_records_is_told_once() {
    let (log, _guards) = Log::start();
    let server =
        RedisServer::builder().config("maxmemory 100mb").config("maxmemory-policy allkeys-lru").start();
    let link = mk_link(&server.url()).await;
    assert_eq!(log.count("maxmemory_policy=\"allkeys-lru\""), 1);
    let mut connects = link.connects();
    connects.mark_unchanged();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    tokio::time::timeout(PATIENCE, connects.changed()).await.unwrap().unwrap();
    assert_eq!(log.count("maxmemory_policy"), 1);
}

#[tokio::test]
async fn a_server_that_stays_away_is_told_once_and_so_is_its_return() {
    let (log, _guards) = Log::start();
    let mut server = RedisServer::start();
    server.kill();
    let link = mk_link_to(&server.url());
    let refused = async || {
        while link.call(get("a")).await.is_ok() || log.count("no connection") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused()).await.unwrap();
    server.start_again();
    tokio::time::timeout(PATIENCE, link.connected()).await.unwrap();
    for _ in 0..10 {
        assert_eq!(link.call(get("a")).await.unwrap(), Value::Nil);
    }
    assert_eq!((log.count("no connection to the greylist store"), log.count("answers again")), (1, 1));
}
