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

    /// A certificate and its key.
    fn pair(&self) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(["torwart-verdict".to_owned()]).unwrap();
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
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
    let table: [(&str, &[&str]); 44] = [
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
        ("--spool-dir /nowhere/at/all", &["--spool-dir: no file can be made in /nowhere/at/all: "]),
        ("--spool-memory much --spool-max 1MB", &["--spool-memory: \"much\"", "--spool-max: \"1MB\""]),
        ("--spool-max 40Mi", &["--spool-max: 41943040 bytes are less than one message may have"]),
        ("--max-message-size 3Gi", &["--spool-max: 2147483648 bytes are less than one message may have"]),
        ("--message-memory 1Mi", &["--inspect-limit: 10485760 bytes are more than --message-memory has"]),
        (
            "--message-memory 10 --inspect-limit 0",
            &["--message-memory: \"10\" is less than 1024 bytes", "--inspect-limit: \"0\" is less"],
        ),
        ("--drain-delay 5", &["--drain-delay: \"5\" has no unit"]),
        ("--drain-timeout 2h", &["--drain-timeout: \"2h\" is more than"]),
        ("--store sqlite:/x", &["--store: is neither memory, redb:PATH nor a redis URL"]),
        ("--store redis://", &["--store: names no server"]),
        ("--store-username u", &["--store-username: does nothing without a redis URL in --store"]),
        (
            "--store redb:x.redb --store-password-file /nowhere/p --store-ca /nowhere/ca",
            &[
                "--store-password-file: does nothing without",
                "--store-ca: does nothing without a rediss URL",
                "--store-password-file: /nowhere/p can't be read",
                "--store-ca: /nowhere/ca can't be read",
            ],
        ),
        (
            "--store redis://h --store-ca /nowhere/ca",
            &["--store-ca: does nothing", "--store-ca: /nowhere/ca"],
        ),
        ("--store rediss://h --store-ca /nowhere/ca", &["--store-ca: /nowhere/ca can't be read"]),
        (
            "--policy kube:torwart-system/default",
            &["--policy: kube:torwart-system/default is for `torwart verdict`, alone; name files"],
        ),
        ("--trace-sample-ratio 1.5", &["--trace-sample-ratio: \"1.5\" is not a number from 0 to 1"]),
        ("--trace-sample-ratio=-0.1", &["--trace-sample-ratio: \"-0.1\" is not"]),
        ("--trace-sample-ratio NaN", &["--trace-sample-ratio: \"NaN\" is not"]),
        ("--otlp-endpoint collector:4317", &["--otlp-endpoint: has neither http:// nor https://"]),
        ("--store redb:", &["--store: names no file"]),
        ("--store redb:/nowhere/at/all.redb", &["--store: /nowhere/at/all.redb can't be made"]),
        ("--store-timeout 1001ms", &["--store-timeout: \"1001ms\" is more than 1s"]),
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
    assert_mistakes(&store, &[], &["is a directory, but a file of its own is needed"]);
    let state = format!("run --policy {} --policy-state {directory}", policy.display());
    assert_mistakes(&state, &[], &["--policy-state: "]);
}

