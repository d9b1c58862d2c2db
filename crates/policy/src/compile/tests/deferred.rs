//! Mail domains of objects that are not in force are deferred, never refused.

use super::*;

fn mk_draft(text: &str) -> Object {
    let manifest = mk_objects(text).remove(0).manifest;
    Object { object: manifest.as_ref().unwrap().object_ref(), manifest: None, draft: manifest }
}

#[test]
fn the_domains_of_an_object_that_was_never_good_are_held() {
    let compilation = compile(&mk_inputs(
        &mk_files(&[
            mk_domain("a", &["a.example", "*.a.example", "co.uk", "dot.example."], ""),
            mk_domain("b", &["b.example"], ""),
        ]),
        None,
    ));
    assert_eq!(state(&compilation, "a"), State::Rejected);
    for (domain, wanted) in [
        ("a.example", Some("held")),
        ("x.a.example", Some("held")),
        ("dot.example", Some("held")),
        ("b.example", Some("mail/b")),
        ("x.co.uk", None),
        ("other.example", None),
    ] {
        assert_eq!(object_of(&compilation, domain).as_deref(), wanted, "{domain}");
    }
    assert!(!compilation.policy.unwrap().incomplete);
}

#[test]
fn the_domains_of_a_draft_are_held_until_it_is_mended() {
    let mut inputs = mk_inputs(GATEWAY, None);
    inputs.objects.push(mk_draft(&mk_domain("a", &["a.example"], "")));
    let first = compile(&inputs);
    assert_eq!(object_of(&first, "a.example").as_deref(), Some("held"));
    let mended = compile(&mk_inputs(&mk_files(&[mk_domain("a", &["a.example"], "")]), Some(&first)));
    assert_eq!(object_of(&mended, "a.example").as_deref(), Some("mail/a"));
    assert_ne!(mended.snapshot.unwrap().revision, first.snapshot.unwrap().revision);
}

#[test]
fn of_two_objects_with_one_name_the_domains_of_both_are_held() {
    let both = mk_files(&[mk_domain("a", &["a.example"], ""), mk_domain("a", &["a2.example"], "")]);
    let mut inputs = mk_inputs(&both, None);
    for _ in 0..2 {
        let compilation = compile(&inputs);
        assert_eq!(object_of(&compilation, "a.example").as_deref(), Some("held"));
        assert_eq!(object_of(&compilation, "a2.example").as_deref(), Some("held"));
        inputs.objects.reverse();
    }
}

#[test]
fn what_a_loser_of_a_claim_wants_beside_is_held_and_what_it_lost_is_not() {
    let compilation = compile(&mk_inputs(
        &mk_files(&[mk_domain("a", &["x.example"], ""), mk_domain("b", &["x.example", "y.example"], "")]),
        None,
    ));
    assert_eq!(object_of(&compilation, "x.example").as_deref(), Some("mail/a"));
    assert_eq!(object_of(&compilation, "y.example").as_deref(), Some("held"));
}

#[test]
fn an_accepted_domain_is_never_held() {
    let first = compile(&mk_inputs(&mk_files(&[mk_domain("b", &["b.example"], "")]), None));
    // b keeps its last form; its present one, and the draft of a, ask for what somebody has.
    let mut inputs =
        mk_inputs(&mk_files(&[mk_domain("b", &["b.example", "b2.example", "co.uk"], "")]), Some(&first));
    inputs.objects.push(mk_draft(&mk_domain("a", &["b.example"], "")));
    let second = compile(&inputs);
    assert_eq!(object_of(&second, "b.example").as_deref(), Some("mail/b"));
    assert_eq!(object_of(&second, "b2.example").as_deref(), Some("held"));
    assert_eq!(second.policy.unwrap().domains.held(), 1);
}

#[test]
fn a_tenant_holds_nothing_of_what_it_is_not_granted_or_another_has() {
    let tenants = "{hostname: mx.example.net, tenants: [{namespaces: [a, b], domains: [\"*\"]}, {namespaces: [c], domains: [c.example]}]}";
    let text = format!(
        "{}---\n{}---\n{}---\n{}",
        GATEWAY.replace("{hostname: mx.example.net}", tenants),
        mk_domain_in("a", "a", &["*.a.example"], ""),
        mk_domain_in("b", "b", &["x.a.example", "b.example"], ""),
        mk_domain_in("c", "c", &["c.example", "other.example"], ""),
    );
    let mut inputs = mk_inputs(&text, None);
    inputs.tenancy = tenancy::mk_cluster(&["a", "b", "c"]);
    let compilation = compile(&inputs);
    assert_eq!(object_of(&compilation, "x.a.example").as_deref(), Some("a/a"));
    assert_eq!(object_of(&compilation, "b.example").as_deref(), Some("held"));
    assert_eq!(object_of(&compilation, "c.example").as_deref(), Some("held"));
    assert_eq!(object_of(&compilation, "other.example"), None);
}

