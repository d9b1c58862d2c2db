use super::*;
use crate::compile::tests::{GATEWAY, NOW, mk_domain};
use crate::model::DomainMatch;

fn mk_file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.to_owned(), content: Ok(text.to_owned()) }
}

fn mk_load(files: &[SourceFile], last: Option<&Loaded>) -> Loaded {
    compile_files(files, last.and_then(|last| last.compilation.snapshot.clone()), &[], NOW)
}

fn knows(loaded: &Loaded, domain: &str) -> bool {
    let policy = loaded.compilation.policy.as_ref().unwrap();
    matches!(policy.domains.find(domain, NOW), DomainMatch::Known { .. })
}

fn mistakes(loaded: &Loaded) -> Vec<String> {
    loaded.mistakes().map(ToString::to_string).collect()
}

/// What is said of one document beside a good MailGateway.
fn said_of(document: &str) -> Vec<String> {
    mistakes(&mk_load(&[mk_file("g.yaml", GATEWAY), mk_file("a.yaml", document)], None))
}

fn mk_three() -> Vec<SourceFile> {
    vec![
        mk_file("gateway.yaml", GATEWAY),
        mk_file("a.yaml", &mk_domain("a", &["a.example"], "")),
        mk_file(
            "b.yaml",
            &format!("{}---\n{}", mk_domain("b", &["b.example"], ""), mk_domain("c", &["c.example"], "")),
        ),
    ]
}

#[test]
fn an_object_that_can_not_be_read_keeps_its_last_form() {
    let mut files = mk_three();
    let first = mk_load(&files, None);
    assert_eq!(mistakes(&first), Vec::<String>::new());
    files[1] = mk_file("a.yaml", &mk_domain("a", &["a.example"], "  colour: red\n"));
    let second = mk_load(&files, Some(&first));
    assert_eq!(mistakes(&second).len(), 1);
    assert!(knows(&second, "a.example"));
    assert_eq!(second.kept(), 1);
}

#[test]
fn a_file_of_rubbish_or_that_can_not_be_opened_takes_nothing_away() {
    let first = mk_load(&mk_three(), None);
    for content in [
        Err("permission denied".to_owned()),
        Ok("}{".to_owned()),
        Ok("spec: {".to_owned()),
        Ok("kind: [".to_owned()),
    ] {
        let mut files = mk_three();
        files[2].content = content;
        let second = mk_load(&files, Some(&first));
        assert!(!second.findings.is_empty());
        assert!(knows(&second, "a.example") && knows(&second, "b.example") && knows(&second, "c.example"));
        // And so again, with the sources of the objects still known.
        assert!(knows(&mk_load(&files, Some(&second)), "c.example"));
    }
}

#[test]
fn an_object_that_is_in_no_file_any_more_is_gone() {
    let first = mk_load(&mk_three(), None);
    let mut files = mk_three();
    files.pop();
    let second = mk_load(&files, Some(&first));
    assert!(knows(&second, "a.example") && !knows(&second, "b.example"));
    assert_eq!(mistakes(&second), Vec::<String>::new());
}

#[test]
fn an_object_may_move_to_another_file() {
    let first = mk_load(&mk_three(), None);
    let mut files = mk_three();
    files[2].name = "moved.yaml".to_owned();
    let second = mk_load(&files, Some(&first));
    assert_eq!(mistakes(&second), Vec::<String>::new());
    let sources = &second.compilation.snapshot.as_ref().unwrap().sources;
    assert_eq!(&*sources[&ObjectRef::domain("mail", "c")], "moved.yaml");
}

#[test]
fn every_mistake_of_every_file_comes_at_once_in_order() {
    let files = [
        mk_file("z.yaml", &GATEWAY.replace("mx.example.net", "mx")),
        mk_file("a.yaml", &mk_domain("a", &["co.uk", "a..example"], "")),
        SourceFile { name: "m.yaml".to_owned(), content: Err("permission denied".to_owned()) },
    ];
    assert_eq!(
        mistakes(&mk_load(&files, None)),
        [
            "a.yaml:5:13: MailDomain mail/a: spec.domains[0]: is \"co.uk\"; it is a public suffix, under which anyone can register; name the domain that you own",
            "a.yaml:5:22: MailDomain mail/a: spec.domains[1]: is \"a..example\"; it is no valid domain name: two dots stand side by side, or one stands in front",
            "m.yaml: permission denied",
            "z.yaml:4:18: MailGateway default: spec.hostname: is \"mx\"; write the full name, such as mx.example.net",
        ]
    );
}

#[test]
fn an_object_without_a_certain_name_takes_that_of_no_other() {
    let good = mk_domain("good", &["good.example"], "").replace("namespace: mail", "namespace: default");
    let bad = mk_domain("good", &["other.example"], "").replace("namespace: mail", "namespace: 12");
    let with =
        |good: String| vec![mk_file("g.yaml", GATEWAY), mk_file("a.yaml", &good), mk_file("b.yaml", &bad)];
    let first = mk_load(&with(good.clone()), None);
    assert!(knows(&first, "good.example") && !knows(&first, "other.example"));
    assert_eq!(mistakes(&first).len(), 1, "{:?}", first.findings);
    // And the good one can be changed as if nothing was.
    let second = mk_load(&with(good.replace("good.example", "better.example")), Some(&first));
    assert!(knows(&second, "better.example") && !knows(&second, "good.example"));
}

