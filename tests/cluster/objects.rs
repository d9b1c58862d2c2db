//! Objects that come, change, are wrong, lack something and go.

use serde_json::{Value, json};
use torwart_tests::cluster::{Installation, Kind};
use torwart_tests::{Client, Part, Upstream, eventually};

/// With a gateway, an operator, and one verdict whose pod is Ready; dropped in this order.
struct Running {
    _pod: torwart_tests::cluster::Pod,
    edge: Part,
    _verdict: Part,
    _operator: Part,
}

fn run(installation: &Installation, gateway: &Value) -> Running {
    installation.api.apply(&installation.gateway_manifest(gateway));
    let operator = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let pod = installation.pod("verdict-0", verdict.listen);
    Running { _pod: pod, edge, _verdict: verdict, _operator: operator }
}

impl Running {
    fn code(&self, to: &str) -> u16 {
        Client::greeted(self.edge.listen).mail("anna@sender.example", &[to], b"Subject: x\r\n").code
    }
}

#[test]
fn a_change_moves_mail_and_a_deletion_holds_it_for_the_removal_grace() {
    let Some(installation) = Installation::new() else { return };
    let (first, second) = (Upstream::start(), Upstream::start());
    let running = run(&installation, &json!({"removalGrace": "3s"}));
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], first.endpoint));
    installation.wait_programmed("one");
    assert_eq!(running.code("bert@example.org"), 250);
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], second.endpoint));
    installation.wait_programmed("one");
    assert_eq!(running.code("bert@example.org"), 250);
    assert_eq!((first.received().len(), second.received().len()), (1, 1));
    installation.api.delete(Kind::MailDomain, &installation.namespace, "one");
    eventually("it is held", || running.code("bert@example.org") == 451);
    eventually("it is refused once the grace is over", || running.code("bert@example.org") == 550);
}

#[test]
fn two_objects_with_one_domain_conflict_and_the_first_keeps_it() {
    let Some(installation) = Installation::new() else { return };
    let (first, second) = (Upstream::start(), Upstream::start());
    let running = run(&installation, &json!({}));
    let namespace = installation.namespace.clone();
    installation.api.apply(&installation.domain_manifest("b-first", &["example.org"], first.endpoint));
    installation.wait_programmed("b-first");
    installation.api.apply(&installation.domain_manifest("a-second", &["example.org"], second.endpoint));
    let message = installation.wait_domain(&namespace, "a-second", "Accepted", "False", "DomainConflict");
    assert!(message.contains("b-first") && message.contains("example.org"), "{message}");
    eventually("an event says so", || {
        installation.events(&namespace, "a-second").iter().any(|reason| reason.contains("DomainConflict"))
    });
    assert_eq!(running.code("bert@example.org"), 250);
    assert_eq!(first.received().len(), 1);
    installation.api.delete(Kind::MailDomain, &namespace, "b-first");
    installation.wait_programmed("a-second");
    assert_eq!(running.code("bert@example.org"), 250);
    assert_eq!(second.received().len(), 1);
}

#[test]
fn a_bad_spec_is_refused_at_once_with_its_field() {
    let Some(installation) = Installation::new() else { return };
    let good = installation.domain_manifest("one", &["example.org"], "127.0.0.1:25".parse().unwrap());
    let table: [(&str, &[&str], Value); 4] = [
        ("/spec/greylisting/mode", &["greylisting.mode", "Suspicious"], json!("Sometimes")),
        ("/spec/route/upstreams/0/port", &["upstreams[0].port"], json!(70_000)),
        ("/spec/domains", &["domains"], json!([])),
        ("/spec/route/upstreams/0", &["upstreams[0]", "host", "service"], json!({"port": 25})),
    ];
    for (place, words, value) in table {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        let refused = installation.api.kubectl_apply(&bad.to_string());
        assert_ne!(refused.code, 0, "{place} was taken");
        for word in words {
            assert!(refused.text.contains(word), "{place}: no word of {word}: {}", refused.text);
        }
    }
    assert!(installation.api.find(Kind::MailDomain, &installation.namespace, "one").is_none());
    installation.api.apply(&good);
}