#[test]
fn while_nobody_knows_all_domains_none_is_known_to_be_unknown() {
    let text = mk_files(&[mk_domain("a", &["a.example"], "")]);
    let told = Inputs { incomplete: true, ..mk_inputs(&text, None) };
    // It says what it is and no more.
    let mut nameless = mk_inputs(&text, None);
    nameless.objects.push(Object { object: ObjectRef::domain("mail", "b"), manifest: None, draft: None });
    for inputs in [told, nameless] {
        let compilation = compile(&inputs);
        assert!(compilation.policy.as_ref().unwrap().incomplete);
        let mended = compile(&mk_inputs(&text, Some(&compilation)));
        assert!(!mended.policy.unwrap().incomplete);
        assert_ne!(mended.snapshot.unwrap().revision, compilation.snapshot.unwrap().revision);
    }
    // Its last form says which domains it is about.
    let first = compile(&mk_inputs(&text, None));
    let mut kept = mk_inputs(GATEWAY, Some(&first));
    kept.objects.push(Object { object: ObjectRef::domain("mail", "a"), manifest: None, draft: None });
    assert!(!compile(&kept).policy.unwrap().incomplete);
}

#[test]
fn what_is_new_in_a_plan_that_waits_is_held() {
    let first = compile(&mk_inputs(&mk_files(&mk_many(20)), None));
    let held = compile(&mk_inputs(&mk_files(&[mk_domain("new", &["new.example"], "")]), Some(&first)));
    assert!(held.mass_removal.is_some());
    assert_eq!(object_of(&held, "new.example").as_deref(), Some("held"));
    assert_eq!(object_of(&held, "d3.example").as_deref(), Some("mail/d3"));
}

#[test]
fn a_domain_that_left_is_not_taken_over_by_a_wildcard_above_it() {
    let both = [mk_domain("a", &["*.example.org"], ""), mk_domain("b", &["b.example.org"], "")];
    let first = compile(&mk_inputs(&mk_files(&both), None));
    let second = compile(&mk_inputs(&mk_files(&both[..1]), Some(&first)));
    assert_eq!(object_of(&second, "b.example.org").as_deref(), Some("until 86400"));
    assert_eq!(object_of(&second, "c.example.org").as_deref(), Some("mail/a"));
    let later = compile(&Inputs { now: NOW + DAY, ..mk_inputs(&mk_files(&both[..1]), Some(&second)) });
    assert_eq!(object_of(&later, "b.example.org").as_deref(), Some("mail/a"));
}

#[test]
fn localhost_is_where_a_listener_on_every_or_the_loopback_address_listens() {
    for (listener, host, port, refused) in [
        ("0.0.0.0:25", "localhost", 25, true),
        ("[::]:25", "LOCALHOST", 25, true),
        ("127.0.0.1:25", "mail.localhost", 25, true),
        ("[::1]:25", "localhost", 25, true),
        ("192.0.2.1:25", "localhost", 25, false),
        ("0.0.0.0:25", "localhost", 26, false),
        ("0.0.0.0:25", "notlocalhost", 25, false),
    ] {
        let domain = mk_domain("a", &["a.example"], "")
            .replace("{host: mail.mail.svc}", &format!("{{host: {host}, port: {port}}}"));
        let inputs =
            Inputs { listeners: vec![listener.parse().unwrap()], ..mk_inputs(&mk_files(&[domain]), None) };
        let outcome = &compile(&inputs).outcomes[&ObjectRef::domain("mail", "a")];
        let circles = outcome.errors.iter().any(|error| {
            error.path == "spec.route.upstreams[0].host" && error.message.contains("mail would go in circles")
        });
        assert_eq!(circles, refused, "{listener} {host} {port}: {:?}", outcome.errors);
    }
}

#[test]
fn what_is_held_or_not_known_to_be_unknown_hears_451() {
    use crate::decide::{Facts, Finding, screen};
    let told = |policy: &Policy, domain: &str| {
        let facts = Facts {
            client: "192.0.2.77".parse().unwrap(),
            encrypted: false,
            helo: None,
            sender: None,
            declared_size: None,
            recipients: &[torwart_core::Mailbox::new("bob", domain)],
            accepted_before: 0,
            checks: &[],
            dns_lists: &[],
            verified: &[],
            own_addresses: &[],
        };
        match &screen(policy, &facts, NOW).recipients[0].finding {
            Finding::Final(refusal) => format!("{} {}", refusal.reply.code, refusal.reason.as_str()),
            other => format!("{other:?}"),
        }
    };
    let text =
        mk_files(&[mk_domain("a", &["a.example"], ""), mk_domain("b", &["held.example", "co.uk"], "")]);
    let (deferred, refused) = ("451 policy_unavailable", "550 unknown_domain");
    for (incomplete, other) in [(false, refused), (true, deferred)] {
        let policy = compile(&Inputs { incomplete, ..mk_inputs(&text, None) }).policy.unwrap();
        assert_eq!(told(&policy, "a.example"), "Greylist");
        assert_eq!(told(&policy, "held.example"), deferred);
        assert_eq!(told(&policy, "other.example"), other);
    }
}