#[test]
fn of_two_of_one_name_the_one_that_was_there_stays() {
    let named = |domain: &str| mk_domain("a", &[domain], "");
    let mut files = mk_three();
    let first = mk_load(&files, None);
    files.insert(0, mk_file("0.yaml", &named("copy.example")));
    files[2] = mk_file("a.yaml", &named("changed.example"));
    let second = mk_load(&files, Some(&first));
    assert!(knows(&second, "changed.example") && !knows(&second, "copy.example"));
    assert_eq!(
        mistakes(&second),
        [
            "0.yaml:3:18: MailDomain mail/a: metadata.name: MailDomain mail/a stands in a.yaml:3:18 already; rename or remove this one"
        ]
    );
    // Although it is broken now.
    files[2] = mk_file("a.yaml", &mk_domain("a", &["changed.example"], "  colour: red\n"));
    let third = mk_load(&files, Some(&second));
    assert!(knows(&third, "changed.example") && !knows(&third, "copy.example"));
}

#[test]
fn of_two_of_one_name_the_one_without_mistakes_holds() {
    for broken in [mk_domain("a", &["broken.example"], "  colour: red\n"), mk_domain("a", &["co.uk"], "")] {
        let files = [
            mk_file("g.yaml", GATEWAY),
            mk_file("a.yaml", &broken),
            mk_file("b.yaml", &mk_domain("a", &["a.example"], "")),
        ];
        let loaded = mk_load(&files, None);
        assert!(knows(&loaded, "a.example"), "{broken}");
        assert_eq!(mistakes(&loaded).len(), 2, "{:?}", loaded.findings);
    }
}

#[test]
fn of_two_of_one_name_neither_holds_if_nobody_can_say_which() {
    let mut files = mk_three();
    files[1] = mk_file(
        "a.yaml",
        &format!("{}---\n{}", mk_domain("a", &["a.example"], ""), mk_domain("a", &["z.example"], "")),
    );
    let first = mk_load(&files, None);
    assert!(!knows(&first, "a.example") && !knows(&first, "z.example") && knows(&first, "b.example"));
    assert_eq!(mistakes(&first).len(), 2);
    let good = mk_load(&mk_three(), None);
    let second = mk_load(&files, Some(&good));
    assert!(knows(&second, "a.example") && !knows(&second, "z.example"));
}

#[test]
fn the_mistakes_of_two_of_one_name_are_all_found() {
    let text = format!(
        "{}---\n{}",
        mk_domain("a", &["co.uk"], "  colour: red\n"),
        mk_domain("a", &["com"], "  limits: {recipients: 0}\n")
    );
    let said = said_of(&text);
    for part in ["co.uk", "colour", "\"com\"", "limits.recipients"] {
        assert_eq!(said.iter().filter(|line| line.contains(part)).count(), 1, "{part} {said:#?}");
    }
}

#[test]
fn a_mistake_of_form_hides_no_other_mistake() {
    let head = "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {name: a}\nspec:\n";
    let route = "  route: {upstreams: [{host: b.example}]}\n";
    for (text, others) in [
        ("  domains: [co.uk]\n  limits: {recipients: 0}\n".to_owned(), 2),
        (format!("  domain: [co.uk]\n  limits: {{recipients: 0}}\n{route}"), 1),
        (format!("  domains: [co.uk]\n  limit: {{}}\n  limits: {{recipients: 0}}\n{route}"), 2),
        (
            "  domains: [co.uk]\n  route: {upstreams: [{host: b.example, prot: 25}, {host: \"x y\"}, {host: b.example, weight: 5000000}]}\n"
                .to_owned(),
            3,
        ),
        (format!("  domains: [5, co.uk, a.example]\n{route}"), 1),
        (format!("  domains: [a.example]\n  greylisting: {{delay: x, retryWindow: 4m}}\n{route}"), 0),
        (format!("  domains: [a.example]\n  greylisting: {{delay: x, retryWindow: 4m, prefix: {{ipv4: 1}}}}\n{route}"), 1),
    ] {
        let first = mistakes_of_form(&format!("{head}{text}"));
        let said = said_of(&format!("{head}{text}"));
        assert_eq!(said.len(), first + others, "{text} {said:#?}");
    }
    let unnamed = format!("{}  domains: [co.uk]\n{route}", head.replace("name: a", "name: 5"));
    assert_eq!(said_of(&unnamed).len(), 2);
    let broken = format!("{head}  domains: [co.uk]\n  limits: {{recipients: 0}}\n{route}\tx: 1\n");
    assert_eq!(said_of(&broken).len(), 3, "{:?}", said_of(&broken));
}

