use proptest::prelude::*;

use super::*;
use crate::compile::tests::mk_policy;

/// A policy in which each name is a MailDomain of its own, and the object that `domain` belongs to.
fn found(names: &[&str], domain: &str) -> Option<String> {
    let objects: String = names
        .iter()
        .enumerate()
        .map(|(i, name)| format!("---\n{}", crate::compile::tests::mk_domain(&format!("d{i}"), &[name], "")))
        .collect();
    let policy = mk_policy(&objects);
    match policy.domains.find(domain, 0) {
        DomainMatch::Known { pattern, .. } => Some(pattern.to_string()),
        _ => None,
    }
}

#[test]
fn the_most_specific_domain_wins() {
    let names =
        ["example.org", "*.example.org", "*.lists.example.org", "eu.lists.example.org", "bücher.example"];
    for (domain, wanted) in [
        ("example.org", Some("example.org")),
        ("EXAMPLE.Org", Some("example.org")),
        ("mail.example.org", Some("*.example.org")),
        ("a.b.example.org", Some("*.example.org")),
        ("lists.example.org", Some("*.example.org")),
        ("us.lists.example.org", Some("*.lists.example.org")),
        ("a.us.lists.example.org", Some("*.lists.example.org")),
        ("eu.lists.example.org", Some("eu.lists.example.org")),
        ("a.eu.lists.example.org", Some("*.lists.example.org")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("Bücher.example", Some("xn--bcher-kva.example")),
        ("BÜCHER.EXAMPLE", Some("xn--bcher-kva.example")),
        ("example.org.", None),
        (".example.org", None),
        ("a..example.org", Some("*.example.org")),
        ("xexample.org", None),
        ("org", None),
        ("", None),
        ("[192.0.2.1]", None),
        ("[example.org]", None),
        ("example.com", None),
        ("bücher.example.", None),
    ] {
        assert_eq!(found(&names, domain).as_deref(), wanted, "{domain}");
    }
}

#[test]
fn a_removed_domain_is_remembered_until_its_time() {
    let pattern = |text| DomainPattern::parse(text).unwrap();
    let table = DomainTable::new([], [], [(pattern("old.example"), 100), (pattern("*.gone.example"), 200)]);
    assert!(matches!(table.find("OLD.example", 99), DomainMatch::Removed { until: 100 }));
    assert!(matches!(table.find("old.example", 100), DomainMatch::Unknown));
    assert!(matches!(table.find("a.gone.example", 199), DomainMatch::Removed { until: 200 }));
    assert!(matches!(table.find("gone.example", 0), DomainMatch::Unknown));
}

#[test]
fn a_wildcard_takes_no_mail_of_a_domain_below_it_that_is_held_or_has_just_left() {
    let policy = mk_policy(&format!(
        "---\n{}---\n{}",
        crate::compile::tests::mk_domain("a", &["*.example.org"], ""),
        crate::compile::tests::mk_domain("b", &["x.held.example.org"], "")
    ));
    let known = |name: &str| match policy.domains.find(name, 0) {
        DomainMatch::Known { domain, .. } => domain.clone(),
        other => panic!("{other:?}"),
    };
    let pattern = |text| DomainPattern::parse(text).unwrap();
    let table = DomainTable::new(
        [
            (pattern("*.example.org"), known("y.example.org")),
            (pattern("x.held.example.org"), known("x.held.example.org")),
        ],
        [pattern("held.example.org"), pattern("*.held.example.org"), pattern("x.held.example.org")],
        [(pattern("old.example.org"), 100), (pattern("*.old.example.org"), 100)],
    );
    let shown = |name: &str, now| match table.find(name, now) {
        DomainMatch::Known { pattern, .. } => pattern.to_string(),
        other => format!("{other:?}"),
    };
    for (name, now, wanted) in [
        ("old.example.org", 99, "Removed { until: 100 }"),
        ("a.b.old.example.org", 99, "Removed { until: 100 }"),
        ("old.example.org", 100, "*.example.org"),
        ("a.b.old.example.org", 100, "*.example.org"),
        ("held.example.org", 0, "Held"),
        ("y.held.example.org", 0, "Held"),
        ("x.held.example.org", 0, "x.held.example.org"),
        ("a.x.held.example.org", 0, "Held"),
        ("new.example.org", 0, "*.example.org"),
    ] {
        assert_eq!(shown(name, now), wanted, "{name} {now}");
    }
    assert_eq!((table.len(), table.iter().count()), (2, 2));
}

#[test]
fn a_pattern_covers_what_lies_under_it() {
    for (over, under, wanted) in [
        ("example.org", "example.org", true),
        ("example.org", "a.example.org", false),
        ("*.example.org", "a.example.org", true),
        ("*.example.org", "a.b.example.org", true),
        ("*.example.org", "example.org", false),
        ("*.example.org", "*.example.org", true),
        ("*.example.org", "*.a.example.org", true),
        ("*.a.example.org", "*.example.org", false),
        ("*.example.org", "xexample.org", false),
    ] {
        let parse = |text| DomainPattern::parse_any(text).unwrap();
        assert_eq!(parse(over).covers(&parse(under)), wanted, "{over} {under}");
    }
}

#[test]
fn a_private_name_and_a_name_below_a_private_suffix_can_be_a_mail_domain() {
    for text in
        ["corp.internal", "mail.corp", "intranet", "alice.github.io", "_dmarc.example.org", "*.internal"]
    {
        assert!(DomainPattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn a_name_longer_than_dns_allows_is_refused() {
    let label = "a".repeat(63);
    let long = [label.as_str(); 4].join(".");
    assert!(DomainPattern::parse(&long[..253]).is_ok());
    assert!(matches!(DomainPattern::parse(&long[..254]), Err(InvalidDomain::Name(_))));
    assert!(matches!(DomainPattern::parse(&format!("a{label}.example")), Err(InvalidDomain::Name(_))));
}

proptest! {
    #[test]
    fn a_pattern_reads_back_as_it_is_shown(text in "(\\*\\.)?[a-zA-Zäß0-9_-]{1,8}(\\.[a-zA-Zéø0-9-]{1,8}){0,3}") {
        if let Ok(pattern) = DomainPattern::parse_any(&text) {
            prop_assert_eq!(DomainPattern::parse_any(&pattern.to_string()), Ok(pattern));
        }
    }

    #[test]
    fn no_text_makes_a_look_up_panic(text in "\\PC{0,300}") {
        let _ = DomainPattern::parse(&text);
        let table = DomainTable::new([], [], [(DomainPattern::parse("*.example.org").unwrap(), 1)]);
        let _ = table.find(&text, 0);
    }
}
