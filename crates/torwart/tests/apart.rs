//! `torwart edge` and `torwart verdict` as processes: what they say while the other, or a policy, or a store is missing.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod running;

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use serde_json::Value;

use self::running::{LIMIT, POLICY, Running, connect, folder, recipient, spawn, start, torwart};

/// A port that no other test has, and that stays the same when a process is started again.
fn address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{}:9901", high | 0x80, COUNT.fetch_add(1, Ordering::Relaxed))
}

fn verdict(policy: &Path, grpc: &str, flags: &[&str]) -> Command {
    let mut command = torwart(&["verdict", "--policy"]);
    command.arg(policy).args(["--grpc-listen", grpc, "--admin-listen", "127.0.0.1:0"]);
    if !flags.contains(&"--store") {
        command.args(["--store", "memory"]);
    }
    command.args(flags);
    command
}

fn edge(url: &str, flags: &[&str]) -> Command {
    let mut command = torwart(&["edge", "--verdict", url, "--smtp-listen", "127.0.0.1:0"]);
    command.args(["--admin-listen", "127.0.0.1:0"]).args(flags);
    command
}

/// Asks until the reply is as `wanted`.
#[track_caller]
fn until(edge: &Running, wanted: &str) {
    let began = Instant::now();
    loop {
        let reply = recipient(edge, "example.org");
        if reply.starts_with(wanted) {
            return;
        }
        assert!(began.elapsed() < LIMIT, "no {wanted}, but {reply}");
    }
}

fn status(running: &Running, path: &str) -> String {
    running.get(path).split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn an_edge_without_a_verdict_is_ready_greets_and_defers() {
    let edge = start(edge("http://127.0.0.1:1", &["--hostname", "mx.example.net"]));
    let mut banner = [0; 22];
    connect(&edge.smtp).read_exact(&mut banner).unwrap();
    assert_eq!(String::from_utf8_lossy(&banner), "220 mx.example.net ESM");
    assert!(recipient(&edge, "example.org").starts_with("451 4.3.5"));
    assert_eq!(status(&edge, "/readyz"), "200");
    assert_eq!(status(&edge, "/policy"), "404");
}

#[test]
fn a_verdict_that_is_killed_and_started_again_is_missed_and_found() {
    let (folder, grpc) = (folder(), address());
    let first = start(verdict(folder.path(), &grpc, &[]));
    let edge = start(edge(&format!("http://{grpc}"), &[]));
    until(&edge, "450 4.2.0");
    assert!(recipient(&edge, "foreign.example").starts_with("550 5.7.1"));
    // Dropping it kills it.
    drop(first);
    until(&edge, "451 4.3.5");
    assert_eq!(status(&edge, "/readyz"), "200");
    let second = start(verdict(folder.path(), &grpc, &[]));
    until(&edge, "450 4.2.0");
    assert!(second.get("/policy").contains("[\"example.org\"]"));
}

#[test]
fn without_a_usable_policy_a_verdict_is_not_ready_and_defers_until_there_is_one() {
    let broken = POLICY.replace("hostname: mx.example.net", "hostname: 1");
    for text in [None, Some("}{"), Some(broken.as_str())] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let grpc = address();
        let mut verdict = spawn(verdict(folder.path(), &grpc, &[]));
        verdict.admin = verdict.line("listening")["admin"].as_str().unwrap().to_owned();
        let edge = start(edge(&format!("http://{grpc}"), &[]));
        assert!(recipient(&edge, "example.org").starts_with("451 4.3.5"), "{text:?}");
        assert_eq!((status(&verdict, "/readyz"), status(&verdict, "/policy")), ("503".into(), "503".into()));
        assert!(verdict.get("/metrics").contains("\ntorwart_policy_load_failures_total 1\n"));
        std::fs::write(&file, POLICY).unwrap();
        assert_eq!(verdict.line("ready")["grpc"], grpc);
        assert_eq!(status(&verdict, "/readyz"), "200");
        until(&edge, "450 4.2.0");
    }
}

#[test]
fn a_mail_domain_that_left_the_policy_is_deferred_after_a_restart_too() {
    let (folder, grpc) = (folder(), address());
    let file = folder.path().join("policy.yaml");
    let state = folder.path().join("verdict.state");
    let flags = ["--policy-state", state.to_str().unwrap()];
    let first = start(verdict(&file, &grpc, &flags));
    let edge = start(edge(&format!("http://{grpc}"), &[]));
    until(&edge, "450 4.2.0");
    drop(first);
    std::fs::write(&file, POLICY.replace("example.org", "other.example")).unwrap();
    let second = start(verdict(&file, &grpc, &flags));
    until(&edge, "451 4.3.5");
    assert!(second.get("/policy").contains("other.example"));
    let began = Instant::now();
    while !recipient(&edge, "other.example").starts_with("450 4.2.0") {
        assert!(began.elapsed() < LIMIT);
    }
    assert!(recipient(&edge, "example.org").starts_with("451 4.3.5"));
    drop(second);
    std::fs::remove_file(&state).unwrap();
    let _third = start(verdict(&file, &grpc, &flags));
    until(&edge, "550 5.7.1");
}

#[test]
fn why_there_is_no_policy_stands_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY.replace("hostname: mx.example.net", "x: 1"))
        .unwrap();
    let mut verdict = spawn(verdict(folder.path(), "127.0.0.1:0", &[]));
    let mistake = verdict.line("policy mistake; what was good before stays");
    assert!(mistake["mistake"].as_str().unwrap().contains("policy.yaml:5:"), "{mistake}");
    verdict.line(
        "the policy files can't be used and there is no other policy: until they are mended, all mail is deferred with 451",
    );
}

