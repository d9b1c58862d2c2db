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
fn beyond_a_hundred_the_mistakes_of_a_document_are_counted() {
    let head = "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {name: a}\nspec:\n  domains: [a.example]\n";
    let unknown: String = (0..60_000).map(|i| format!("  x{i}: 1\n")).collect();
    let upstreams = "{host: a.example, port: x}, ".repeat(150);
    let wrong = format!("{head}  route: {{upstreams: [{upstreams}]}}\n");
    for (text, more) in [(format!("{head}  route: {{upstreams: []}}\n{unknown}"), 59_900), (wrong, 50)] {
        let said = said(&text);
        assert_eq!(said.len(), 101);
        let last = format!("MailDomain default/a: and {more} more mistakes in this document");
        assert!(said[100].ends_with(&last), "{}", said[100]);
    }
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

fn mk_head(metadata: &str) -> String {
    format!("apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {metadata}\n")
}

#[test]
fn a_document_that_does_not_say_for_certain_what_it_is_passes_for_no_object() {
    let spec = "spec: {domains: [a.example], route: {upstreams: [{host: b.example}]}}\n";
    for (metadata, named) in [
        ("{name: good}", true),
        ("{name: good, namespace: default}", true),
        ("{name: good, namespace: }", true),
        ("{name: good, namespace: 12}", false),
        ("{name: good, namespace: [default]}", false),
        ("{name: good, namespace: true}", false),
        ("{name: 5}", false),
        ("{name: good, name: other}", false),
        ("{name: good, namespace: default, namespace: other}", false),
        ("{name: good}\nmetadata: {name: other}", false),
        ("{name: good}\nkind: MailGateway", false),
    ] {
        let document = load("f.yaml", &format!("{}{spec}", mk_head(metadata))).documents.remove(0);
        let wanted = named.then(|| ObjectRef::domain("default", "good"));
        assert_eq!(document.object, wanted, "{metadata}");
    }
}

#[test]
fn a_name_that_may_have_broken_off_names_nobody() {
    for (text, named) in [
        ("{name: go", false),
        ("{name: good, namespace: def", false),
        ("\n  name: good\n  labels: [", false),
        ("\n  name: good\nspec: [", true),
        ("{name: good}\nspec: [", true),
    ] {
        let document = load("f.yaml", mk_head(text).trim_end()).documents.remove(0);
        assert_eq!(document.object.is_some(), named, "{text}");
        assert!(!document.is_complete() || text.starts_with('\n'), "{text}");
    }
}

#[test]
fn there_is_always_a_draft() {
    for text in [
        mk_head("{name: a}"),
        mk_head("{name: 5}\nspec: 7"),
        mk_head("[]\nspec: {rout: {}, domain: [a.example]}"),
        mk_head(
            "{name: a}\nspec: {domains: [a.example, [], 5], ipRanges: [x, {name: r, cidrs: [y, 10.0.0.0/8]}]}",
        ),
        mk_head("{name: a}\nspec: {domains: [a.example"),
        mk_head("{name: a}\nspec: {domains: [a.example]}").replace("MailDomain", "MailDomian"),
    ] {
        let document = load("f.yaml", &text).documents.remove(0);
        assert!(document.manifest.is_none() && document.draft.is_some(), "{text}");
    }
}

#[test]
fn a_mistaken_entry_of_a_list_keeps_its_place() {
    let text = mk_head(
        "{name: a}\nspec: {domains: [5, b.example], route: {upstreams: [x, {host: c.example, prot: 1}]}}",
    );
    let document = load("f.yaml", &text).documents.remove(0);
    let Some(Manifest::MailDomain(draft)) = &document.draft else { panic!() };
    assert_eq!(draft.spec.domains, ["", "b.example"]);
    assert_eq!(draft.spec.route.upstreams[1].host.as_deref(), Some("c.example"));
    for (path, doubtful) in [
        ("spec.domains[0]", true),
        ("spec.domains[1]", false),
        ("spec.domains", true),
        ("spec.route.upstreams[0].host", true),
        ("spec.route.upstreams[1]", true),
        ("spec.route.upstreams[1].port", true),
        ("spec.route.upstreams[1].host", false),
    ] {
        assert_eq!(document.is_doubtful(path), doubtful, "{path}");
    }
}

#[test]
fn a_text_that_breaks_off_keeps_the_mistakes_that_stand_before() {
    let text =
        mk_head("{name: a}\nspec:\n  enforcement: Sometimes\n  domains: 5\n  greylisting: {delay: [1, 2");
    assert_eq!(
        said(&text),
        [
            "f.yaml:5:16: MailDomain default/a: spec.enforcement: is \"Sometimes\"; it must be Enforce or Monitor",
            "f.yaml:6:12: MailDomain default/a: spec.domains: must be a list, not a number",
            "f.yaml:7:24: MailDomain default/a: this is no valid YAML: unclosed bracket '['",
        ]
    );
}

#[test]
fn a_config_map_with_certificates_and_the_label_is_an_authority() {
    let text = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: ca, namespace: mail, labels: {torwart.dev/ca: \"true\"}}\n\
                data:\n  ca.crt: |\n    PEM\n  other: x\n";
    let loaded = load("f.yaml", &format!("---\n{text}"));
    assert!(loaded.documents.is_empty() && loaded.mistakes.is_empty() && loaded.foreign.is_empty());
    let wanted = Authority {
        position: loaded.authorities[0].position,
        document: 1,
        namespace: "mail".to_owned(),
        name: "ca".to_owned(),
        pem: "PEM\n".to_owned(),
    };
    assert_eq!(loaded.authorities, [wanted]);
    let elsewhere = load("f.yaml", &text.replace(", namespace: mail", ""));
    assert_eq!(elsewhere.authorities[0].namespace, DEFAULT_NAMESPACE);
    // As in a cluster, any other ConfigMap is somebody else's.
    for (from, to) in
        [("\"true\"", "\"false\""), ("torwart.dev/ca", "app"), ("ca.crt", "tls.crt"), ("ConfigMap", "Secret")]
    {
        let loaded = load("f.yaml", &text.replacen(from, to, 1));
        assert_eq!((loaded.authorities.len(), loaded.foreign.len()), (0, 1), "{to}");
    }
}

#[test]
fn what_belongs_to_others_is_skipped_and_named() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 25}]}\n";
    let loaded = load("f.yaml", service);
    assert!(loaded.documents.is_empty() && loaded.mistakes.is_empty());
    let shown: Vec<String> = loaded.foreign.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["f.yaml:1:13: document 1: apiVersion: is v1: this Service is not ours, skipped"]);
    for (from, to) in [
        ("v1", "torwart.dev/v1"),
        ("Service", "MailDomain"),
        ("Service", "MailDomian"),
        ("spec: {", "items: {"),
        ("]}", ""),
        ("kind: Service\n", ""),
    ] {
        let loaded = load("f.yaml", &service.replacen(from, to, 1));
        assert!(loaded.foreign.is_empty() && !loaded.mistakes.is_empty(), "{to}");
    }
}

