//! Much at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use torwart_tests::cluster::{Installation, Kind};
use torwart_tests::{Client, Part, Upstream};

/// So many calls to the API server side by side.
const SIDE_BY_SIDE: usize = 16;

/// Calls `act` for each number below `count`.
fn each(count: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    act(n);
                }
            });
        }
    });
}

fn code(edge: &Part, to: &str) -> u16 {
    Client::greeted(edge.listen).mail("anna@sender.example", &[to], b"Subject: x\r\n").code
}

fn last_lines(part: &Part) -> Vec<String> {
    let mut lines = part.lines().all();
    lines.split_off(lines.len().saturating_sub(10))
}

/// Letters that do not compress, the same for the same seed.
fn noise(seed: usize, length: usize) -> String {
    let mut state = u64::try_from(seed).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"abcdefghijklmnopqrstuvwxyz012345"[(state >> 59) as usize])
    };
    (0..length).map(letter).collect()
}

/// Bytes of binaryData in all slots, as they are stored.
fn published_bytes(installation: &Installation) -> usize {
    let slots = installation.api.list(Kind::ConfigMap, &installation.namespace);
    let data = slots.iter().filter_map(|slot| slot["binaryData"].as_object());
    data.flat_map(|data| data.values()).filter_map(Value::as_str).map(str::len).sum()
}

#[test]
fn a_policy_of_more_than_a_mebibyte_is_published_and_followed() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let _operator = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    let manifest = |n: usize| {
        let domain = format!("d{n}.example");
        let mut manifest = installation.domain_manifest(&format!("m{n}"), &[&domain], upstream.endpoint);
        let denied: Vec<Value> = (0..200)
            .map(|k| json!({"pattern": format!("{}@spam.example", noise(n * 1_000 + k, 50))}))
            .collect();
        manifest["spec"]["senders"] = json!({"deny": denied});
        manifest
    };
    each(200, |n| drop(installation.api.apply(&manifest(n))));
    (0..200).for_each(|n| installation.wait_programmed(&format!("m{n}")));
    let bytes = published_bytes(&installation);
    println!("{bytes} bytes in the slots");
    assert!(bytes > 1024 * 1024, "only {bytes}: this test tests nothing");
    assert_eq!(code(&edge, "bert@d199.example"), 250);
}

#[test]
fn a_thousand_changes_in_a_burst_end_in_the_last_of_each_with_few_publications() {
    let Some(installation) = Installation::new() else { return };
    let (old, new) = (Upstream::start(), Upstream::start());
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let _operator = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    let history = installation.history();
    let change = |n: usize, round: usize| {
        let upstream = if round == 49 { new.endpoint } else { old.endpoint };
        let domain = format!("d{n}.example");
        let mut object = installation.domain_manifest(&format!("m{n}"), &[&domain], upstream);
        object["spec"]["limits"] = json!({"recipients": 100 + round});
        installation.api.apply(&object);
    };
    // Each object is changed by one thread, so that its last change is the last.
    each(20, |n| (0..50).for_each(|round| change(n, round)));
    (0..20).for_each(|n| installation.wait_programmed(&format!("m{n}")));
    for n in 0..20 {
        assert_eq!(code(&edge, &format!("bert@d{n}.example")), 250, "{n}");
    }
    assert_eq!((old.received().len(), new.received().len()), (0, 20));
    let versions = history.versions().len();
    println!("1,000 changes, {versions} publications");
    assert!(versions < 250, "{versions} publications");
    history.assert_whole();
}

/// Prints what `docs/performance.md` says: time, memory, bytes.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_objects_are_published_and_one_change_is_republished_alone() {
    const COUNT: usize = 10_000;
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let name = |n: usize| format!("m{n}");
    let manifest = |n: usize, prefix: &str| {
        let domain = format!("{prefix}{n}.example");
        installation.domain_manifest(&name(n), &[&domain], upstream.endpoint)
    };
    each(COUNT, |n| drop(installation.api.try_create(&manifest(n, "d")).unwrap()));
    let began = Instant::now();
    let mut operator = installation.operator().start();
    let mut verdict = installation.verdict().launch();
    let listed = began.elapsed();
    verdict
        .lines()
        .wait_within(Duration::from_secs(120), "ready", |line| line.contains("\"ready\"").then_some(()));
    let published = began.elapsed();
    let _pod = installation.pod("verdict-0", verdict.listen);
    let edge = installation.edge(&[&verdict]).start();
    let programmed = |object: &Value| {
        torwart_tests::cluster::condition(object, "Programmed").is_some_and(|(status, ..)| status == "True")
    };
    for n in (0..COUNT).step_by(97).chain([COUNT - 1]) {
        let limit = Duration::from_secs(300);
        installation.api.wait_within(
            limit,
            Kind::MailDomain,
            &installation.namespace,
            &name(n),
            "programmed",
            programmed,
        );
    }
    let statuses = began.elapsed();
    let before = installation.index().unwrap();
    let bytes = published_bytes(&installation);
    let began = Instant::now();
    installation.api.apply(&manifest(5_000, "changed"));
    // A debug build beside its own 10,000 statuses takes its time.
    let end = began + Duration::from_secs(180);
    loop {
        let code = code(&edge, "bert@changed5000.example");
        if code == 250 {
            break;
        }
        if Instant::now() >= end {
            let object = installation.api.get(Kind::MailDomain, &installation.namespace, &name(5_000));
            let (lines, (_, metrics)) = (last_lines(&operator), operator.get("/metrics"));
            panic!("one change is not in force: {code}\n{object:#?}\n{lines:#?}\n{metrics}");
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    let live = began.elapsed();
    installation.wait_programmed(&name(5_000));
    let change = began.elapsed();
    let after = installation.index().unwrap();
    let changed = after.slots.iter().filter(|(slot, hash)| before.slots.get(*slot) != Some(*hash)).count();
    assert_eq!(code(&edge, "bert@d9999.example"), 250);
    println!(
        "{COUNT} MailDomains: operator ready {listed:?}, in force in a verdict {published:?}, all statuses {statuses:?}\n\
         published {bytes} bytes; one change in force after {live:?}, Programmed {change:?}, {changed} slots\n\
         peak memory: operator {} MiB, verdict {} MiB",
        operator.process().peak_resident() >> 20,
        verdict.process().peak_resident() >> 20
    );
    // Its own slot, and the gateway's: that holds the domain that went.
    assert!(changed <= 2, "{changed} slots were republished");
}