#[test]
fn a_store_that_is_not_there_keeps_no_verdict_from_its_work() {
    let (folder, grpc) = (folder(), address());
    let verdict = start(verdict(folder.path(), &grpc, &["--store", "redis://u:hunter2@127.0.0.1:1"]));
    let edge = start(edge(&format!("http://{grpc}"), &[]));
    // Not greylisted (`onStoreFailure: Accept`), and the upstream is down.
    until(&edge, "451 4.4.1");
    assert_eq!(status(&verdict, "/readyz"), "200");
    let metrics = verdict.get("/metrics");
    assert!(metrics.contains("torwart_greylist_total{outcome=\"store_failure\"} 1"), "{metrics}");
    while let Ok(line) = verdict.lines.try_recv() {
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_signal_ends_a_verdict_after_the_delay_in_which_it_still_answers() {
    let (folder, grpc) = (folder(), address());
    let mut verdict = start(verdict(folder.path(), &grpc, &["--drain-delay", "1h"]));
    let edge = start(edge(&format!("http://{grpc}"), &[]));
    until(&edge, "450 4.2.0");
    verdict.signal("TERM");
    verdict.line("stopping; a second signal ends at once");
    assert_eq!(status(&verdict, "/readyz"), "200");
    assert!(recipient(&edge, "example.org").starts_with("450 4.2.0"));
    verdict.signal("TERM");
    assert_eq!(verdict.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_signal_ends_both_in_order() {
    let (folder, grpc) = (folder(), address());
    let verdict = start(verdict(folder.path(), &grpc, &["--drain-delay", "0s"]));
    let edge = start(edge(&format!("http://{grpc}"), &["--drain-delay", "0s"]));
    until(&edge, "450 4.2.0");
    for mut process in [verdict, edge] {
        process.signal("TERM");
        process.line("stopped");
        assert!(process.child.wait().unwrap().success());
    }
}

#[test]
fn hang_up_reads_the_policy_of_a_verdict_again() {
    let folder = folder();
    let mut verdict = start(verdict(folder.path(), "127.0.0.1:0", &[]));
    verdict.signal("HUP");
    verdict.line("the policy is the same as before");
}

/// The files of an authority, and of a certificate for these names that it signs.
fn certificates(folder: &Path) -> [PathBuf; 3] {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let signer = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["torwart-verdict".to_owned(), "torwart-edge".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &signer).unwrap();
    let texts = [signer.pem(), certificate.pem(), key.serialize_pem()];
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    for (file, text) in files.iter().zip(texts) {
        std::fs::write(file, text).unwrap();
    }
    files
}

#[test]
fn certificates_of_the_channel_are_taken_up_when_told_so() {
    let (folder, pems, grpc) = (folder(), tempfile::tempdir().unwrap(), address());
    let [ca, certificate, key] = certificates(pems.path()).map(|file| file.display().to_string());
    let of_verdict = ["--grpc-cert", &certificate, "--grpc-key", &key, "--grpc-client-ca", &ca];
    let of_verdict =
        [&of_verdict[..], &["--grpc-client-name", "torwart-edge", "--drain-delay", "0s"]].concat();
    let of_edge = ["--verdict-ca", &ca, "--verdict-cert", &certificate, "--verdict-key", &key];
    let mut edge = start(edge(&format!("https://{grpc}"), &of_edge));
    let mut first = start(verdict(folder.path(), &grpc, &of_verdict));
    until(&edge, "450 4.2.0");
    // Another authority: who did not read it again is refused by who did.
    certificates(pems.path());
    first.signal("TERM");
    first.line("stopped");
    let _second = start(verdict(folder.path(), &grpc, &of_verdict));
    edge.signal("HUP");
    edge.line("told to read policy and certificates again");
    until(&edge, "450 4.2.0");
}

#[test]
fn what_is_allowed_but_seldom_meant_is_warned_of() {
    let folder = folder();
    let mut verdict = spawn(verdict(folder.path(), "0.0.0.0:0", &[]));
    let warnings: Vec<Value> = std::iter::from_fn(|| {
        let line: Value = serde_json::from_str(&verdict.lines.recv_timeout(LIMIT).unwrap()).unwrap();
        (line["message"] != "ready").then_some(line)
    })
    .filter(|line| line["level"] == "warn")
    .collect();
    for part in ["--store memory: a restart forgets", "--grpc-listen 0.0.0.0:0 without --grpc-cert"] {
        let found = warnings.iter().any(|line| line["message"].as_str().unwrap().starts_with(part));
        assert!(found, "no {part:?} in {warnings:?}");
    }
    assert!(verdict.child.try_wait().unwrap().is_none());
}

#[test]
fn every_address_that_is_taken_is_named() {
    let folder = folder();
    let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [one, other] = taken.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let mut of_verdict = torwart(&["verdict", "--store", "memory", "--policy"]);
    of_verdict.arg(folder.path()).args(["--grpc-listen", &one, "--admin-listen", &other]);
    let of_edge =
        ["edge", "--verdict", "http://127.0.0.1:1", "--smtp-listen", &one, "--admin-listen", &other];
    for (mut command, flag) in [(of_verdict, "--grpc-listen"), (torwart(&of_edge), "--smtp-listen")] {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("{flag} {one}")), "{text}");
        assert!(text.contains(&format!("--admin-listen {other}")), "{text}");
    }
}
