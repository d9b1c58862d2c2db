use super::*;
use crate::inputs::{Resolutions, ServiceKey, ServiceTarget, Tenancy};

fn mk_key(port: &str) -> ServiceKey {
    ServiceKey { namespace: "a".into(), name: "postfix".into(), port: port.into(), lmtp: false }
}

pub(crate) fn mk_cluster(namespaces: &[&str]) -> Tenancy {
    let labels = |name: &str| BTreeMap::from([("team".to_owned(), name.to_owned())]);
    Tenancy::Cluster {
        operator_namespace: "torwart-system".to_owned(),
        namespaces: namespaces.iter().map(|name| ((*name).to_owned(), labels(name))).collect(),
    }
}

fn mk_cluster_inputs(tenants: &str, domains: &[String], last: Option<&Compilation>) -> Inputs {
    let spec = format!("{{hostname: mx.example.net, tenants: {tenants}}}");
    let gateway = GATEWAY.replace("{hostname: mx.example.net}", &spec);
    let text = domains.iter().fold(gateway, |text, domain| format!("{text}---\n{domain}"));
    Inputs { tenancy: mk_cluster(&["a", "b"]), gateway: Some("default".to_owned()), ..mk_inputs(&text, last) }
}

fn errors(compilation: &Compilation, namespace: &str, name: &str) -> Vec<String> {
    let errors = &compilation.outcomes[&ObjectRef::domain(namespace, name)].errors;
    errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
}

#[test]
fn a_namespace_needs_an_entry_and_a_domain_must_be_granted() {
    let tenants = "[{namespaces: [a], domains: [\"*.a.example\", a.example]}]";
    let domains = [
        mk_domain_in("a", "good", &["a.example", "*.a.example"], ""),
        mk_domain_in("a", "bad", &["b.example"], ""),
        mk_domain_in("b", "none", &["a2.example"], ""),
        mk_domain_in("torwart-system", "admin", &["c.example"], ""),
    ];
    let compilation = compile(&mk_cluster_inputs(tenants, &domains, None));
    assert_eq!(errors(&compilation, "a", "good"), [""; 0]);
    assert_eq!(errors(&compilation, "torwart-system", "admin"), [""; 0]);
    assert_eq!(
        errors(&compilation, "a", "bad"),
        ["spec.domains[0]: is b.example, which the namespace a is not granted in spec.tenants"]
    );
    assert_eq!(
        errors(&compilation, "b", "none"),
        ["metadata.namespace: the namespace b has no entry in spec.tenants of MailGateway default"]
    );
}

#[test]
fn a_namespace_must_be_named_and_selected_where_both_are_given() {
    for (tenants, wanted) in [
        ("namespaceSelector: {}", true),
        ("namespaces: [a], namespaceSelector: {}", true),
        ("namespaces: [b], namespaceSelector: {}", false),
        ("namespaceSelector: {matchLabels: {team: a}}", true),
        ("namespaceSelector: {matchLabels: {team: b}}", false),
        ("namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [b]}]}", true),
        ("namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [b]}]}", false),
        ("namespaceSelector: {matchExpressions: [{key: other, operator: DoesNotExist}]}", true),
        ("namespaceSelector: {matchExpressions: [{key: other, operator: Exists}]}", false),
    ] {
        let tenants = format!("[{{{tenants}, domains: [\"*\"]}}]");
        let compilation =
            compile(&mk_cluster_inputs(&tenants, &[mk_domain_in("a", "x", &["a.example"], "")], None));
        assert_eq!(errors(&compilation, "a", "x").is_empty(), wanted, "{tenants}");
    }
}

#[test]
fn an_upstream_must_be_granted_unless_it_is_a_service_of_ones_own() {
    let tenants = "[{namespaces: [a], domains: [\"*\"], upstreams: {hosts: [\"*.corp.example\"], cidrs: [10.9.0.0/16, 0.0.0.0/1, \"::/0\"]}}]";
    for (host, wanted) in [
        ("mail.corp.example", true),
        ("corp.example", false),
        ("mail.a.svc", true),
        ("mail.a.svc.cluster.local", true),
        ("mail.b.svc", false),
        ("x.mail.a.svc", false),
        ("mail", false),
        ("10.9.1.1", true),
        ("192.0.2.1", false),
        ("127.0.0.1", false),
        ("::ffff:127.0.0.1", false),
        ("::1", false),
        ("localhost", false),
        ("169.254.169.254", false),
        ("fe80::1", false),
        ("2001:db8::1", true),
    ] {
        let domain = mk_domain_in("a", "x", &["a.example"], "").replace("mail.a.svc", &format!("\"{host}\""));
        let compilation = compile(&mk_cluster_inputs(tenants, &[domain], None));
        assert_eq!(errors(&compilation, "a", "x").is_empty(), wanted, "{host}");
    }
}