#[test]
fn each_mistake_of_an_edge_is_named_with_its_flag() {
    let files = Files::new();
    let (certificate, key) = files.pair();
    let (certificate, key, text) = (certificate.display(), key.display(), files.path("policy.yaml"));
    let text = text.display();
    let http = "--verdict http://127.0.0.1:9901";
    let dns = "--verdict dns://torwart-verdict:9901";
    let https = "--verdict https://torwart-verdict:9901";
    let table: [(String, &[&str]); 18] = [
        (String::new(), &["--verdict: is needed"]),
        ("--verdict 127.0.0.1:9901".to_owned(), &["--verdict: \"127.0.0.1:9901\": it begins with http://"]),
        ("--verdict http://a,http://b:0,grpc://c:1".to_owned(), &["http://a", "http://b:0", "grpc://c:1"]),
        (
            format!("{http} --verdict-cert {certificate}"),
            &["--verdict: http:// is never encrypted", "--verdict-cert: does nothing without --verdict-key"],
        ),
        (
            format!("{dns} --verdict-key {key} --verdict-ca {certificate}"),
            &["--verdict-key: does nothing without --verdict-cert"],
        ),
        (
            format!("{http} --verdict-ca {certificate}"),
            &["--verdict: http:// is never encrypted, but there is --verdict-ca"],
        ),
        (
            format!("{http} {https} --verdict-server-name v.example.net"),
            &["--verdict: http:// is never encrypted, but there is https://"],
        ),
        (
            format!("{dns} --verdict-server-name v.example.net"),
            &["--verdict-server-name: does nothing without https://"],
        ),
        (https.to_owned(), &["--verdict-ca: is needed"]),
        (format!("{dns} --verdict-cert {certificate} --verdict-key {key}"), &["--verdict-ca: is needed"]),
        (format!("{https} --verdict-ca /nowhere/ca"), &["--verdict-ca: /nowhere/ca can't be read"]),
        (format!("{https} --verdict-ca {text}"), &["--verdict-ca/--verdict-cert/--verdict-key: "]),
        (
            format!("{https} --verdict-ca {certificate} --verdict-cert {certificate} --verdict-key {text}"),
            &["--verdict-ca/--verdict-cert/--verdict-key: "],
        ),
        (
            format!("{https} --verdict-ca {certificate} --verdict-ca {certificate}"),
            &["--verdict-ca: is given 2 times"],
        ),
        (
            format!("{https} --verdict-ca {certificate} --verdict-server-name a_b"),
            &["--verdict-server-name: \"a_b\" is not a host name"],
        ),
        (format!("{http} --smtp-listen x --drain-delay 5"), &["--smtp-listen:", "--drain-delay:"]),
        // Not an edge's.
        (format!("{http} --policy {text} --store memory"), &["'--policy'", "'--store'"]),
        (format!("{http} --grpc-listen 127.0.0.1:1"), &["'--grpc-listen'"]),
    ];
    for (flags, expected) in table {
        assert_mistakes(&format!("edge {flags}"), &[], expected);
    }
}

