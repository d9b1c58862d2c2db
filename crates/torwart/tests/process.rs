//! `torwart run` as a process: signals, start failures, policy files that vanish, and output that nobody reads.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod running;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use self::running::{POLICY, connect, folder, recipient, run, spawn, start};

fn failed(policy: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = run(policy, flags).stderr(Stdio::piped()).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_signal_ends_it_in_order() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let mut running = start(run(folder.path(), &["--drain-delay", "0s"]));
        assert!(running.get("/readyz").starts_with("HTTP/1.1 200"));
        running.signal(signal);
        running.line("stopped");
        assert!(running.child.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = folder();
    let mut running = start(run(folder.path(), &["--drain-delay", "1h"]));
    running.signal("TERM");
    running.line("stopping; a second signal ends at once");
    assert!(running.get("/readyz").starts_with("HTTP/1.1 200"), "still ready during the drain delay");
    running.signal("TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
}

#[test]
fn hang_up_reads_the_policy_again() {
    let folder = folder();
    let mut running = start(run(folder.path(), &[]));
    running.signal("HUP");
    running.line("the policy is the same as before");
}

#[test]
fn a_folder_that_was_emptied_or_removed_keeps_the_policy() {
    let folder = folder();
    let mut running = start(run(folder.path(), &[]));
    // The header has the time of day in it.
    let body = |response: String| response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap();
    let before = body(running.get("/policy"));
    std::fs::remove_file(folder.path().join("policy.yaml")).unwrap();
    running.line("the policy files can't be used; the policy in force stays");
    assert_eq!(body(running.get("/policy")), before);
    std::fs::remove_dir(folder.path()).unwrap();
    let mistake = running.line("policy mistake; what was good before stays");
    assert!(mistake["mistake"].as_str().unwrap().contains("No such file or directory"), "{mistake}");
    running.line("the policy is the same as before");
    assert!(running.get("/metrics").contains("\ntorwart_policy_load_failures_total 2\n"));
    assert!(running.get("/policy").contains("[\"example.org\"]"));

    let changed = POLICY.replace("[example.org]", "[example.org, example.com]");
    std::fs::create_dir(folder.path()).unwrap();
    std::fs::write(folder.path().join("policy.yaml"), changed).unwrap();
    assert_eq!(running.line("the policy is in force")["domains"], 2);
}

#[test]
fn it_starts_with_the_good_objects_and_tells_of_the_bad() {
    let folder = folder();
    let bad = POLICY.replace("name: example,", "name: bad,").replace("[example.org]", "[co.uk]");
    let bad = bad.split("---").nth(1).unwrap();
    std::fs::write(folder.path().join("bad.yaml"), bad).unwrap();
    let mut running = spawn(run(folder.path(), &[]));
    let mistake = running.line("policy mistake; what was good before stays");
    assert!(mistake["mistake"].as_str().unwrap().contains("bad.yaml:5:"), "{mistake}");
    running.line("ready");
}

#[test]
fn a_restart_forgets_neither_what_was_removed_nor_what_was_good_before_it_broke() {
    let folder = folder();
    let store = tempfile::tempdir().unwrap();
    let store_flag = format!("redb:{}", store.path().join("g.redb").display());
    // A time limit that a busy machine's disk keeps.
    let flags = ["--store", store_flag.as_str(), "--store-timeout", "1s"];
    let object = POLICY.split("---").nth(1).unwrap();
    let file = |name: &str| folder.path().join(format!("{name}.yaml"));
    for name in ["gone", "broken"] {
        let text = object.replace("name: example,", &format!("name: {name},"));
        std::fs::write(file(name), text.replace("example.org", &format!("{name}.example"))).unwrap();
    }
    let running = start(run(folder.path(), &flags));
    for domain in ["example.org", "gone.example", "broken.example"] {
        let reply = recipient(&running, domain);
        assert!(reply.starts_with("450 4.2.0"), "{domain}: {reply}");
    }
    // Dropping it kills it.
    drop(running);
    std::fs::remove_file(file("gone")).unwrap();
    std::fs::write(file("broken"), "}{").unwrap();
    // The second restart goes by what the first one kept.
    for _ in 0..2 {
        let running = start(run(folder.path(), &flags));
        for (domain, wanted) in [
            ("example.org", "450 4.2.0"),
            ("gone.example", "451 4.3.5"),
            ("broken.example", "450 4.2.0"),
            ("foreign.example", "550 5.7.1"),
        ] {
            let reply = recipient(&running, domain);
            assert!(reply.starts_with(wanted), "{domain}: {reply}");
        }
    }
    // What is no policy is no reason not to start.
    std::fs::write(store.path().join("g.redb.policy.json"), "{").unwrap();
    let mut running = spawn(run(folder.path(), &flags));
    running.line("the policy of the last run can't be used; starting without it");
    running.smtp = running.line("ready")["smtp"].as_str().unwrap().to_owned();
    // Now nobody knows what the broken file was about.
    assert!(recipient(&running, "foreign.example").starts_with("451 4.3.5"));
}

#[test]
fn without_a_usable_policy_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = failed(folder.path(), &[]);
    assert_eq!((code, text.contains("--policy: there is no policy file")), (Some(1), true), "{text}");

    let bad = POLICY.replace("hostname: mx.example.net", "hostname: 1").replace("port: 1", "port: x");
    std::fs::write(folder.path().join("policy.yaml"), bad).unwrap();
    let (code, text) = failed(folder.path(), &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in ["policy.yaml:5:", "spec.hostname", "policy.yaml:10:", "spec.route.upstreams[0].port"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn every_address_that_is_taken_is_named() {
    let folder = folder();
    let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (one, other) = (one.local_addr().unwrap(), other.local_addr().unwrap());
    let taken = [TcpListener::bind(one), TcpListener::bind(other)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_torwart"));
    command.env_clear().arg("run").arg("--policy").arg(folder.path());
    command.args(["--smtp-listen", &one.to_string(), "--admin-listen", &other.to_string()]);
    let output = command.output().unwrap();
    drop(taken);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("--smtp-listen {one}")), "{text}");
    assert!(text.contains(&format!("--admin-listen {other}")), "{text}");
}

#[test]
fn output_that_nobody_reads_holds_up_no_mail() {
    let folder = folder();
    let running = start(run(folder.path(), &["--log-level", "debug"]));
    // A pipe holds 64 KiB; these sessions write many times that, and nobody reads it.
    for number in 0..600 {
        let mut stream = connect(&running.smtp);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut reply = String::new();
        reader.read_line(&mut reply).unwrap();
        let commands =
            format!("MAIL FROM:<n{number}@sender.example>\r\nRCPT TO:<a@foreign.example>\r\nRSET\r\n");
        stream.write_all(b"HELO client.example\r\n").unwrap();
        reader.read_line(&mut reply).unwrap();
        stream.write_all(commands.as_bytes()).unwrap();
        reply.clear();
        for _ in 0..3 {
            reader.read_line(&mut reply).unwrap();
        }
        assert!(reply.contains("550 5.7.1"), "{number}: {reply}");
    }
    assert!(running.get("/healthz").starts_with("HTTP/1.1 200"));
}
