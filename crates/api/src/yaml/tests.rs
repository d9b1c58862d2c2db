use proptest::prelude::*;

use super::*;
use crate::{Cidr, Duration, Enforcement, GreylistMode, Port, Size};

/// The manifests of the contract, every field of them.
const WHOLE: &str = include_str!("tests/whole.yaml");

fn said(text: &str) -> Vec<String> {
    load("f.yaml", text).mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_whole_schema_is_read() {
    let loaded = load("whole.yaml", WHOLE);
    assert_eq!(loaded.mistakes, vec![]);
    let [Some(Manifest::MailGateway(gateway)), Some(Manifest::MailDomain(domain))] =
        [0, 1].map(|i| loaded.documents[i].manifest.clone())
    else {
        panic!("{loaded:?}");
    };
    assert_eq!(gateway.spec.tenants[0].upstreams.as_ref().unwrap().hosts, ["*.corp.example"]);
    assert_eq!(gateway.spec.dns_lists[0].responses[1].score, 7.0);
    assert_eq!(gateway.spec.uri_lists[0].responses[3].bits, Some(128));
    assert_eq!(gateway.spec.ip_ranges[0].cidrs[1], "2001:db8::/32".parse::<Cidr>().unwrap());
    let spec = domain.spec;
    assert_eq!(spec.enforcement, Some(Enforcement::Enforce));
    assert_eq!(spec.route.upstreams[0].port, Port::new(25));
    let greylisting = spec.greylisting.unwrap();
    assert_eq!(greylisting.mode, Some(GreylistMode::Suspicious));
    assert_eq!(greylisting.pass_ttl, Some(Duration::from_secs(864 * 3600)));
    assert_eq!(spec.checks.unwrap().reverse_dns.unwrap().generic_score, Some(1.5));
    assert_eq!(spec.limits.unwrap().message_size, Some(Size::bytes(50 << 20)));
}

#[test]
fn what_was_read_is_written_as_what_reads_the_same() {
    for document in load("whole.yaml", WHOLE).documents {
        match document.manifest.unwrap() {
            Manifest::MailGateway(gateway) => {
                let json = serde_json::to_string(&gateway).unwrap();
                assert_eq!(serde_json::from_str::<MailGateway>(&json).unwrap(), gateway);
            }
            Manifest::MailDomain(domain) => {
                let json = serde_json::to_string(&domain).unwrap();
                assert_eq!(serde_json::from_str::<MailDomain>(&json).unwrap(), domain);
            }
        }
    }
}

#[test]
fn json_is_yaml() {
    let json = serde_json::to_string_pretty(&serde_json::json!({
        "apiVersion": API_VERSION, "kind": "MailGateway", "metadata": {"name": "default"},
        "spec": {"hostname": "mx.example.net"},
    }));
    assert_eq!(said(&json.unwrap()), Vec::<String>::new());
}

#[test]
fn empty_documents_are_no_documents() {
    for text in
        ["", "\n", "# nothing\n", "---\n", "---\n---\n# still nothing\n---\n", "\u{feff}", "~", "...\n"]
    {
        let loaded = load("f.yaml", text);
        assert!(loaded.documents.is_empty() && loaded.mistakes.is_empty(), "{text:?} {loaded:?}");
    }
}

#[test]
fn a_broken_document_spoils_no_other() {
    let text = "a: [\n---\nb: }\n---\napiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {name: g}\nspec: {hostname: mx.example.net}\n--- {\n";
    let loaded = load("f.yaml", text);
    assert_eq!(loaded.documents.iter().filter(|document| document.manifest.is_some()).count(), 1);
    let lines: Vec<usize> = loaded.mistakes.iter().map(|mistake| mistake.position.line).collect();
    assert_eq!(lines, [1, 3, 9]);
}

#[test]
fn a_broken_document_still_says_what_it_was() {
    let loaded = load(
        "f.yaml",
        "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {name: a, namespace: b}\nspec: {\n",
    );
    assert_eq!(loaded.documents[0].object, Some(ObjectRef::domain("b", "a")));
    assert!(!loaded.documents[0].is_complete());
}

#[test]
fn yes_and_no_are_texts_and_numbers_are_those_of_yaml_1_2() {
    let domain = |field: &str| {
        format!(
            "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: a}}\nspec:\n  domains: [a.example]\n  \
             route: {{upstreams: [{{host: b.example, {field}}}]}}\n"
        )
    };
    for good in
        ["priority: 0x10", "priority: 0o17", "priority: 017", "priority: +7", "priority: ~", "host2: "]
    {
        let said = said(&domain(good));
        assert_eq!(said.is_empty(), !good.starts_with("host2"), "{good} {said:?}");
    }
    for bad in [
        "priority: yes",
        "priority: 1_000",
        "priority: 1.0",
        "priority: \"1\"",
        "priority: 0b1",
        "priority: true",
    ] {
        assert_eq!(said(&domain(bad)).len(), 1, "{bad}");
    }
}

#[test]
fn fields_of_the_api_server_are_tolerated_in_the_metadata_only() {
    let text = "apiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {name: a, uid: b, resourceVersion: \"1\", generation: 3, \
                creationTimestamp: 2026-01-01T00:00:00Z, managedFields: [{manager: x}], labels: {a: b}, annotations: {c: d}}\n\
                spec: {hostname: mx.example.net}\nstatus: {conditions: []}\n";
    assert_eq!(said(text), Vec::<String>::new());
    assert_eq!(
        said(&text.replace("spec: {", "spec: {uid: x, ")),
        [
            "f.yaml:4:8: MailGateway a: spec.uid: there is no such field; here can be hostname, postmaster, enforcement, \
          removalGrace, tenants, dnsLists, uriLists, senders, ipRanges, defaults"
        ]
    );
}

#[test]
fn an_alias_is_a_copy() {
    let text = "apiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {name: a}\nspec:\n  hostname: &h mx.example.net\n  \
                postmaster: *h\n  ipRanges: [&r {name: a, cidrs: [10.0.0.0/8]}, *r]\n";
    let loaded = load("f.yaml", text);
    assert_eq!(loaded.mistakes, vec![]);
    let Some(Manifest::MailGateway(gateway)) = &loaded.documents[0].manifest else { panic!() };
    assert_eq!(gateway.spec.postmaster.as_deref(), Some("mx.example.net"));
    assert_eq!(gateway.spec.ip_ranges[1].cidrs.len(), 1);
}

#[test]
fn nesting_without_end_is_a_mistake() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
        assert_eq!(load("f.yaml", &text).mistakes.len(), 1);
    }
}

