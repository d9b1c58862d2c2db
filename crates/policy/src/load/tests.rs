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
    assert_eq!(first.findings, vec![]);
    files[1] = mk_file("a.yaml", &mk_domain("a", &["a.example"], "  colour: red\n"));
    let second = mk_load(&files, Some(&first));
    assert_eq!(second.findings.len(), 1);
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
    assert_eq!(second.findings, vec![]);
}

#[test]
fn an_object_may_move_to_another_file() {
    let first = mk_load(&mk_three(), None);
    let mut files = mk_three();
    files[2].name = "moved.yaml".to_owned();
    let second = mk_load(&files, Some(&first));
    assert_eq!(second.findings, vec![]);
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
    let shown: Vec<String> = mk_load(&files, None).findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "a.yaml:5:13: MailDomain mail/a: spec.domains[0]: is \"co.uk\"; it is a public suffix, under which anyone can register; name the domain that you own",
            "a.yaml:5:22: MailDomain mail/a: spec.domains[1]: is \"a..example\"; it is no valid domain name: two dots stand side by side, or one stands in front",
            "m.yaml: permission denied",
            "z.yaml:4:18: MailGateway default: spec.hostname: is \"mx\"; write the full name, such as mx.example.net",
        ]
    );
}
