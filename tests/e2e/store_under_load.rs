//! A Redis with Sentinels, TLS and a user of its own while mail comes: failover, flush, no memory. The mail flows,
//! and the books agree.

use std::fs;
use std::net::SocketAddr;
use std::thread;

use torwart_tests::{Certificate, Fleet, PolicyFile, RedisSentinels, Upstream, address, eventually};

use crate::book::{Book, send};

const SENDERS: usize = 4;
const ATTEMPTS: u64 = 150;

/// What docs/failure-contract.md gives as enough.
const ACL: &str = "user torwart on >secret ~tw* -@all +ping +role +info +client|setname +select +cluster|slots \
                   +asking +evalsha +script|load +get +set +unlink +time";

fn failures(fleet: &Fleet, kind: &str) -> f64 {
    let count = |labels: &[(&str, &str)]| -> f64 {
        fleet.verdicts.iter().map(|part| part.metrics().sum("torwart_store_failures_total", labels)).sum()
    };
    if kind.is_empty() { count(&[]) } else { count(&[("kind", kind)]) }
}

#[test]
fn mail_flows_through_failover_flush_and_want_of_memory_under_load() {
    let upstream = Upstream::start();
    let certificate = Certificate::new(&[&address().to_string()]);
    let mut redis = RedisSentinels::builder().tls(&certificate).config(ACL).start();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}");
    let fleet = Fleet::builder(&redis.url("mymaster"))
        .verdict_flag("--store-ca", certificate.cert.display())
        .verdict_flag("--store-username", "torwart")
        .verdict_flag("--store-password-file", password.display())
        // A time limit that a busy machine keeps.
        .verdict_flag("--store-timeout", "500ms")
        .start(&policy.text());
    let edges: Vec<SocketAddr> = fleet.edges.iter().map(|edge| edge.listen).collect();
    let book = Book::default();
    thread::scope(|scope| {
        for first in 0..SENDERS {
            let (book, edges) = (&book, &edges);
            scope.spawn(move || send(book, edges, first));
        }
        let _closed = book.closing();
        disturb(&fleet, &mut redis, &book);
    });
    let replies = book.replies();
    assert!(replies.keys().all(|reply| reply == "250 2.0.0" || reply == "450 4.2.0"), "{replies:?}");
    book.balance(&upstream.received());
}

/// New mail is greylisted.
#[track_caller]
fn is_back(book: &Book) {
    let before = book.heard("450 4.2.0");
    eventually("greylisting is back", || book.heard("450 4.2.0") > before + 20);
}

fn disturb(fleet: &Fleet, redis: &mut RedisSentinels, book: &Book) {
    let under_way = |what: &str| book.wait_attempts(what, ATTEMPTS);
    under_way("all is well");
    assert_eq!(failures(fleet, ""), 0.0);

    redis.primary().cli(&["FLUSHALL"]);
    under_way("Redis is flushed");
    is_back(book);
    assert_eq!(failures(fleet, ""), 0.0, "a flush is no failure");

    redis.primary().cli(&["CONFIG", "SET", "maxmemory", "1"]);
    under_way("Redis has no memory");
    redis.primary().cli(&["CONFIG", "SET", "maxmemory", "0"]);
    is_back(book);
    assert!(failures(fleet, "oom") > 0.0);

    let (first, second) = (redis.primary().address(), redis.replica().address());
    redis.primary().signal("STOP");
    under_way("the primary hangs");
    redis.wait_current(second);
    is_back(book);
    redis.primary().signal("CONT");
    assert!(failures(fleet, "timeout") > 0.0);

    let before = failures(fleet, "disconnected");
    // The Sentinels cut all its connections when they tell it whom to follow.
    let follows = || redis.primary().try_cli(&["INFO", "replication"]).text.contains("master_link_status:up");
    eventually("the old primary follows the new one", follows);
    redis.replica().kill();
    under_way("the new primary is killed");
    redis.wait_current(first);
    is_back(book);
    assert!(failures(fleet, "disconnected") > before);
}
