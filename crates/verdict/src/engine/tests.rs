use std::sync::atomic::Ordering;

use tokio::time::Instant;
use torwart_core::{Greylist, RecipientVerdict};
use torwart_policy::RangeTable;
use torwart_policy::model::{Enforcement, GreylistMode, Range, RangeAction};

use super::*;
use crate::clock::ManualClock;
use crate::store::{MemoryStore, Stats};
use crate::testing::*;

struct Setup {
    engine: Engine,
    clock: Arc<ManualClock>,
    registry: Registry,
}

async fn mk_engine_over(store: impl FnOnce(Arc<ManualClock>) -> Arc<dyn Store>) -> Setup {
    let clock = Arc::new(ManualClock::new(START));
    let registry = Registry::new();
    let options = Options {
        store: store(clock.clone()),
        clock: clock.clone(),
        key_files: Vec::new(),
        store_timeout: DEFAULT_STORE_TIMEOUT,
        own_addresses: Vec::new(),
        messages: MessageLimits::default(),
        checks: CheckOptions::default(),
    };
    let engine = Engine::start(options, &registry).await.unwrap();
    Setup { engine, clock, registry }
}

async fn mk_engine(policy: Arc<Policy>) -> Setup {
    let setup = mk_engine_over(|clock| Arc::new(MemoryStore::new(10_000, clock))).await;
    setup.engine.set_policy(policy);
    setup
}

impl Setup {
    async fn ask_all(&self, client: &str, sender: &str, recipients: &[&str]) -> Vec<RecipientVerdict> {
        let question = mk_question(client, sender, recipients);
        self.engine.check_recipients(question).await.unwrap().recipients
    }

    async fn ask(&self, client: &str, sender: &str, recipient: &str) -> Option<Greylist> {
        self.ask_all(client, sender, &[recipient]).await[0].greylist
    }

    async fn deliver(&self, client: &str, sender: &str, recipient: &str, result: DeliveryResult, score: f32) {
        let delivery = Delivery { score, ..mk_delivery(client, sender, &[recipient], result) };
        self.engine.report_delivery(delivery).await;
    }

    fn metric(&self, series: &str) -> Option<String> {
        metric(&self.registry, series)
    }
}

#[tokio::test]
async fn before_the_first_policy_there_is_no_verdict() {
    let setup = mk_engine_over(|clock| Arc::new(MemoryStore::new(100, clock))).await;
    assert!(setup.engine.check_connection(ConnectionQuestion { peer: mk_peer(CLIENT) }).await.is_err());
    let question = mk_question(CLIENT, ANNA, &[BOB]);
    assert!(setup.engine.check_recipients(question).await.is_err());
    assert!(setup.engine.route(RouteDigest([1; 16])).await.is_err());
    assert!(setup.engine.policy().is_none());
    setup.deliver(CLIENT, ANNA, BOB, DeliveryResult::Delivered, 0.0).await;
}

#[tokio::test]
async fn a_new_sender_waits_and_then_passes_with_its_route() {
    let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
    let first = &setup.ask_all(CLIENT, ANNA, &[BOB]).await[0];
    let reply = first.reply.clone().unwrap();
    assert_eq!((first.action, reply.code, reply.enhanced), (Action::Defer, 450, (4, 2, 0)));
    assert!(reply.text.contains("300 seconds"), "{reply}");
    setup.clock.advance(100);
    let early = &setup.ask_all(CLIENT, ANNA, &[BOB]).await[0];
    assert!(early.reply.clone().unwrap().text.contains("200 seconds"));
    setup.clock.advance(200);
    let passed = &setup.ask_all(NEIGHBOUR, "Anna+tag@SENDER.example", &["BOB@Example.Org"]).await[0];
    assert_eq!((passed.action, passed.greylist), (Action::Accept, Some(Greylist::Passed)));
    assert_eq!(passed.route, Some(RouteDigest([1; 16])));
    assert_eq!(setup.engine.route(RouteDigest([1; 16])).await.unwrap().digest, RouteDigest([1; 16]));
    assert_eq!(setup.ask(STRANGER, ANNA, BOB).await, Some(Greylist::New));
    for (series, value) in [
        ("torwart_greylist_total{outcome=\"new\"}", "2"),
        ("torwart_greylist_total{outcome=\"early\"}", "1"),
        ("torwart_greylist_total{outcome=\"passed\"}", "1"),
        ("torwart_greylist_total{outcome=\"auto\"}", "0"),
        ("torwart_greylist_delay_seconds_sum", "300"),
        ("torwart_greylist_delay_seconds_count", "1"),
        (
            "torwart_verdicts_total{action=\"defer\",enforced=\"true\",reason=\"greylisted\",stage=\"recipients\"}",
            "3",
        ),
        ("torwart_verdict_seconds_count{stage=\"recipients\"}", "4"),
        ("torwart_store_seconds_count{op=\"check\"}", "4"),
        ("torwart_policy_info{revision=\"r1\"}", "1"),
    ] {
        assert_eq!(setup.metric(series).as_deref(), Some(value), "{series}");
    }
}