#[test]
fn each_mistake_of_a_verdict_is_named_with_its_flag() {
    let files = Files::new();
    let policy = files.path("policy.yaml");
    let (certificate, key) = files.pair();
    let (certificate, key) = (certificate.display(), key.display());
    let text = policy.display();
    let table: [(String, &[&str]); 14] = [
        ("--grpc-listen here".to_owned(), &["--grpc-listen: \"here\" is not an address"]),
        (
            "--grpc-listen 0.0.0.0:9902".to_owned(),
            &["--admin-listen: 127.0.0.1:9902 is taken by --grpc-listen 0.0.0.0:9902"],
        ),
        (format!("--grpc-cert {certificate}"), &["--grpc-cert: does nothing without --grpc-key"]),
        (format!("--grpc-key {key}"), &["--grpc-key: does nothing without --grpc-cert"]),
        (format!("--grpc-client-ca {certificate}"), &["--grpc-client-ca: does nothing without --grpc-cert"]),
        (
            "--grpc-client-name edge".to_owned(),
            &["--grpc-client-name: does nothing without --grpc-client-ca"],
        ),
        (
            format!("--grpc-cert {certificate} --grpc-key {key} --grpc-client-name edge,b_d"),
            &["--grpc-client-name: does nothing without --grpc-client-ca", "--grpc-client-name: \"b_d\""],
        ),
        (
            format!("--grpc-cert {certificate} --grpc-key /nowhere/key"),
            &["--grpc-key: /nowhere/key can't be read"],
        ),
        (format!("--grpc-cert {text} --grpc-key {key}"), &["--grpc-cert/--grpc-key/--grpc-client-ca: "]),
        (
            format!("--grpc-cert {certificate} --grpc-key {key} --grpc-client-ca {text}"),
            &["--grpc-cert/--grpc-key/--grpc-client-ca: "],
        ),
        ("--drain-delay 5 --drain-timeout 2h".to_owned(), &["--drain-delay:", "--drain-timeout:"]),
        ("--store-key-file /nowhere/key".to_owned(), &["--store-key-file: /nowhere/key: "]),
        // Not a verdict's.
        ("--smtp-listen 127.0.0.1:1 --hostname x".to_owned(), &["'--smtp-listen'", "'--hostname'"]),
        ("--verdict http://127.0.0.1:1".to_owned(), &["'--verdict'"]),
    ];
    for (flags, expected) in table {
        assert_mistakes(&format!("verdict --policy {text} --store memory {flags}"), &[], expected);
    }
    assert_mistakes("verdict", &[], &["--policy: is needed", "--store: is needed"]);
    let form = "is not kube:NAMESPACE/GATEWAY, as in kube:torwart-system/default";
    for name in ["", "default", "/default", "torwart-system/", "a/b/c", "A/b", "a.b/c", "a/-b"] {
        let expected = format!("--policy: kube:{name} {form}");
        assert_mistakes(&format!("verdict --policy kube:{name} --store memory"), &[], &[&expected]);
    }
    // One policy, and from one place.
    let alone = "is for `torwart verdict`, alone";
    let first = format!("--policy: kube:torwart-system/default {alone}");
    let both = format!("verdict --policy kube:torwart-system/default,{text} --store memory");
    assert_mistakes(&both, &[], &[&first]);
    let both = "verdict --policy kube:torwart-system/default,kube:torwart-system/other --store memory";
    assert_mistakes(both, &[], &[&first, &format!("--policy: kube:torwart-system/other {alone}")]);
    assert_mistakes(
        "verdict --policy kube:torwart-system/default --policy-state /nowhere/at/all --store x",
        &[],
        &["--policy-state: ", "--store: is neither"],
    );
    assert_mistakes(
        "check --policy kube:torwart-system/default",
        &[],
        &["--policy: kube:torwart-system/default is for"],
    );
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
fn a_password_is_never_shown() {
    let environment = [
        ("TORWART_STORE", "redis://u:hunter2@h"),
        ("TORWART_OTLP_ENDPOINT", "http://u:hunter2@h"),
        ("TORWART_VERDICT", "http://u:hunter2@h"),
    ];
    let wrong = [
        "run --store redis://user:hunter2@host:port --nonsense",
        "run --store redis://user:hunter2@host --store redis://user:hunter2@host",
        "run --store hunter2",
        "run --store redis+cluster://u:hunter2@",
        "verdict --store redis+sentinel://u:hunter2@host --policy /nowhere",
        "verdict --store rediss://u:hunter2@host/db --otlp-endpoint https://:hunter2@host",
        "edge --verdict http://u:hunter2@host:1 --otlp-endpoint http://host?key=hunter2",
    ];
    let shown = ["help run", "help edge", "help verdict", "help", "run", "edge", "verdict"];
    for line in wrong.into_iter().chain(shown) {
        let output = torwart(line, &environment);
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains("hunter2"), "{line}: {text}");
        }
    }
}

#[test]
fn what_is_no_subcommand_is_refused() {
    for line in ["", "walk", "--fast"] {
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

#[test]
fn explain_names_everything_that_is_wrong_with_the_mail() {
    let files = Files::new();
    let policy = files.path("policy.yaml");
    let policy = policy.display();
    assert_mistakes(
        "explain",
        &[],
        &[
            "--policy: is needed",
            "--client: is needed",
            "--helo: is needed",
            "--from: is needed",
            "--to: is needed",
        ],
    );
    assert_mistakes(
        &format!(
            "explain --policy {policy} --client mx.example --helo= --from anna --to bert@ <> carl@example.org \
             --message /nowhere/mail --rdns a_b --dns-server dns.example --policy-state /nowhere/state --colour"
        ),
        &[],
        &[
            "--client: \"mx.example\" is no IP address",
            "--helo: \"\" is nothing that a client can say at EHLO",
            "--from: \"anna\" is no mail address",
            "--to: \"bert@\" is no mail address",
            "--to: \"<>\" is no mail address",
            "--message: /nowhere/mail can't be read",
            "--rdns: \"a_b\" is not a host name",
            "--dns-server: \"dns.example\" is no address of a server",
            "--policy-state: /nowhere/state can't be read",
            "--colour",
        ],
    );
    assert_mistakes(
        &format!("explain --policy {policy} --client ::1 --client ::2 --helo a --from <> --to a@example.org"),
        &[],
        &["--client: is given 2 times"],
    );
}