/// The schema takes it; our types do not.
#[test]
fn an_object_that_the_schema_lets_by_is_held_and_no_other_suffers() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    let running = run(&installation, &json!({}));
    let namespace = installation.namespace.clone();
    let mut bad = installation.domain_manifest("bad", &["bad.example"], upstream.endpoint);
    // No pattern says how large a number may be.
    bad["spec"]["greylisting"] = json!({"mode": "Off", "delay": "99999999999999999999h"});
    installation.api.apply(&bad);
    installation.api.apply(&installation.domain_manifest("good", &["example.org"], upstream.endpoint));
    installation.wait_programmed("good");
    let message = installation.wait_domain(&namespace, "bad", "Accepted", "False", "Invalid");
    assert!(message.contains("delay"), "{message}");
    assert_eq!(running.code("bert@example.org"), 250);
    eventually("its mail is held", || running.code("bert@bad.example") == 451);
    installation.api.apply(&installation.domain_manifest("bad", &["bad.example"], upstream.endpoint));
    installation.wait_programmed("bad");
    assert_eq!(running.code("bert@bad.example"), 250);
}

#[test]
fn a_missing_service_is_named_and_its_mail_held_until_it_is_there() {
    let Some(installation) = Installation::new() else { return };
    let running = run(&installation, &json!({}));
    let namespace = installation.namespace.clone();
    let mut domain = installation.domain_manifest("one", &["example.org"], "127.0.0.1:25".parse().unwrap());
    domain["spec"]["route"]["upstreams"] = json!([{"service": {"name": "postfix", "port": 25}}]);
    installation.api.apply(&domain);
    let message = installation.wait_domain(&namespace, "one", "ResolvedRefs", "False", "ServiceNotFound");
    assert!(message.contains("postfix"), "{message}");
    installation.wait_domain(&namespace, "one", "Accepted", "True", "Accepted");
    assert_eq!(running.code("bert@example.org"), 451);
    installation.api.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "postfix", "namespace": namespace},
        "spec": {"selector": {"app": "postfix"}, "ports": [{"name": "smtp", "port": 25, "protocol": "TCP"}]}}));
    installation.wait_domain(&namespace, "one", "ResolvedRefs", "True", "Resolved");
    installation.wait_programmed("one");
}

#[test]
fn an_authority_needs_its_label() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    let _running = run(&installation, &json!({}));
    let namespace = installation.namespace.clone();
    let mut domain = installation.domain_manifest("one", &["example.org"], upstream.endpoint);
    domain["spec"]["route"]["tls"] = json!({"mode": "Required", "caRef": {"name": "our-ca"}});
    let pem = std::fs::read_to_string(installation.server_files().1).unwrap();
    let mut authority = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "our-ca", "namespace": namespace},
        "data": {"ca.crt": pem}});
    installation.api.apply(&authority);
    installation.api.apply(&domain);
    let message = installation.wait_domain(&namespace, "one", "ResolvedRefs", "False", "AuthorityNotFound");
    assert!(message.contains("torwart.dev/ca"), "{message}");
    authority["metadata"]["labels"] = json!({"torwart.dev/ca": "true"});
    installation.api.apply(&authority);
    installation.wait_domain(&namespace, "one", "ResolvedRefs", "True", "Resolved");
    installation.wait_programmed("one");
}

#[test]
fn a_mass_removal_is_held_until_it_is_confirmed_by_the_annotation() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    let running = run(&installation, &json!({}));
    for n in 0..12 {
        let domain = format!("d{n}.example");
        installation.api.apply(&installation.domain_manifest(
            &format!("d{n}"),
            &[&domain],
            upstream.endpoint,
        ));
    }
    (0..12).for_each(|n| installation.wait_programmed(&format!("d{n}")));
    installation.api.delete_all(Kind::MailDomain, &installation.namespace);
    let message = installation.wait_gateway("Programmed", "False", "MassRemoval");
    assert_eq!(running.code("bert@d3.example"), 250);
    // The message holds what to set: `name: "value"`.
    let annotation = message.rsplit_once("torwart.dev/").map(|(_, rest)| rest.replace([' ', '"'], ""));
    let annotation = annotation.unwrap_or_else(|| panic!("no annotation in: {message}"));
    let annotation = format!("torwart.dev/{}", annotation.replacen(':', "=", 1));
    installation.api.kubectl_ok(&["annotate", "mailgateway", &installation.gateway, &annotation]);
    installation.wait_gateway("Programmed", "True", "Programmed");
    eventually("they are held", || running.code("bert@d3.example") == 451);
}