#[tokio::test]
async fn only_delivered_mail_with_a_good_score_makes_a_sender_known() {
    for (result, score, outcome) in [
        (DeliveryResult::Delivered, 0.0, Greylist::Known),
        (DeliveryResult::Delivered, 4.0, Greylist::New),
        (DeliveryResult::Deferred, 0.0, Greylist::New),
        (DeliveryResult::Rejected, 0.0, Greylist::New),
    ] {
        let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
        setup.deliver(CLIENT, ANNA, BOB, result, score).await;
        assert_eq!(setup.ask(NEIGHBOUR, ANNA, "carl@example.org").await, Some(outcome), "{result:?} {score}");
        assert_eq!(setup.ask(NEIGHBOUR, "eve@sender.example", "carl@example.org").await, Some(Greylist::New));
    }
}

#[tokio::test]
async fn trust_can_be_taken_back() {
    let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
    for sender in ["a@sender.example", "b@sender.example", ANNA] {
        setup.deliver(CLIENT, sender, BOB, DeliveryResult::Delivered, 0.0).await;
        setup.clock.advance(HOUR);
    }
    assert_eq!(setup.ask(CLIENT, ANNA, "carl@example.org").await, Some(Greylist::Known));
    assert_eq!(setup.ask(CLIENT, "new@elsewhere.example", BOB).await, Some(Greylist::Auto));
    setup.engine.revoke_trust(&mk_peer(CLIENT), &mk_envelope(ANNA), &[mk_mailbox(BOB)]).await;
    assert_eq!(setup.ask(CLIENT, ANNA, "carl@example.org").await, Some(Greylist::New));
    assert_eq!(setup.ask(CLIENT, "other@elsewhere.example", BOB).await, Some(Greylist::New));
}

#[tokio::test]
async fn a_bounce_is_deferred_at_data_and_passes_once_from_any_server_of_its_domain() {
    let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
    let first = &setup.ask_all(CLIENT, "", &[BOB]).await[0];
    assert_eq!((first.action, first.greylist), (Action::Accept, Some(Greylist::New)));
    assert_eq!(first.refuse_data.as_ref().map(|reply| reply.code), Some(450));
    setup.clock.advance(300);
    let second = &setup.ask_all(STRANGER, "", &[BOB]).await[0];
    assert_eq!((second.greylist, second.refuse_data.clone()), (Some(Greylist::Passed), None));
    setup.deliver(STRANGER, "", BOB, DeliveryResult::Deferred, 0.0).await;
    assert_eq!(setup.ask(STRANGER, "", BOB).await, Some(Greylist::Passed));
    setup.deliver(STRANGER, "", BOB, DeliveryResult::Delivered, 0.0).await;
    assert_eq!(setup.ask(STRANGER, "", BOB).await, Some(Greylist::New));
}

#[tokio::test]
async fn what_was_delivered_in_mode_off_or_monitor_does_not_wait_after_the_switch() {
    for before in [
        mk_policy("off", 1, |domain, _| domain.greylisting.mode = GreylistMode::Off),
        mk_policy("monitor", 1, |domain, _| domain.enforcement = Enforcement::Monitor),
    ] {
        let setup = mk_engine(before).await;
        assert_eq!(setup.ask_all(CLIENT, ANNA, &[BOB]).await[0].action, Action::Accept);
        setup.deliver(CLIENT, ANNA, BOB, DeliveryResult::Delivered, 0.0).await;
        setup
            .engine
            .set_policy(mk_policy("always", 1, |domain, _| domain.greylisting.mode = GreylistMode::Always));
        assert_eq!(setup.ask(CLIENT, ANNA, BOB).await, Some(Greylist::Passed));
    }
}

