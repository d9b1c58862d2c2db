//! What the schema refuses, and that the gateway's own compilation refuses all of it too.

use std::fs;

use serde_json::{Value, json};
use torwart_tests::cluster::{Installation, Kind};
use torwart_tests::{Gateway, Output};

const BAD: &str = include_str!("crd/bad.txt");

fn gateway(name: &str) -> Value {
    json!({
        "apiVersion": "torwart.dev/v1alpha1", "kind": "MailGateway", "metadata": {"name": name},
        "spec": {"hostname": "mx.example.net"}})
}

fn domain(namespace: &str, gateway: &str) -> Value {
    json!({
        "apiVersion": "torwart.dev/v1alpha1", "kind": "MailDomain", "metadata": {"name": "one", "namespace": namespace},
        "spec": {
            "gatewayRef": {"name": gateway}, "domains": ["example.org"],
            "route": {"upstreams": [{"host": "192.0.2.1", "port": 25}]}}})
}

/// Sets a field of `spec`.
fn set(object: &mut Value, path: &str, value: Value) {
    let mut at = &mut object["spec"];
    for part in path.split('.') {
        at = &mut at[part];
    }
    *at = value;
}

fn check(objects: [&Value; 2]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    fs::write(&file, objects.map(Value::to_string).join("\n---\n")).unwrap();
    Output::of(&mut Gateway::command(&["check", "--policy", &file.display().to_string()]))
}

#[test]
fn what_the_api_server_refuses_the_compilation_refuses_too() {
    let Some(installation) = Installation::new() else { return };
    let (name, namespace) = (&installation.gateway, &installation.namespace);
    let mut wrong = Vec::new();
    let mut rows = 0;
    for row in BAD.lines().filter(|line| !line.starts_with('#')) {
        let [kind, path, value, server_word, check_word] = *row.split(" | ").collect::<Vec<_>>() else {
            panic!("{row}")
        };
        let (mut gateway, mut domain) = (gateway(name), domain(namespace, name));
        let bad = if kind == "domain" { &mut domain } else { &mut gateway };
        set(bad, path, serde_json::from_str(value).unwrap());
        let bad = bad.clone();
        rows += 1;
        // As a user does it: "create" and "apply" of kubectl want no unknown field.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.yaml");
        fs::write(&file, bad.to_string()).unwrap();
        let file = file.display().to_string();
        let said =
            installation.api.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", &file]);
        match server_word {
            "-" if said.code != 0 => wrong.push(format!("{row}: the API server refuses it: {}", said.text)),
            "-" => {}
            _ if said.code == 0 => wrong.push(format!("{row}: the API server takes it")),
            word if !said.text.contains(word) => wrong.push(format!("{row}: it says {}", said.text)),
            _ => {}
        }
        let said = check([&gateway, &domain]);
        if said.code != 1 || !said.text.contains(check_word) {
            wrong.push(format!("{row}: check ends with {} and says {}", said.code, said.text));
        }
    }
    assert!(rows > 50);
    assert!(wrong.is_empty(), "{} of {rows}:\n{}", wrong.len(), wrong.join("\n"));
}

/// With this namespace in place of each other.
fn in_namespace(manifests: &str, namespace: &str) -> String {
    let mut parts = manifests.split("namespace: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '-');
        format!("{text}namespace: {namespace}{rest}")
    })
}

#[test]
fn the_examples_are_taken_and_shown_with_their_columns() {
    let Some(installation) = Installation::new() else { return };
    let (name, namespace) = (&installation.gateway, &installation.namespace);
    installation.api.apply(&gateway(name));
    installation.api.apply(&domain(namespace, name));
    let shown = installation.api.kubectl_ok(&["get", "md", "-n", namespace]);
    let heads: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "DOMAINS", "MODE", "ACCEPTED", "PROGRAMMED", "UPSTREAM", "AGE"]);
    assert!(shown.contains("example.org"), "{shown}");
    let shown = installation.api.kubectl_ok(&["get", "mgw", name]);
    let heads: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "HOSTNAME", "ACCEPTED", "PROGRAMMED", "DOMAINS", "AGE"]);
    let all = installation.api.kubectl_ok(&["get", "torwart", "-n", namespace]);
    assert!(all.contains("maildomain.torwart.dev/one"), "{all}");
    let folder = tempfile::tempdir().unwrap();
    for example in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/examples")).unwrap() {
        let example = example.unwrap();
        let text = fs::read_to_string(example.path()).unwrap();
        fs::write(folder.path().join(example.file_name()), in_namespace(&text, namespace)).unwrap();
    }
    let folder = folder.path().display().to_string();
    installation.api.kubectl_ok(&["create", "--dry-run=server", "--validate=strict", "-f", &folder]);
    installation.api.delete(Kind::MailGateway, "", name);
}

#[test]
fn whatever_a_field_means_is_explained() {
    let Some(installation) = Installation::new() else { return };
    let said = installation.api.kubectl_ok(&["explain", "maildomain.spec.greylisting.delay"]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("How long a new sender must wait") && said.contains("5 minutes if left out"),
        "{said}"
    );
}
