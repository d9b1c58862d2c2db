//! `check`, `demo`, and mistakes on the command line.

use std::fs;

use torwart_tests::{Gateway, Output, PolicyFile, endpoint};

fn check(text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    fs::write(&file, text).unwrap();
    Output::of(&mut Gateway::command(&["check", "--policy", &file.display().to_string()]))
}

fn good() -> PolicyFile {
    PolicyFile::to(endpoint())
}

#[test]
fn a_good_policy_is_exit_status_0() {
    let output = check(&good().text());
    assert_eq!(output.code, 0, "{}", output.text);
}

#[test]
fn the_examples_are_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/examples");
    let mut files = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let output = Output::of(&mut Gateway::command(&["check", "--policy", &path.display().to_string()]));
        assert_eq!(output.code, 0, "{}: {}", path.display(), output.text);
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn every_mistake_is_named_with_file_object_path_and_line() {
    let text = good().greylisting("{mode: Sometimes, delay: soon}").domain("limits: {recipients: -1}").text();
    let output = check(&text);
    assert_eq!(output.code, 1, "{}", output.text);
    for (field, value) in
        [("greylisting.mode", "Sometimes"), ("greylisting.delay", "soon"), ("limits.recipients", "-1")]
    {
        let line = 1 + text.lines().position(|line| line.contains(value)).unwrap();
        let reported = output.text.lines().find(|report| report.contains(field));
        let reported = reported.unwrap_or_else(|| panic!("{field} is not named:\n{}", output.text));
        assert!(reported.contains("policy.yaml") && reported.contains("example-org"), "{reported}");
        assert!(
            reported.contains(&format!(":{line}")) || reported.contains(&format!("line {line}")),
            "{reported}"
        );
    }
}

#[test]
fn what_is_wrong_is_exit_status_1_and_never_a_panic() {
    let good = good().text();
    let cases = [
        ("not YAML", "{{{".to_owned()),
        ("binary", "\0\u{1}\u{2}".to_owned()),
        ("nothing", String::new()),
        ("another kind", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n".to_owned()),
        ("a later version", good.replace("v1alpha1", "v9")),
        ("an unknown field", good.replace("spec:", "spec:\n  surprise: 1")),
        ("twice the same", format!("{good}---\n{good}")),
        ("a public suffix", good.replace("\"example.org\"", "\"co.uk\"")),
        ("no domain", good.replace("\"example.org\"", "")),
        ("a port too high", good.replace("port: 1", "port: 99999")),
        ("an alias bomb", bomb()),
    ];
    for (name, text) in cases {
        let output = check(&text);
        assert_eq!(output.code, 1, "{name}: {}", output.text);
        assert!(!output.text.is_empty() && !output.text.contains("panicked"), "{name}: {}", output.text);
    }
}

/// Nine levels of nine aliases each: 387 million nodes, were they built.
fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", ")));
    }
    text
}

#[test]
fn a_policy_file_that_is_not_there_is_named() {
    let output = Output::of(&mut Gateway::command(&["check", "--policy", "/nonexistent/policy.yaml"]));
    assert!(output.code > 0, "{}", output.text);
    assert!(output.text.contains("/nonexistent/policy.yaml"), "{}", output.text);
}

#[test]
fn all_mistakes_on_the_command_line_are_reported_at_once() {
    let output = Output::of(&mut Gateway::command(&[
        "run",
        "--smtp-listen",
        "nowhere",
        "--max-connections",
        "many",
        "--bare-newline",
        "sometimes",
        "--proxy-protocol-from",
        "10.0.0.0/99",
        "--no-such-flag",
        "--drain-delay",
        "soon",
    ]));
    assert_eq!(output.code, 2, "{}", output.text);
    for flag in [
        "--policy",
        "--smtp-listen",
        "--max-connections",
        "--bare-newline",
        "--proxy-protocol-from",
        "--no-such-flag",
        "--drain-delay",
    ] {
        assert!(output.text.contains(flag), "{flag} is not named:\n{}", output.text);
    }
    assert!(!output.text.contains("panicked"), "{}", output.text);
}

#[test]
fn run_refuses_a_policy_with_a_mistake_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    fs::write(&file, good().greylisting("{mode: Sometimes}").text()).unwrap();
    let policy = file.display().to_string();
    let (smtp, admin) = (endpoint().to_string(), endpoint().to_string());
    let output = Output::of(&mut Gateway::command(&[
        "run",
        "--policy",
        &policy,
        "--smtp-listen",
        &smtp,
        "--admin-listen",
        &admin,
    ]));
    assert_eq!(output.code, 1, "{}", output.text);
    assert!(output.text.contains("greylisting.mode"), "{}", output.text);
}

#[test]
fn the_demo_plays_to_its_end() {
    let output = Output::of(&mut Gateway::command(&["demo"]));
    assert_eq!(output.code, 0, "{}", output.text);
    assert!(output.text.contains("450 4.2.0") && output.text.contains("250 "), "{}", output.text);
}
