//! Two edges, three verdicts and a Redis Cluster, each a process, under load while one after the other is killed,
//! stopped and started. Whatever falls: 250 is one message upstream, everything else is a 4xx, and what was deferred
//! is delivered in the end.

use std::net::SocketAddr;
use std::thread;

use torwart_tests::{Client, Fleet, PATIENCE, Part, PolicyFile, RedisCluster, Upstream, eventually};

use crate::book::{Book, send};

const SENDERS: usize = 8;

/// What a phase must see before the next one: enough that every sender has met what is broken.
const ATTEMPTS: u64 = 150;

fn store_failures(fleet: &Fleet) -> f64 {
    let running = |part: &&Part| Client::try_connect(part.admin, None).is_ok();
    let verdicts = fleet.verdicts.iter().filter(running);
    verdicts.map(|verdict| verdict.metrics().sum("torwart_store_failures_total", &[])).sum()
}

#[test]
fn every_250_is_one_message_upstream_whichever_process_falls() {
    let upstream = Upstream::start();
    let mut redis = RedisCluster::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}");
    // A time limit that a busy machine keeps.
    let fleet = Fleet::builder(&redis.url()).edges(2).verdict_flag("--store-timeout", "500ms");
    let mut fleet = fleet.start(&policy.text());
    let edges: Vec<SocketAddr> = fleet.edges.iter().map(|edge| edge.listen).collect();
    let book = Book::default();
    thread::scope(|scope| {
        for first in 0..SENDERS {
            let (book, edges) = (&book, &edges);
            scope.spawn(move || send(book, edges, first));
        }
        // A panic here must not leave the senders running.
        let _closed = book.closing();
        disturb(&mut fleet, &mut redis, &book);
    });
    book.balance(&upstream.received());

    let text = fleet.lines().all().join("\n");
    assert!(!text.contains("panicked"), "{text}");
    // All is as it was: a new sender waits, and passes. Each verdict looks for each node again by itself.
    let mail = |sender: u32| {
        let from = format!("new{sender}@sender.example");
        fleet.client().mail(&from, &["bert@example.org"], b"\r\n").code
    };
    let mut sender = 0;
    eventually("a new sender waits", || {
        sender += 1;
        mail(sender) == 450
    });
    eventually("it passes", || mail(sender) == 250);
}

/// One after the other, each with its return.
fn disturb(fleet: &mut Fleet, redis: &mut RedisCluster, book: &Book) {
    let under_way = |what: &str| book.wait_attempts(what, ATTEMPTS);
    under_way("all is well");

    fleet.verdicts[0].kill();
    under_way("a verdict is killed");
    fleet.verdicts[0].start_again();

    fleet.verdicts[1].signal("STOP");
    under_way("a verdict is stopped");
    fleet.verdicts[1].signal("CONT");

    fleet.verdicts[2].signal("TERM");
    under_way("a verdict ends in order");
    assert!(fleet.verdicts[2].process().wait(PATIENCE).success());
    fleet.verdicts[2].start_again();

    fleet.edges[0].kill();
    under_way("an edge is killed");
    fleet.edges[0].start_again();

    fleet.edges[1].signal("STOP");
    under_way("an edge is stopped");
    fleet.edges[1].signal("CONT");

    fleet.edges[0].signal("TERM");
    under_way("an edge ends in order");
    assert!(fleet.edges[0].process().wait(PATIENCE).success());
    fleet.edges[0].start_again();

    let before = store_failures(fleet);
    redis.nodes_mut()[0].kill();
    under_way("a Redis is killed");
    redis.nodes_mut()[0].start_again();
    redis.wait_ok();
    assert!(store_failures(fleet) > before, "no failure of the store was counted");

    redis.nodes_mut()[1].signal("STOP");
    under_way("a Redis is stopped");
    redis.nodes_mut()[1].signal("CONT");
    redis.wait_ok();

    let before = book.heard("451 4.3.5");
    fleet.verdicts.iter_mut().for_each(Part::kill);
    under_way("every verdict is killed");
    assert!(book.heard("451 4.3.5") > before, "a lost verdict is 451 4.3.5; there were {:?}", book.replies());
    fleet.verdicts.iter_mut().for_each(Part::launch_again);
    fleet.verdicts.iter().for_each(Part::wait_ready);

    for node in redis.nodes_mut() {
        node.kill();
    }
    under_way("every Redis is killed");
    for node in redis.nodes_mut() {
        node.start_again();
    }
    redis.wait_ok();

    fleet.edges[1].kill();
    fleet.verdicts[0].kill();
    redis.nodes_mut()[2].kill();
    under_way("one of each is killed");
    redis.nodes_mut()[2].start_again();
    fleet.verdicts[0].start_again();
    fleet.edges[1].start_again();
    redis.wait_ok();
    under_way("all is well again");
}
