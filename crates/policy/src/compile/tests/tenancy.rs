use super::*;
use crate::inputs::{Resolutions, ServiceKey, ServiceTarget, Tenancy};

pub(super) fn mk_cluster(namespaces: &[&str]) -> Tenancy {
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
    assert_eq!(
        errors(&compile(&inputs), "a", "x"),
        ["spec.route.upstreams[0].service: there is no Service a/postfix with a port smtp"]
    );
    let key = ServiceKey { namespace: "a".into(), name: "postfix".into(), port: "smtp".into() };
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
