//! Command lines with mistakes: every one of them is named, and the exit status is 2.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::PathBuf;
use std::process::{Command, Output};

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("policy.yaml"), "").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn torwart(line: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torwart"));
    command.args(line.split_whitespace()).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

/// Runs `line` and holds it to exactly these mistakes, one line of standard error each.
#[track_caller]
fn assert_mistakes(line: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let output = torwart(line, environment);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{line}: {text}");
    for part in expected {
        assert!(text.contains(part), "{line}: no {part:?} in\n{text}");
    }
    let mistakes = text.lines().filter(|line| line.starts_with("  ")).count();
    assert_eq!(mistakes, expected.len(), "{line}:\n{text}");
}

#[test]
fn each_mistake_is_named_with_its_flag() {
    let files = Files::new();
    let policy = files.path("policy.yaml");
    let directory = files.directory.path().display();
    let table: [(&str, &[&str]); 28] = [
        ("", &["--policy: is needed"]),
        ("--policy /nowhere/policy.yaml", &["--policy: /nowhere/policy.yaml can't be read"]),
        ("--smtp-listen 25", &["--smtp-listen: \"25\" is not an address and port"]),
        ("--smtp-listen mail.example:25", &["--smtp-listen: \"mail.example:25\""]),
        (
            "--smtp-listen 127.0.0.1:1 --smtp-listen 127.0.0.1:1",
            &["--smtp-listen: 127.0.0.1:1 and 127.0.0.1:1"],
        ),
        ("--smtp-listen 0.0.0.0:25,127.0.0.1:25", &["--smtp-listen: 0.0.0.0:25 and 127.0.0.1:25"]),
        ("--smtp-listen 127.0.0.1:25,[::]:25", &["--smtp-listen: 127.0.0.1:25 and [::]:25"]),
        ("--smtp-listen 127.0.0.1:9900", &["--admin-listen: 127.0.0.1:9900 is taken by --smtp-listen"]),
        ("--admin-listen x", &["--admin-listen: \"x\" is not an address"]),
        ("--admin-listen 127.0.0.1:1 --admin-listen 127.0.0.1:2", &["--admin-listen: is given 2 times"]),
        ("--hostname mail_1.example", &["--hostname: \"mail_1.example\" is not a host name"]),
        ("--hostname=", &["--hostname: \"\" is not a host name"]),
        (
            "--proxy-protocol-from 10.0.0.0/33,::1,x",
            &["\"10.0.0.0/33\" is not a network", "\"x\" is not a network"],
        ),
        ("--bare-newline allow", &["--bare-newline: \"allow\" is not one of reject, normalize"]),
        ("--max-message-size 50MB", &["--max-message-size: \"50MB\""]),
        ("--max-message-size 0", &["--max-message-size: \"0\" is less than 1024 bytes"]),
        (
            "--max-connections 0 --max-connections-per-network 0",
            &["--max-connections:", "--max-connections-per-network:"],
        ),
        ("--max-connections 10", &["--max-connections-per-network: 100 is more than --max-connections 10"]),
        ("--max-connections many", &["--max-connections: \"many\" is not a whole number"]),
        ("--drain-delay 5", &["--drain-delay: \"5\" has no unit"]),
        ("--drain-timeout 2h", &["--drain-timeout: \"2h\" is more than"]),
        ("--store sqlite:/x", &["--store: is neither memory nor redb:PATH"]),
        ("--store redis://u:secret@host/0", &["--store: redis is not in this build yet"]),
        ("--store redb:", &["--store: names no file"]),
        ("--store redb:/nowhere/at/all.redb", &["--store: /nowhere/at/all.redb can't be made"]),
        ("--store-timeout 0s", &["--store-timeout: \"0s\" is less than"]),
        ("--store-key-file /nowhere/key", &["--store-key-file: /nowhere/key: "]),
        (
            "--log-format xml --log-level loud --log-addresses none",
            &["--log-format:", "--log-level:", "--log-addresses:"],
        ),
    ];
    for (flags, expected) in table {
        let given = if flags.is_empty() || flags.starts_with("--policy") {
            String::new()
        } else {
            format!("--policy {}", policy.display())
        };
        assert_mistakes(&format!("run {given} {flags}"), &[], expected);
    }
    let store = format!("run --policy {} --store redb:{directory}", policy.display());
    assert_mistakes(&store, &[], &["is a directory, but redb needs a file"]);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let files = Files::new();
    let certificate = files.path("policy.yaml");
    let line = format!(
        "run --policy /nowhere --store x --smtp-listen y --bare-newline z --tls-cert {} --unknown 1 --also-unknown",
        certificate.display()
    );
    let expected = [
        "'--unknown'",
        "'--also-unknown'",
        "--policy: /nowhere can't be read",
        "--store: is neither",
        "--smtp-listen: \"y\"",
        "--bare-newline: \"z\"",
        "--tls-cert: is given 1 times, but --tls-key 0 times",
    ];
    assert_mistakes(&line, &[], &expected);
}

#[test]
fn a_certificate_file_that_holds_none_is_a_mistake() {
    let files = Files::new();
    std::fs::write(files.path("not.pem"), "nothing").unwrap();
    let line = format!(
        "run --policy {} --tls-cert {p} --tls-key {p} --store x",
        files.path("policy.yaml").display(),
        p = files.path("not.pem").display()
    );
    assert_mistakes(&line, &[], &["--tls-cert/--tls-key: ", "--store: is neither"]);
}

#[test]
fn the_environment_is_read_and_named_like_the_flags() {
    let environment = [
        ("TORWART_STORE", "x"),
        ("TORWART_PROXY_PROTOCOL_FROM", "10.0.0.0/8,y"),
        ("TORWART_POLICY", "/nowhere"),
    ];
    assert_mistakes(
        "run",
        &environment,
        &["--store: is neither", "--proxy-protocol-from: \"y\"", "--policy: /nowhere"],
    );
}

#[test]
fn a_flag_wins_over_the_environment() {
    assert_mistakes(
        "run --store y://",
        &[("TORWART_STORE", "redis://a")],
        &["--policy: is needed", "--store: is neither"],
    );
}

#[test]
fn a_password_in_a_store_url_is_never_shown() {
    let output =
        torwart("run --store redis://user:hunter2@host", &[("TORWART_STORE", "redis://u:hunter2@h")]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
    let help = torwart("help run", &[("TORWART_STORE", "redis://u:hunter2@h")]);
    assert!(!String::from_utf8_lossy(&help.stdout).contains("hunter2"));
}

#[test]
fn what_is_no_subcommand_is_refused() {
    for line in ["", "walk", "--fast", "verdict --policy x"] {
        assert_eq!(torwart(line, &[]).status.code(), Some(2), "{line}");
    }
}

#[test]
fn check_needs_a_path_that_exists() {
    assert_mistakes("check", &[], &["--policy: is needed"]);
    assert_mistakes("check --policy /nowhere", &[], &["--policy: /nowhere can't be read"]);
}

#[test]
fn the_version_is_told() {
    let output = torwart("--version", &[]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        concat!("torwart ", env!("CARGO_PKG_VERSION"))
    );
}