#[tokio::test]
async fn monitor_lets_pass_counts_and_learns() {
    let setup = mk_engine(mk_policy("r1", 1, |domain, _| domain.enforcement = Enforcement::Monitor)).await;
    let first = &setup.ask_all(CLIENT, ANNA, &[BOB]).await[0];
    assert_eq!((first.action, first.greylist), (Action::Accept, Some(Greylist::New)));
    assert_eq!(
        first.monitored,
        Some(torwart_core::Monitored { action: Action::Defer, reason: Reason::Greylisted })
    );
    setup.clock.advance(300);
    assert_eq!(setup.ask(CLIENT, ANNA, BOB).await, Some(Greylist::Passed));
    let series = "torwart_verdicts_total{action=\"defer\",enforced=\"false\",reason=\"greylisted\",stage=\"recipients\"}";
    assert_eq!(setup.metric(series).as_deref(), Some("1"));
}

#[tokio::test]
async fn a_gateway_that_sees_only_its_load_balancer_learns_nothing() {
    let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
    assert_eq!(setup.ask("10.0.0.9", ANNA, BOB).await, Some(Greylist::Exempt));
    setup.deliver("10.0.0.9", ANNA, BOB, DeliveryResult::Delivered, 0.0).await;
    assert_eq!(setup.engine.store().stats().await.unwrap(), Stats::default());
    assert_eq!(setup.metric("torwart_client_address_suspect_total").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_rejected_network_hears_so_at_the_banner() {
    let range = Range {
        name: "bad".into(),
        action: RangeAction::Reject,
        priority: 0,
        expires: None,
        tls: None,
        hidden: Vec::new(),
        dns_lists: None,
        greylisting: None,
    };
    let policy = mk_policy("r1", 1, |_, gateway| {
        gateway.ranges = RangeTable::new([(range, vec!["192.0.2.0/24".parse().unwrap()])]);
    });
    let setup = mk_engine(policy).await;
    let ask = async |client| {
        let question = ConnectionQuestion { peer: mk_peer(client) };
        setup.engine.check_connection(question).await.unwrap().refuse.map(|(reply, _)| reply.code)
    };
    assert_eq!(ask(CLIENT).await, Some(554));
    assert_eq!(ask(STRANGER).await, None);
    for (action, reason) in [("reject", "ip_range"), ("accept", "accepted")] {
        let series = format!(
            "torwart_verdicts_total{{action=\"{action}\",enforced=\"true\",reason=\"{reason}\",stage=\"connection\"}}"
        );
        assert_eq!(setup.metric(&series).as_deref(), Some("1"), "{series}");
    }
}

#[tokio::test]
async fn a_route_can_be_fetched_while_sessions_that_know_it_last() {
    let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
    setup.engine.set_policy(mk_policy("r2", 2, |_, _| {}));
    let has = async |n| setup.engine.route(RouteDigest([n; 16])).await.is_ok();
    assert!(has(1).await && has(2).await && !has(3).await);
    setup.clock.advance(3 * HOUR);
    setup.engine.set_policy(mk_policy("r3", 3, |_, _| {}));
    assert!(!has(1).await && has(2).await && has(3).await);
    assert_eq!(setup.metric("torwart_policy_info{revision=\"r1\"}"), None);
    assert_eq!(setup.metric("torwart_policy_info{revision=\"r3\"}").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_dead_store_passes_mail_or_defers_it_and_holds_nobody_up() {
    for hangs in [false, true] {
        let store = mk_broken(hangs);
        let setup = mk_engine_over(|_| store).await;
        setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
        let verdict = &setup.ask_all(CLIENT, ANNA, &[BOB]).await[0];
        assert_eq!((verdict.action, verdict.greylist), (Action::Accept, Some(Greylist::StoreFailure)));
        setup
            .engine
            .set_policy(mk_policy("r2", 1, |domain, _| domain.greylisting.accept_on_store_failure = false));
        let verdict = &setup.ask_all(CLIENT, ANNA, &[BOB]).await[0];
        assert_eq!((verdict.action, verdict.greylist), (Action::Defer, Some(Greylist::StoreFailure)));
        setup.deliver(CLIENT, ANNA, BOB, DeliveryResult::Delivered, 0.0).await;
        let kind = if hangs { "timeout" } else { "io" };
        let series = format!("torwart_store_failures_total{{kind=\"{kind}\"}}");
        assert_eq!(setup.metric(&series).as_deref(), Some("3"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_store_costs_a_question_its_time_limit_once_however_many_domains_it_names() {
    let setup = mk_engine_over(|_| mk_broken(true)).await;
    let names: Vec<String> = (0..60).map(|n| format!("d{n}.example")).collect();
    let policy = mk_policy_of("r1", &names.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    setup.engine.set_policy(policy);
    let recipients: Vec<String> = names.iter().map(|name| format!("u@{name}")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let asked = Instant::now();
    let verdicts = setup.ask_all(CLIENT, ANNA, &recipients).await;
    assert!(asked.elapsed() <= 2 * DEFAULT_STORE_TIMEOUT, "{:?}", asked.elapsed());
    assert_eq!(verdicts.len(), 60);
    assert!(verdicts.iter().all(|verdict| verdict.greylist == Some(Greylist::StoreFailure)));
    let time_outs = || setup.metric("torwart_store_failures_total{kind=\"timeout\"}");
    assert_eq!(time_outs().as_deref(), Some("60"));
    for (sender, result) in [(ANNA, DeliveryResult::Delivered), ("", DeliveryResult::Rejected)] {
        let asked = Instant::now();
        setup.engine.report_delivery(mk_delivery(CLIENT, sender, &recipients, result)).await;
        assert!(asked.elapsed() <= 2 * DEFAULT_STORE_TIMEOUT, "{result:?} {:?}", asked.elapsed());
    }
    let asked = Instant::now();
    let mailboxes: Vec<_> = recipients.iter().map(|text| mk_mailbox(text)).collect();
    setup.engine.revoke_trust(&mk_peer(CLIENT), &mk_envelope(ANNA), &mailboxes).await;
    assert!(asked.elapsed() <= 2 * DEFAULT_STORE_TIMEOUT, "{:?}", asked.elapsed());
    assert_eq!(time_outs().as_deref(), Some("240"));
}

#[tokio::test(start_paused = true)]
async fn a_network_that_asks_too_much_at_once_is_let_past_only_if_the_store_answers_nobody() {
    for (slow, third_hears, busy, timeout) in [(0, Action::Accept, "0", "4"), (80, Action::Defer, "1", "0")] {
        let store = mk_broken(true);
        store.slow.store(slow, Ordering::Relaxed);
        let setup = mk_engine_over(|_| store).await;
        setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
        let recipients: Vec<String> = (0..100).map(|n| format!("u{n}@example.org")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let burst = async |client| setup.ask_all(client, ANNA, &recipients).await[0].action;
        let burst = |client| burst(client);
        let (one, two, third, stranger) =
            tokio::join!(burst(CLIENT), burst(NEIGHBOUR), burst(CLIENT), burst(STRANGER));
        // Two of one network are in the store's hands and let pass when it has no word; the third has waited.
        assert_eq!(
            [one, two, third, stranger],
            [Action::Accept, Action::Accept, third_hears, Action::Accept]
        );
        for (kind, count) in [("busy", busy), ("timeout", timeout)] {
            let series = format!("torwart_store_failures_total{{kind=\"{kind}\"}}");
            assert_eq!(setup.metric(&series).as_deref(), Some(count), "{slow} {kind}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_store_that_answers_is_counted_once() {
    let store = mk_broken(false);
    let setup = mk_engine_over(|_| Arc::clone(&store) as Arc<dyn Store>).await;
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    store.faults.store(1, Ordering::Relaxed);
    setup.ask(CLIENT, ANNA, BOB).await;
    setup.ask(CLIENT, ANNA, BOB).await;
    assert_eq!(setup.metric("torwart_store_failures_total{kind=\"file_gone\"}").as_deref(), Some("1"));
}

#[tokio::test]
async fn all_that_one_call_found_wrong_is_counted_with_it() {
    let store = mk_broken(false);
    let setup = mk_engine_over(|_| Arc::clone(&store) as Arc<dyn Store>).await;
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    store.faults.store(3, Ordering::Relaxed);
    setup.ask(CLIENT, ANNA, BOB).await;
    assert_eq!(setup.metric("torwart_store_failures_total{kind=\"file_gone\"}").as_deref(), Some("3"));
}

#[tokio::test]
async fn calls_are_counted_while_they_are_answered() {
    let setup = mk_engine_over(|_| mk_broken(true)).await;
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    let in_flight = || setup.metric("torwart_verdict_calls_in_flight");
    assert_eq!(in_flight().as_deref(), Some("0"));
    {
        let mut question = Box::pin(setup.ask(CLIENT, ANNA, BOB));
        let started = tokio::time::timeout(Duration::ZERO, &mut question).await;
        assert!(started.is_err());
        assert_eq!(in_flight().as_deref(), Some("1"));
    }
    assert_eq!(in_flight().as_deref(), Some("0"), "given up");
}

#[tokio::test]
async fn of_many_sessions_with_one_bounce_one_passes_and_another_if_that_one_fails() {
    let setup = mk_engine(mk_policy("r1", 1, |_, _| {})).await;
    setup.ask(CLIENT, "", BOB).await;
    setup.clock.advance(300);
    let passing = async || {
        let mut passing = 0;
        for _ in 0..20 {
            passing += u32::from(setup.ask_all(CLIENT, "", &[BOB]).await[0].refuse_data.is_none());
        }
        passing
    };
    assert_eq!(passing().await, 1);
    for result in [DeliveryResult::Deferred, DeliveryResult::Rejected] {
        setup.deliver(CLIENT, "", BOB, result, 0.0).await;
        assert_eq!(passing().await, 1, "{result:?}");
    }
    setup.deliver(CLIENT, "", BOB, DeliveryResult::Delivered, 0.0).await;
    assert_eq!(passing().await, 0);
}

#[tokio::test]
async fn key_files_are_read_and_every_bad_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let old = file("old.key", "0123456789abcdef0123456789abcdef\n");
    let new = file("new.key", "fedcba9876543210fedcba9876543210\n");
    let short = file("short.key", "secret\n");
    let start = async |clock: &Arc<ManualClock>, store: &Arc<dyn Store>, files: &[&PathBuf]| {
        let options = Options {
            store: Arc::clone(store),
            clock: clock.clone(),
            key_files: files.iter().map(|path| (*path).clone()).collect(),
            store_timeout: DEFAULT_STORE_TIMEOUT,
            own_addresses: Vec::new(),
            messages: MessageLimits::default(),
            checks: CheckOptions::default(),
        };
        let registry = Registry::new();
        let engine = Engine::start(options, &registry).await?;
        engine.set_policy(mk_policy("r1", 1, |_, _| {}));
        Ok::<_, StartError>(Setup { engine, clock: clock.clone(), registry })
    };
    let clock = Arc::new(ManualClock::new(START));
    let store: Arc<dyn Store> = Arc::new(
        crate::store::RedbStore::open(
            &folder.path().join("greylist.redb"),
            clock.clone(),
            crate::store::RedbOptions::default(),
        )
        .unwrap(),
    );
    let error =
        start(&clock, &store, &[&short, &folder.path().join("none.key")]).await.err().unwrap().to_string();
    assert!(
        error.contains("short.key: holds 6 bytes") && error.contains("none.key: No such file"),
        "{error}"
    );
    let first = start(&clock, &store, &[&old]).await.unwrap();
    assert_eq!(first.ask(CLIENT, ANNA, BOB).await, Some(Greylist::New));
    clock.advance(300);
    assert_eq!(
        start(&clock, &store, &[&new]).await.unwrap().ask(CLIENT, ANNA, BOB).await,
        Some(Greylist::New)
    );
    let second = start(&clock, &store, &[&new, &old]).await.unwrap();
    assert_eq!(second.ask(CLIENT, ANNA, BOB).await, Some(Greylist::Passed));
}