#[test]
fn there_are_at_most_a_hundred_mistakes_of_one_document() {
    let fields: String = (0..1_000).map(|i| format!("  x{i}: 1\n")).collect();
    let text = format!(
        "apiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {{name: a}}\nspec:\n{fields}"
    );
    assert_eq!(load("f.yaml", &text).mistakes.len(), 100);
}

#[test]
fn a_place_is_found_by_its_path() {
    let document = load("whole.yaml", WHOLE).documents.remove(1);
    let text = |position: Position| {
        WHOLE
            .lines()
            .nth(position.line - 1)
            .unwrap()
            .chars()
            .skip(position.column - 1)
            .take(8)
            .collect::<String>()
    };
    for (path, wanted) in [
        ("spec.domains[1]", "\"*.lists"),
        ("spec.route.upstreams[0].host", "postfix."),
        ("spec.route.upstreams[0].service", "{host: p"),
        ("spec.greylisting.delay", "5m      "),
        ("spec.greylisting", "greylist"),
        ("metadata.name", "example-"),
    ] {
        let found = text(document.locate(path));
        assert!(
            wanted.starts_with(found.trim_end()) || found.starts_with(wanted.trim_end()),
            "{path} {found}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "[-a-z:{}\\[\\]&*!|>'\"#%@, \\n\\t0-9.~é]{0,200}") {
        let loaded = load("f.yaml", &text);
        prop_assert!(loaded.documents.iter().all(|document| document.manifest.is_none()));
    }

    #[test]
    fn a_file_that_breaks_off_anywhere_makes_no_panic(cut in 0usize..WHOLE.len()) {
        let text: String = WHOLE.chars().take(cut).collect();
        let loaded = load("f.yaml", &text);
        let broken = loaded.documents.iter().filter(|document| document.manifest.is_none()).count();
        prop_assert!(broken <= loaded.mistakes.len());
    }
}
