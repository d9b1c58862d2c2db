//! A tenant can't hurt another.

use std::net::SocketAddr;

use serde_json::{Value, json};
use torwart_tests::Client;
use torwart_tests::cluster::Installation;

#[test]
fn a_tenant_that_reaches_for_what_is_not_its_own_is_told_and_gets_nothing() {
    let Some(mut installation) = Installation::new() else { return };
    let shop = installation.tenant(&json!({"mail": "yes"}));
    let blog = installation.tenant(&json!({"mail": "yes"}));
    let stranger = installation.tenant(&json!({}));
    installation.api.apply(&installation.gateway_manifest(&json!({"tenants": [
        {"namespaces": [shop], "domains": ["shop.example", "*.shop.example"],
         "upstreams": {"cidrs": ["192.0.2.0/24"]}},
        {"namespaceSelector": {"matchLabels": {"mail": "yes"}}, "domains": ["*"], "upstreams": {"hosts": ["*.blog.example"]}},
    ]})));
    let _operator = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    let apply = |namespace: &str, name: &str, domain: &str, host: &str| {
        let nowhere = SocketAddr::from(([192, 0, 2, 25], 25));
        let mut object = installation.domain_in(namespace, name, &[domain], nowhere);
        object["spec"]["route"]["upstreams"][0]["host"] = json!(host);
        installation.api.apply(&object);
    };
    let ours = "192.0.2.25";
    apply(&shop, "own", "shop.example", ours);
    installation.wait_domain(&shop, "own", "Programmed", "True", "Programmed");
    let table: [(&str, &str, &str, &str, &str); 7] = [
        (&stranger, "none", "stranger.example", "mx.blog.example", "NamespaceNotPermitted"),
        (&blog, "same", "shop.example", "mx.blog.example", "DomainConflict"),
        (&blog, "below", "other.shop.example", "mx.blog.example", "DomainConflict"),
        (&blog, "reach", "blog.example", ours, "UpstreamNotPermitted"),
        (&shop, "loopback", "more.shop.example", "127.0.0.1", "UpstreamNotPermitted"),
        (&shop, "service", "more2.shop.example", "postfix.kube-system.svc", "UpstreamNotPermitted"),
        // To nobody.
        (&blog, "metadata", "meta.example", "169.254.169.254", "Invalid"),
    ];
    for (namespace, name, domain, host, _) in table {
        apply(namespace, name, domain, host);
    }
    for (namespace, name, domain, _, reason) in table {
        let message = installation.wait_domain(namespace, name, "Accepted", "False", reason);
        assert!(!message.is_empty(), "{name} {domain}");
    }
    // The first entry alone is no leave to claim just anything.
    installation.api.apply(&installation.gateway_manifest(&json!({"tenants": [
        {"namespaces": [shop], "domains": ["shop.example"], "upstreams": {"cidrs": ["192.0.2.0/24"]}}]})));
    apply(&shop, "other", "bank.example", ours);
    installation.wait_domain(&shop, "other", "Accepted", "False", "DomainNotPermitted");
    let mail = |to: &str| Client::greeted(edge.listen).mail("anna@sender.example", &[to], b"\r\n").code;
    let in_force = verdict.get("/policy").1;
    assert!(in_force.contains("shop.example"), "{in_force}");
    for to in ["bert@bank.example", "bert@blog.example", "bert@stranger.example", "bert@meta.example"] {
        assert_ne!(mail(to), 250, "{to}");
    }
    // It loses its permission, and with it what it had.
    let nobody: Value = json!([]);
    installation.api.apply(&installation.gateway_manifest(&json!({"tenants": nobody})));
    installation.wait_domain(&shop, "own", "Accepted", "False", "NamespaceNotPermitted");
}