#[test]
fn a_name_below_another_namespaces_domain_is_a_conflict() {
    let tenants = "[{namespaces: [a, b], domains: [\"*\"]}]";
    for (theirs, mine, wanted) in [
        ("x.example", "y.example", true),
        ("x.example", "mail.x.example", false),
        ("x.example", "*.x.example", false),
        ("*.x.example", "mail.x.example", false),
        ("mail.x.example", "*.x.example", false),
        ("mail.x.example", "x.example", true),
        ("x.example", "xx.example", true),
    ] {
        let first = compile(&mk_cluster_inputs(tenants, &[mk_domain_in("b", "t", &[theirs], "")], None));
        let both = [mk_domain_in("b", "t", &[theirs], ""), mk_domain_in("a", "m", &[mine], "")];
        let second = compile(&mk_cluster_inputs(tenants, &both, Some(&first)));
        assert_eq!(errors(&second, "a", "m").is_empty(), wanted, "{mine} beside {theirs}");
        let own = [mk_domain_in("b", "t", &[theirs], ""), mk_domain_in("b", "m", &[mine], "")];
        assert_eq!(errors(&compile(&mk_cluster_inputs(tenants, &own, None)), "b", "m"), [""; 0], "{mine}");
    }
}

#[test]
fn the_loss_of_a_permission_takes_the_domain_away() {
    let domain = [mk_domain_in("a", "x", &["a.example"], "")];
    let first = compile(&mk_cluster_inputs("[{namespaces: [a], domains: [\"*\"]}]", &domain, None));
    let second = compile(&mk_cluster_inputs("[]", &domain, Some(&first)));
    assert_eq!(second.outcomes[&ObjectRef::domain("a", "x")].state, State::Rejected);
    assert_eq!(object_of(&second, "a.example").as_deref(), Some("until 86400"));
}

#[test]
fn a_service_is_where_its_resolution_says() {
    let domain = [mk_domain_in("a", "x", &["a.example"], "")
        .replace("host: mail.a.svc", "service: {name: postfix, port: smtp}")];
    let mut inputs = mk_cluster_inputs("[{namespaces: [a], domains: [\"*\"]}]", &domain, None);
    let key = mk_key("smtp");
    let target = |address: &str| ServiceTarget {
        host: "postfix.a.svc".into(),
        port: 2525,
        address: address.parse().ok(),
    };
    inputs.resolutions =
        Resolutions { services: BTreeMap::from([(key.clone(), target("10.0.0.1"))]), ..Default::default() };
    let compilation = compile(&inputs);
    let policy = compilation.policy.unwrap();
    assert_eq!(
        policy.routes[&known(&policy, "a.example").route].upstreams[0].to_string(),
        "postfix.a.svc:2525"
    );

    inputs.resolutions.services.insert(key, target("169.254.169.254"));
    assert!(errors(&compile(&inputs), "a", "x")[0].contains("link-local"));
}

#[test]
fn another_gateways_object_is_none_of_ours() {
    let other = GATEWAY.replace("name: default", "name: other");
    let mut inputs = mk_cluster_inputs("[]", &[other], None);
    inputs.objects.reverse();
    let compilation = compile(&inputs);
    assert!(compilation.is_clean());
    assert_eq!(compilation.outcomes.len(), 1);
}

const ALL: &str = "[{namespaces: [a], domains: [\"*\"]}]";

fn mk_with_service(more: &str) -> [String; 1] {
    let service = "service: {name: postfix, port: smtp}";
    [mk_domain_in("a", "x", &["a.example"], more).replace("host: mail.a.svc", service)]
}

fn mk_resolutions(address: &str) -> Resolutions {
    let address = address.parse().ok();
    let target = ServiceTarget { host: "postfix.a.svc".into(), port: 2525, address };
    Resolutions { services: BTreeMap::from([(mk_key("smtp"), target)]), ..Default::default() }
}

fn outcome(compilation: &Compilation) -> (State, Vec<&str>, Vec<(Cause, &str)>) {
    let Outcome { state, errors, warnings: _, unresolved } =
        &compilation.outcomes[&ObjectRef::domain("a", "x")];
    let errors = errors.iter().map(|error| error.message.as_str()).collect();
    (*state, errors, unresolved.iter().map(|one| (one.cause, one.message.as_str())).collect())
}

const MISSING: (Cause, &str) = (Cause::ServiceNotFound, "there is no Service a/postfix with a port smtp");

fn address_of(compilation: &Compilation) -> Option<String> {
    let resolved = &compilation.snapshot.as_ref()?.resolutions[&ObjectRef::domain("a", "x")];
    resolved.services["postfix:smtp"].address.map(|address| address.to_string())
}

