//! A Redis that is gone, hangs or refuses: mail goes on as `onStoreFailure` says, it is counted, nobody is less ready,
//! and greylisting is back with the store.

use std::fs;

use torwart_tests::{Fleet, FleetBuilder, Part, PolicyFile, RedisServer, Reply, Upstream, eventually};

const GREYLISTED: &str = "{mode: Always, delay: 1h}";

/// Senders that are met while the store is gone: enough for each verdict's breaker to open.
const SENDERS: usize = 30;

/// With a time limit that a busy machine keeps.
fn fleet(store: &RedisServer) -> FleetBuilder {
    Fleet::builder(&store.url()).verdicts(2).verdict_flag("--store-timeout", "500ms")
}

fn rcpt(fleet: &Fleet, sender: &str) -> Reply {
    let mut client = fleet.client();
    client.ask(250, format!("MAIL FROM:<{sender}@sender.example>"));
    client.command("RCPT TO:<bert@example.org>")
}

/// What each of many new senders hears.
fn heard(fleet: &Fleet, name: &str) -> Vec<u16> {
    (0..SENDERS).map(|n| rcpt(fleet, &format!("{name}{n}")).code).collect()
}

fn failures(fleet: &Fleet, kind: &str) -> f64 {
    let of = |labels: &[(&str, &str)]| -> f64 {
        fleet.verdicts.iter().map(|part| part.metrics().sum("torwart_store_failures_total", labels)).sum()
    };
    of(&[("kind", kind)])
}

#[track_caller]
fn all_are_ready(fleet: &Fleet) {
    for part in fleet.parts() {
        let (status, text) = part.get("/readyz");
        assert_eq!(status, 200, "{text}");
    }
}

/// New senders wait again, whichever verdict is asked, and are remembered.
#[track_caller]
fn greylisting_is_back(fleet: &Fleet) {
    let deferred = |part: &Part| part.metrics().sum("torwart_greylist_total", &[("outcome", "new")]);
    let before: Vec<f64> = fleet.verdicts.iter().map(deferred).collect();
    let mut n = 0;
    // Each verdict comes back by itself.
    eventually("greylisting is back", || {
        n += 1;
        rcpt(fleet, &format!("back{n}"));
        fleet.verdicts.iter().zip(&before).all(|(verdict, before)| deferred(verdict) > *before)
    });
    for _ in 0..4 {
        assert_eq!(rcpt(fleet, "remembered").code, 450, "an hour has not passed");
    }
}

fn mail_flows_meanwhile(fleet: &Fleet, kinds: &[&str]) {
    assert_eq!(heard(fleet, "meanwhile"), [250; SENDERS]);
    for kind in kinds {
        // The first questions may still meet the lost connection, whatever the next one will hear.
        eventually(kind, || {
            assert_eq!(rcpt(fleet, "meanwhile").code, 250);
            failures(fleet, kind) > 0.0
        });
    }
    let outcomes = fleet
        .verdicts
        .iter()
        .map(|verdict| verdict.metrics().sum("torwart_greylist_total", &[("outcome", "store_failure")]));
    assert!(outcomes.sum::<f64>() >= SENDERS as f64);
    all_are_ready(fleet);
}

#[test]
fn mail_flows_while_redis_is_killed_and_greylisting_is_back_with_it() {
    let upstream = Upstream::start();
    let mut redis = RedisServer::start();
    let fleet = fleet(&redis).start(&PolicyFile::to(upstream.endpoint).greylisting(GREYLISTED).text());
    greylisting_is_back(&fleet);
    redis.kill();
    mail_flows_meanwhile(&fleet, &["disconnected"]);
    redis.start_again();
    greylisting_is_back(&fleet);
}

#[test]
fn mail_flows_while_redis_is_stopped_and_greylisting_is_back_with_it() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let fleet = fleet(&redis).start(&PolicyFile::to(upstream.endpoint).greylisting(GREYLISTED).text());
    greylisting_is_back(&fleet);
    redis.signal("STOP");
    mail_flows_meanwhile(&fleet, &["timeout", "breaker_open"]);
    redis.signal("CONT");
    greylisting_is_back(&fleet);
}

#[test]
fn mail_flows_while_the_password_is_wrong_and_greylisting_is_back_with_the_right_one() {
    let upstream = Upstream::start();
    let redis = RedisServer::builder().acl("user torwart on >open-sesame-1 ~tw* &* +@all").start();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "open-sesame-1\n").unwrap();
    let fleet = fleet(&redis)
        .verdict_flag("--store-username", "torwart")
        .verdict_flag("--store-password-file", password.display())
        .start(&PolicyFile::to(upstream.endpoint).greylisting(GREYLISTED).text());
    greylisting_is_back(&fleet);
    redis.cli(&["ACL", "SETUSER", "torwart", "resetpass", ">open-sesame-2"]);
    redis.cli(&["CLIENT", "KILL", "USER", "torwart"]);
    mail_flows_meanwhile(&fleet, &["auth"]);
    let lines = fleet.lines().all().join("\n");
    assert!(lines.contains("--store-password-file"), "what to mend is said: {lines}");
    assert!(!lines.contains("open-sesame"), "the password is said: {lines}");
    fs::write(&password, "open-sesame-2\n").unwrap();
    greylisting_is_back(&fleet);
}

#[test]
fn mail_flows_when_redis_is_gone_at_the_start() {
    let upstream = Upstream::start();
    let mut redis = RedisServer::start();
    redis.kill();
    let fleet = fleet(&redis).start(&PolicyFile::to(upstream.endpoint).greylisting(GREYLISTED).text());
    mail_flows_meanwhile(&fleet, &["disconnected"]);
    redis.start_again();
    greylisting_is_back(&fleet);
}

#[test]
fn a_domain_that_wants_it_defers_while_redis_is_gone() {
    let upstream = Upstream::start();
    let mut redis = RedisServer::start();
    let policy = PolicyFile::to(upstream.endpoint)
        .greylisting("{mode: Always, delay: 1h, onStoreFailure: Defer}")
        .also("open.example", upstream.endpoint);
    let fleet = fleet(&redis).start(&policy.text());
    greylisting_is_back(&fleet);
    redis.kill();
    let reply = rcpt(&fleet, "meanwhile");
    assert_eq!((reply.code, reply.enhanced()), (451, "4.3.0"), "{reply}");
    assert_eq!(heard(&fleet, "meanwhile"), [451; SENDERS]);
    let mut client = fleet.client();
    let other = client.mail("anna@sender.example", &["bert@open.example"], b"\r\n");
    assert_eq!(other.code, 250, "a domain without greylisting asks no store: {other}");
    all_are_ready(&fleet);
    redis.start_again();
    greylisting_is_back(&fleet);
}

#[test]
fn after_a_flush_who_had_passed_waits_once_more_at_most() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}");
    let fleet = fleet(&redis).start(&policy.text());
    eventually("it passes", || rcpt(&fleet, "anna").code == 250);
    redis.cli(&["FLUSHALL"]);
    // Whatever each verdict still knows by itself: never a refusal, and it passes again.
    eventually("it passes again", || {
        let reply = rcpt(&fleet, "anna");
        assert!(matches!(reply.code, 250 | 450), "{reply}");
        reply.code == 250 && redis.cli(&["DBSIZE"]) != "0"
    });
}
