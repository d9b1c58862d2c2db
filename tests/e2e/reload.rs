//! Policy files are watched: a change is live within two seconds, a bad object keeps its last good form.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use torwart_tests::{Gateway, PATIENCE, PolicyFile, Upstream};

/// What a change may take to be live.
const LIVE: Duration = Duration::from_secs(2);

fn rcpt(gateway: &Gateway, to: &str) -> u16 {
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.command(format!("RCPT TO:<{to}>")).code
}

/// How long it takes until the recipient hears this code.
fn until(gateway: &Gateway, to: &str, code: u16) -> Duration {
    let began = Instant::now();
    loop {
        let heard = rcpt(gateway, to);
        if heard == code {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{to} still hears {heard}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_new_domain_is_live_within_two_seconds() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint);
    let gateway = Gateway::start(&policy);
    // A busy machine may spoil one try; a watcher that is too slow spoils all.
    let times: Vec<Duration> = (0..3)
        .map(|n| {
            let domain = format!("new{n}.example");
            assert_eq!(rcpt(&gateway, &format!("bert@{domain}")), 550);
            gateway.replace_policy(&policy.clone().domains(&["example.org", &domain]).text());
            until(&gateway, &format!("bert@{domain}"), 250)
        })
        .collect();
    assert!(times.iter().any(|time| *time < LIVE), "{times:?}");
}

#[test]
fn a_session_that_is_open_meets_the_new_policy() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint);
    let gateway = Gateway::start(&policy);
    let mut open = gateway.client();
    gateway.replace_policy(&policy.clone().domains(&["example.org", "new.example"]).text());
    until(&gateway, "bert@new.example", 250);
    assert_eq!(open.mail("anna@sender.example", &["bert@new.example"], b"\r\n").code, 250);
}

#[test]
fn a_bad_object_keeps_its_last_good_form_and_the_others_move_on() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint);
    let gateway = Gateway::start(&policy);
    let before = gateway.metrics().sum("torwart_policy_load_failures_total", &[]);
    // example.org's object is spoiled, and a good one comes along.
    let spoiled = policy.clone().domain("limits: {messageSize: lots}").also("new.example", upstream.endpoint);
    gateway.replace_policy(&spoiled.text());
    until(&gateway, "bert@new.example", 250);
    assert_eq!(rcpt(&gateway, "bert@example.org"), 250);
    assert!(gateway.metrics().sum("torwart_policy_load_failures_total", &[]) > before);
    let notice =
        gateway.lines().wait("the mistake", |line| line.contains("messageSize").then(|| line.to_owned()));
    assert!(notice.contains("policy.yaml"), "{notice}");
}

#[test]
fn a_file_that_is_no_yaml_changes_nothing() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint);
    let gateway = Gateway::start(&policy);
    for text in ["{{{", "\0\0\0", "kind: [", "- a\n- b\n"] {
        let before = gateway.metrics().sum("torwart_policy_load_failures_total", &[]);
        gateway.replace_policy(text);
        gateway.wait_metrics("the failure is counted", |metrics| {
            metrics.sum("torwart_policy_load_failures_total", &[]) > before
        });
        assert_eq!(rcpt(&gateway, "bert@example.org"), 250, "{text:?}");
    }
    gateway.replace_policy(&policy.also("new.example", upstream.endpoint).text());
    until(&gateway, "bert@new.example", 250);
}

#[test]
fn a_domain_that_left_is_deferred_for_a_while() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint);
    let gateway = Gateway::start(&policy.clone().also("leaving.example", upstream.endpoint));
    assert_eq!(rcpt(&gateway, "bert@leaving.example"), 250);
    gateway.replace_policy(&policy.text());
    until(&gateway, "bert@leaving.example", 451);
    assert_eq!(rcpt(&gateway, "bert@example.org"), 250);
}

#[test]
fn a_mounted_configmap_is_followed() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint);
    // The kubelet's way: files are links into `..data`, and that link is replaced.
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let publish = |version: &str, text: &str| {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("policy.yaml"), text).unwrap();
        symlink(version, root.join("..next")).unwrap();
        fs::rename(root.join("..next"), root.join("..data")).unwrap();
    };
    publish("..1", &policy.text());
    symlink("..data/policy.yaml", root.join("policy.yaml")).unwrap();
    let gateway = Gateway::builder().start_with(root);
    assert_eq!(rcpt(&gateway, "bert@example.org"), 250);
    publish("..2", &policy.clone().also("new.example", upstream.endpoint).text());
    until(&gateway, "bert@new.example", 250);
    fs::remove_dir_all(root.join("..1")).unwrap();
    publish("..3", &policy.text());
    until(&gateway, "bert@new.example", 451);
}