#[test]
fn a_service_that_never_was_defers_the_domain_and_is_no_mistake_of_the_object() {
    let compilation = compile(&mk_cluster_inputs(ALL, &mk_with_service(""), None));
    assert_eq!(outcome(&compilation), (State::Rejected, vec![], vec![MISSING]));
    assert_eq!(object_of(&compilation, "a.example").as_deref(), Some("held"));
}

#[test]
fn a_service_that_vanished_is_still_where_it_was() {
    let mut inputs = mk_cluster_inputs(ALL, &mk_with_service(""), None);
    inputs.resolutions = mk_resolutions("10.0.0.1");
    let first = compile(&inputs);
    assert_eq!(outcome(&first), (State::Accepted, vec![], vec![]));
    // Twice, since the second time only the snapshot of the first knows it.
    let gone = compile(&mk_cluster_inputs(ALL, &mk_with_service(""), Some(&first)));
    let gone = compile(&mk_cluster_inputs(ALL, &mk_with_service("  enforcement: Monitor\n"), Some(&gone)));
    assert_eq!(outcome(&gone), (State::Accepted, vec![], vec![MISSING]));
    assert_eq!(object_of(&gone, "a.example").as_deref(), Some("a/x"));
    assert_eq!(address_of(&gone).as_deref(), Some("10.0.0.1"));
}

#[test]
fn a_form_that_is_kept_outlives_its_service_and_says_so() {
    let mut inputs = mk_cluster_inputs(ALL, &mk_with_service(""), None);
    inputs.resolutions = mk_resolutions("10.0.0.1");
    let first = compile(&inputs);
    let bad = [mk_domain_in("a", "x", &["a.example", "co.uk"], "")];
    let kept = compile(&mk_cluster_inputs(ALL, &bad, Some(&first)));
    let (state, errors, unresolved) = outcome(&kept);
    assert_eq!((state, errors.len(), unresolved), (State::Kept, 1, vec![MISSING]));
    assert_eq!(object_of(&kept, "a.example").as_deref(), Some("a/x"));

    // And follows it to its new address.
    let mut inputs = mk_cluster_inputs(ALL, &bad, Some(&kept));
    inputs.resolutions = mk_resolutions("10.0.0.2");
    let moved = compile(&inputs);
    assert_eq!(outcome(&moved).2, vec![]);
    assert_eq!(address_of(&moved).as_deref(), Some("10.0.0.2"));
}

#[test]
fn a_form_with_a_reference_that_leads_nowhere_leaves_its_last_one_in_force() {
    let good = [mk_domain_in("a", "x", &["a.example"], "")];
    let first = compile(&mk_cluster_inputs(ALL, &good, None));
    let second = compile(&mk_cluster_inputs(ALL, &mk_with_service(""), Some(&first)));
    assert_eq!(outcome(&second), (State::Kept, vec![], vec![MISSING]));
    assert_eq!(object_of(&second, "a.example").as_deref(), Some("a/x"));
}

#[test]
fn a_service_with_a_new_address_makes_a_new_snapshot() {
    let mut inputs = mk_cluster_inputs(ALL, &mk_with_service(""), None);
    inputs.resolutions = mk_resolutions("10.0.0.1");
    let first = compile(&inputs);
    inputs.last = first.snapshot.clone();
    inputs.resolutions = mk_resolutions("10.0.0.2");
    let second = compile(&inputs);
    assert_eq!(address_of(&second).as_deref(), Some("10.0.0.2"));
    assert_ne!(first.snapshot.unwrap().revision, second.snapshot.unwrap().revision);
}

#[test]
fn a_service_that_may_no_longer_be_used_is_not_where_it_was() {
    let mut inputs = mk_cluster_inputs(ALL, &mk_with_service(""), None);
    inputs.resolutions = mk_resolutions("10.0.0.1");
    inputs.last = compile(&inputs).snapshot;
    let refused = BTreeMap::from([(mk_key("smtp"), "is an ExternalName".to_owned())]);
    inputs.resolutions = Resolutions { refused, ..Default::default() };
    let second = compile(&inputs);
    let wanted = (State::Rejected, vec![], vec![(Cause::ServiceNotFound, "is an ExternalName")]);
    assert_eq!(outcome(&second), wanted);
    assert_eq!(object_of(&second, "a.example").as_deref(), Some("held"));
}

