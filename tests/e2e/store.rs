//! What greylisting remembers outlives the process.

use std::fs;
use std::path::Path;

use torwart_tests::{Gateway, PolicyFile, Reply, Upstream, eventually};

/// A file belongs to one process: several verdicts share no such store. With a time limit that a busy machine keeps.
fn start(store: &Path, policy: &PolicyFile) -> Gateway {
    Gateway::run_only()
        .flag("--store", format!("redb:{}", store.display()))
        .flag("--store-timeout", "1s")
        .start(&policy.text())
}

fn rcpt(gateway: &Gateway, from: &str) -> Reply {
    let mut client = gateway.client();
    client.ask(250, format!("MAIL FROM:<{from}>"));
    client.command("RCPT TO:<bert@example.org>")
}

#[test]
fn a_deferral_that_was_answered_survives_a_kill() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("greylist.redb");
    let mut gateway = start(&store, &policy);
    let senders: Vec<String> = (0..200).map(|n| format!("n{n}@sender.example")).collect();
    for sender in &senders {
        let reply = rcpt(&gateway, sender);
        assert_eq!((reply.code, reply.enhanced()), (450, "4.2.0"), "{reply}");
    }
    gateway.process().kill();

    let gateway = start(&store, &policy);
    for sender in &senders {
        eventually("it passes", || rcpt(&gateway, sender).code == 250);
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("torwart_greylist_total", &[("outcome", "new")]), 0.0, "{}", metrics.text());
    assert!(metrics.sum("torwart_greylist_total", &[("outcome", "passed")]) >= 200.0, "{}", metrics.text());
}

#[test]
fn kill_after_kill_loses_nothing_that_was_answered() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1h}");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("greylist.redb");
    for round in 0..5 {
        let mut gateway = start(&store, &policy);
        for old in 0..round {
            assert_eq!(rcpt(&gateway, &format!("n{old}@sender.example")).code, 450);
        }
        let metrics = gateway.metrics();
        assert_eq!(metrics.sum("torwart_greylist_total", &[("outcome", "new")]), 0.0, "round {round}");
        assert_eq!(rcpt(&gateway, &format!("n{round}@sender.example")).code, 450);
        gateway.process().kill();
    }
}

#[test]
fn no_address_can_be_read_in_the_store() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1h}");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("greylist.redb");
    let gateway = start(&store, &policy);
    assert_eq!(rcpt(&gateway, "veryparticularname@sender.example").code, 450);
    gateway.stop();
    let text = fs::read(&store).unwrap();
    for secret in ["veryparticularname", "sender.example", "bert"] {
        assert!(
            !text.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{secret} is in the file"
        );
    }
}

#[test]
fn a_store_that_is_no_store_is_reported_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("greylist.redb");
    fs::write(&file, "this is no database".repeat(1000)).unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, PolicyFile::to(Upstream::start().endpoint).text()).unwrap();
    let store = format!("redb:{}", file.display());
    let endpoint = torwart_tests::endpoint().to_string();
    let policy = policy.display().to_string();
    let mut command = Gateway::command(&["run", "--policy", &policy, "--store", &store]);
    command.args(["--smtp-listen", &endpoint, "--admin-listen", &torwart_tests::endpoint().to_string()]);
    let output = torwart_tests::Output::of(&mut command);
    assert!(output.code > 0, "{}", output.text);
    assert!(output.text.contains("greylist.redb") && !output.text.contains("panicked"), "{}", output.text);
    // It is the user's file, whatever it is.
    assert!(fs::read_to_string(&file).unwrap().starts_with("this is no database"));
}

#[test]
fn a_restart_in_order_remembers_who_passed() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("greylist.redb");
    let gateway = start(&store, &policy);
    let deliver =
        |gateway: &Gateway| gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n").code;
    eventually("it passes", || deliver(&gateway) == 250);
    gateway.stop();
    let gateway = start(&store, &policy);
    assert_eq!(deliver(&gateway), 250);
}