/// None of this ends in a minute if anything takes the square of its size.
#[test]
fn many_fields_many_documents_and_many_aliases_take_no_square() {
    let fields: String = (0..60_000).map(|i| format!("    k{i}: x\n")).collect();
    let text = mk_head(&format!("\n  name: a\n  labels:\n{fields}"));
    assert_eq!(load("f.yaml", &text).mistakes.len(), 1);
    let twice: String = (0..60_000).map(|_| "    same: x\n").collect();
    assert_eq!(load("f.yaml", &mk_head(&format!("\n  name: a\n  labels:\n{twice}"))).mistakes.len(), 101);
    let document = mk_head("{name: a}\nspec: {rout: x}");
    let many: String = (0..20_000).map(|_| format!("---\n{document}")).collect();
    assert_eq!(load("f.yaml", &many).documents.len(), 20_000);
    let copies = "*l, ".repeat(100);
    let laughs = format!(
        "---\n{}",
        mk_head(&format!("{{name: a}}\nspec: {{a: &l [{}], b: [{copies}]}}", "1, ".repeat(900)))
    );
    let loaded = load("f.yaml", &laughs.repeat(100));
    assert!(loaded.mistakes.iter().filter(|mistake| mistake.message.starts_with("aliases")).count() >= 98);
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