#[test]
fn an_authority_holds_on_and_can_be_no_larger_than_it_may() {
    let more = "  tls: {caRef: {name: ca}}";
    let domain = mk_domain_in("a", "x", &["a.example"], "")
        .replace("}]}}", &format!("}}], {}}}", more.trim()))
        .replace("}]}\n", &format!("}}], {}}}\n", more.trim()));
    let domains = [domain];
    let with = |pem: &str, last: Option<&Compilation>| {
        let mut inputs = mk_cluster_inputs(ALL, &domains, last);
        inputs.resolutions.authorities = BTreeMap::from([("a/ca".to_owned(), pem.to_owned())]);
        compile(&inputs)
    };
    let first = with("PEM", None);
    assert_eq!(outcome(&first), (State::Accepted, vec![], vec![]));
    let gone = compile(&mk_cluster_inputs(ALL, &domains, Some(&first)));
    let large = with(&"x".repeat(65_537), Some(&first));
    for (compilation, wanted) in [(gone, "there is no ConfigMap a/ca"), (large, "has 65537 bytes")] {
        let (state, _, unresolved) = outcome(&compilation);
        assert_eq!((state, unresolved[0].0), (State::Accepted, Cause::AuthorityNotFound));
        assert!(unresolved[0].1.contains(wanted), "{unresolved:?}");
        let policy = compilation.policy.unwrap();
        let route = &policy.routes[&known(&policy, "a.example").route];
        assert_eq!(route.tls.ca.as_deref(), Some("PEM"));
    }
}

#[test]
fn every_refusal_says_whose_fault_it_is() {
    let tenants = "[{namespaces: [a], domains: [\"*.a.example\", a.example]}]";
    let domains = [
        mk_domain_in("a", "first", &["a.example"], ""),
        mk_domain_in("a", "second", &["a.example"], ""),
        mk_domain_in("a", "foreign", &["b.example"], ""),
        mk_domain_in("a", "wrong", &["a..example"], ""),
        mk_domain_in("a", "far", &["x.a.example"], "").replace("mail.a.svc", "mail.b.svc"),
        mk_domain_in("b", "none", &["a2.example"], ""),
    ];
    let compilation = compile(&mk_cluster_inputs(tenants, &domains, None));
    for (namespace, name, wanted) in [
        ("a", "second", Cause::DomainConflict),
        ("a", "foreign", Cause::DomainNotPermitted),
        ("a", "wrong", Cause::Invalid),
        ("a", "far", Cause::UpstreamNotPermitted),
        ("b", "none", Cause::NamespaceNotPermitted),
    ] {
        let errors = &compilation.outcomes[&ObjectRef::domain(namespace, name)].errors;
        assert_eq!(errors.iter().map(|error| error.cause).collect::<Vec<_>>(), [wanted], "{name}");
    }
}

#[test]
fn a_name_for_another_host_is_no_service_of_ones_own() {
    let tenants = "[{namespaces: [a], domains: [\"*\"]}]";
    let mut inputs = mk_cluster_inputs(tenants, &[mk_domain_in("a", "x", &["a.example"], "")], None);
    let first = compile(&inputs);
    assert_eq!(errors(&first, "a", "x"), [""; 0]);
    inputs.resolutions.external.insert(("a".to_owned(), "mail".to_owned()));
    inputs.last = first.snapshot;
    let second = compile(&inputs);
    let said = errors(&second, "a", "x");
    assert!(said[0].contains("ExternalName"), "{said:?}");
    // Nor does the form hold on that was accepted while it was another Service.
    assert_eq!(object_of(&second, "a.example").as_deref(), Some("held"));
}

/// The namespaces of the tenants lose their labels: what they had is not permitted any more, all at once.
#[test]
fn a_mass_removal_is_held_though_nothing_of_the_last_policy_is_permitted_any_more() {
    let tenants = "[{namespaceSelector: {matchLabels: {team: a}}, domains: [\"*\"]}]";
    let domains: Vec<String> =
        (0..12).map(|n| mk_domain_in("a", &format!("d{n}"), &[&format!("d{n}.example")], "")).collect();
    let first = compile(&mk_cluster_inputs(tenants, &domains, None));
    assert_eq!(first.policy.as_ref().unwrap().domains.len(), 12);
    let unlabelled =
        Inputs { tenancy: mk_cluster(&["b"]), ..mk_cluster_inputs(tenants, &domains, Some(&first)) };
    let gone = Inputs { tenancy: mk_cluster(&["b"]), ..mk_cluster_inputs(tenants, &[], Some(&first)) };
    for inputs in [unlabelled, gone] {
        let held = compile(&inputs);
        let removal = held.mass_removal.as_ref().unwrap();
        assert_eq!((removal.removed, removal.of), (12, 12));
        assert_eq!(held.policy.as_ref().unwrap().domains.len(), 12);
        // And again, from what is published then.
        let again = compile(&Inputs { last: held.snapshot.clone(), ..inputs });
        assert_eq!(again.snapshot.unwrap().revision, held.snapshot.unwrap().revision);
    }
}