fn mistakes_of_form(text: &str) -> usize {
    torwart_api::yaml::load("a.yaml", text).mistakes.len()
}

#[test]
fn what_may_come_from_the_gateways_own_mistakes_is_not_said_of_a_domain() {
    let list = "{name: 5, zone: zen.example.org, responses: [{codes: [127.0.0.2], score: 1}]}";
    let gateway = GATEWAY.replace("mx.example.net", &format!("mx.example.net, dnsLists: [{list}]"));
    let domain = mk_domain("a", &["co.uk"], "  checks: {dnsLists: {only: [zen]}, spf: {failScore: -1}}\n");
    let said = mistakes(&mk_load(&[mk_file("g.yaml", &gateway), mk_file("a.yaml", &domain)], None));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("zen")), "{said:#?}");
    // Nor if the last gateway, without that list, stays in force.
    let first = mk_load(&mk_three(), None);
    let good = domain.replace("co.uk", "a.example").replace("-1", "1");
    let said =
        mistakes(&mk_load(&[mk_file("gateway.yaml", &gateway), mk_file("a.yaml", &good)], Some(&first)));
    assert_eq!(said.len(), 1, "{said:#?}");
}

#[test]
fn a_missing_gateway_is_hidden_only_by_what_may_be_one() {
    let missing = |text: &str| {
        mistakes(&mk_load(&[mk_file("a.yaml", text)], None))
            .iter()
            .any(|line| line.contains("there is no MailGateway"))
    };
    let domain = mk_domain("a", &["a.example"], "");
    for (text, said) in [
        (domain.clone(), true),
        (domain.replace("name: a", "name: 5"), true),
        (domain.replace("kind: MailDomain", "kind: MailDomian"), true),
        (format!("{domain}\tx: 1"), true),
        (domain.replace("kind: MailDomain", "kind: 5"), false),
        (domain.replace("kind: MailDomain", "kind: MailGatewy"), false),
        ("}{".to_owned(), false),
    ] {
        assert_eq!(missing(&text), said, "{text}");
    }
}

#[test]
fn what_belongs_to_others_keeps_nothing_from_leaving() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
    let mut files = mk_three();
    files[2] = mk_file(
        "b.yaml",
        &format!(
            "{}{service}---\n{}",
            mk_domain("b", &["b.example"], ""),
            mk_domain("c", &["c.example"], "")
        ),
    );
    let first = mk_load(&files, None);
    assert_eq!(mistakes(&first), Vec::<String>::new());
    assert!(first.warnings().any(|warning| warning.message.contains("this Service is not ours, skipped")));
    files[2] = mk_file("b.yaml", &format!("{}{service}", mk_domain("b", &["b.example"], "")));
    let second = mk_load(&files, Some(&first));
    assert!(knows(&second, "b.example") && !knows(&second, "c.example"));
}

/// As in a cluster: the manifests are the same.
#[test]
fn an_authority_stands_in_a_config_map_beside_the_domains() {
    let config_map = |pem: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: mail, labels: {{torwart.dev/ca: \"true\"}}}}\n\
             data: {{ca.crt: {pem}}}\n"
        )
    };
    let domain = mk_domain("a", &["a.example"], "")
        .replace("}]}\n", "}], tls: {mode: Required, caRef: {name: ca}}}\n");
    let files = |map: Option<String>| {
        let mut files = vec![mk_file("g.yaml", GATEWAY), mk_file("a.yaml", &domain)];
        files.extend(map.map(|map| mk_file("ca.yaml", &map)));
        files
    };
    let authority = |loaded: &Loaded| {
        let policy = loaded.compilation.policy.as_ref().unwrap();
        policy.routes.values().next().and_then(|route| route.tls.ca.clone())
    };
    let missing = mk_load(&files(None), None);
    let said = mistakes(&missing);
    assert!(said[0].contains("spec.route.tls.caRef: there is no ConfigMap mail/ca"), "{said:?}");
    assert!(!knows(&missing, "a.example"));

    let first = mk_load(&files(Some(config_map("PEM"))), None);
    assert_eq!(mistakes(&first), Vec::<String>::new());
    assert_eq!(authority(&first).as_deref(), Some("PEM"));
    let second = mk_load(&files(Some(config_map("NEXT"))), Some(&first));
    assert_eq!((authority(&second).as_deref(), mistakes(&second).len()), (Some("NEXT"), 0));
    assert_ne!(
        second.compilation.policy.as_ref().unwrap().revision,
        first.compilation.policy.as_ref().unwrap().revision
    );
    // Gone, it holds on, and it is said.
    let third = mk_load(&files(None), Some(&second));
    assert_eq!((authority(&third).as_deref(), mistakes(&third).len()), (Some("NEXT"), 1));

    let mut twice = files(Some(config_map("PEM")));
    twice.push(mk_file("more.yaml", &config_map("OTHER")));
    let said = mistakes(&mk_load(&twice, None));
    assert_eq!(said, ["more.yaml:1:1: ConfigMap mail/ca: is there twice; remove one of them"]);
}
