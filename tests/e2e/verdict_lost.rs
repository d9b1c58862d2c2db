//! Verdicts that are gone, hang, end or have no policy: the banner is 220, a recipient hears 451 4.3.5 and nothing
//! worse, and as long as one of them serves, nobody hears anything of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use torwart_tests::{
    Client, Fleet, Metrics, PATIENCE, Part, PolicyFile, RedisServer, Reply, Upstream, eventually,
};

fn mail(fleet: &Fleet) -> Reply {
    fleet.client().mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n")
}

fn client_failures(fleet: &Fleet, kind: &str) -> f64 {
    fleet.edges[0].metrics().sum("torwart_verdict_client_failures_total", &[("kind", kind)])
}

#[track_caller]
fn is_lost(fleet: &Fleet) {
    // `client` expects the 220.
    let mut client = fleet.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    let reply = client.ask(451, "RCPT TO:<bert@example.org>");
    assert_eq!(reply.enhanced(), "4.3.5", "{reply}");
    client.ask(250, "RSET");
    client.ask(221, "QUIT");
}

#[test]
fn without_any_verdict_the_banner_is_220_and_a_recipient_hears_451() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let mut fleet = Fleet::builder(&redis.url()).start(&PolicyFile::to(upstream.endpoint).text());
    assert_eq!(mail(&fleet).code, 250);
    fleet.verdicts.iter_mut().for_each(Part::kill);
    for _ in 0..5 {
        is_lost(&fleet);
    }
    let line = fleet.edges[0].lines().wait("the transaction", |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["event"] == "transaction" && line["action"] == "defer").then_some(line)
    });
    assert_eq!(line["recipients"][0]["reason"], "verdict_unavailable", "{line}");
    assert!(client_failures(&fleet, "connect") > 0.0, "{}", fleet.edges[0].metrics().text());
    assert_eq!(fleet.edges[0].get("/readyz").0, 200, "no dependency makes an edge less ready");
    assert_eq!(upstream.received().len(), 1);
    fleet.verdicts[0].start_again();
    eventually("mail flows again", || mail(&fleet).code == 250);
}

#[test]
fn a_verdict_without_a_policy_is_not_ready_and_its_questions_are_451_until_there_is_one() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let good = PolicyFile::to(upstream.endpoint).text();
    let fleet = Fleet::builder(&redis.url()).verdicts(1).launch("kind: [");
    fleet.edges[0].wait_ready();
    let verdict = &fleet.verdicts[0];
    eventually("its admin port answers", || Client::try_connect(verdict.admin, None).is_ok());
    assert_eq!(verdict.get("/healthz").0, 200);
    assert_eq!(verdict.get("/readyz").0, 503);
    is_lost(&fleet);
    assert!(client_failures(&fleet, "refused") > 0.0, "{}", fleet.edges[0].metrics().text());
    fleet.replace_policy(&good);
    verdict.wait_ready();
    eventually("mail flows", || mail(&fleet).code == 250);
    assert_eq!(verdict.get("/readyz").0, 200);
}

/// Mails from several senders without a pause; each must hear 250.
fn load(fleet: &Fleet, during: impl FnOnce(&AtomicU64)) {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let edge = fleet.edges[0].listen;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::greeted(edge);
                    let reply = client.mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n");
                    if reply.code != 250 {
                        stop.store(true, Ordering::Relaxed);
                        panic!("a sender heard {reply}");
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        during(&done);
        stop.store(true, Ordering::Relaxed);
    });
}

fn wait_for_more(done: &AtomicU64, count: u64) {
    let wanted = done.load(Ordering::Relaxed) + count;
    eventually("more mail is through", || done.load(Ordering::Relaxed) >= wanted);
}

#[test]
fn a_verdict_that_ends_in_order_under_load_is_noticed_by_nobody() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let policy = PolicyFile::to(upstream.endpoint);
    let mut fleet = Fleet::builder(&redis.url()).start(&policy.text());
    let mut verdicts = std::mem::take(&mut fleet.verdicts);
    load(&fleet, |done| {
        for verdict in &mut verdicts {
            wait_for_more(done, 100);
            verdict.signal("TERM");
            assert!(verdict.process().wait(PATIENCE).success());
            wait_for_more(done, 100);
            verdict.start_again();
            let asked = |metrics: &Metrics| metrics.sum("torwart_verdicts_total", &[]) > 0.0;
            verdict.wait_metrics("it is asked again", asked);
        }
    });
}

#[test]
fn a_verdict_that_hangs_is_left_out() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let fleet = Fleet::builder(&redis.url()).start(&PolicyFile::to(upstream.endpoint).text());
    assert_eq!(mail(&fleet).code, 250);
    fleet.verdicts[1].signal("STOP");
    let codes = |reply: Reply| {
        assert!(matches!(reply.code, 250 | 451), "{reply}");
        reply.code
    };
    // Some questions run into it; then it is asked once in a while, and the rest goes through.
    let mut row = 0;
    let end = Instant::now() + 2 * PATIENCE;
    while row < 20 {
        row = if codes(mail(&fleet)) == 250 { row + 1 } else { 0 };
        assert!(Instant::now() < end, "it is asked again and again");
    }
    // What hangs may be a report alone, of which no client hears.
    eventually("a time-out is counted", || client_failures(&fleet, "timeout") > 0.0);
    fleet.verdicts[1].signal("CONT");
    eventually("it is asked again", || {
        let asked = || fleet.verdicts[1].metrics().sum("torwart_verdicts_total", &[]);
        let before = asked();
        codes(mail(&fleet));
        asked() > before
    });
}

#[test]
fn every_verdict_hangs_and_each_recipient_hears_451_within_the_clients_patience() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let fleet = Fleet::builder(&redis.url()).start(&PolicyFile::to(upstream.endpoint).text());
    assert_eq!(mail(&fleet).code, 250);
    fleet.verdicts.iter().for_each(|verdict| verdict.signal("STOP"));
    // RFC 5321 section 4.5.3.2.3: a client waits five minutes for the reply to RCPT.
    let mut client = fleet.client();
    client.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let reply = client.mail("anna@sender.example", &["bert@example.org"], b"\r\n");
    assert_eq!((reply.code, reply.enhanced()), (451, "4.3.5"), "{reply}");
    assert!(client_failures(&fleet, "timeout") > 0.0, "{}", fleet.edges[0].metrics().text());
    fleet.verdicts.iter().for_each(|verdict| verdict.signal("CONT"));
    eventually("mail flows again", || mail(&fleet).code == 250);
}
