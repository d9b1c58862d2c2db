//! What verdict pods say becomes conditions, and decides what is published.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use torwart_proto::v1::{ListStatus, OwnAddressListing, SuspectStatus};
use torwart_tests::Upstream;
use torwart_tests::cluster::Installation;

use crate::scripted::Scripted;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[test]
fn without_a_ready_pod_it_is_unknown_and_with_one_that_does_not_answer_it_is_named() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], upstream.endpoint));
    let namespace = installation.namespace.clone();
    let _operator = installation.operator().start();
    installation.wait_domain(&namespace, "one", "Programmed", "Unknown", "NoVerdictPods");
    assert!(installation.index().is_some(), "it is published all the same, for the pods to come");
    // Nothing listens there.
    let silent = installation.pod("verdict-silent", torwart_tests::endpoint());
    let message = installation.wait_domain(&namespace, "one", "Programmed", "False", "Pending");
    assert!(message.contains("verdict-silent"), "{message}");
    let verdict = installation.verdict().start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    silent.ready(false);
    installation.wait_programmed("one");
    // Once True it stays, whoever comes and goes.
    silent.ready(true);
    installation.api.apply(&installation.domain_manifest("two", &["two.example"], upstream.endpoint));
    installation.wait_domain(&namespace, "two", "Programmed", "False", "Pending");
    installation.wait_programmed("one");
}

#[test]
fn nothing_is_published_in_a_format_that_a_ready_pod_does_not_read() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    let old = Scripted::start(&installation, "verdict-old");
    old.says(|status| status.formats_read = vec![0]);
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], upstream.endpoint));
    let _operator = installation.operator().start();
    installation.wait_domain(&installation.namespace, "one", "Programmed", "False", "FormatNotReadable");
    let message = installation.wait_gateway("Programmed", "False", "FormatNotReadable");
    assert!(message.contains("verdict-old"), "{message}");
    assert!(installation.index().is_none());
    old.says(|status| status.formats_read = vec![0, 1]);
    installation.wait_programmed("one");
    assert!(installation.index().is_some());
}

/// A newer release wrote it, and this operator is the one that is to go.
#[test]
fn an_index_in_a_newer_format_is_left_alone() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    let name = format!("torwart-policy-{}", installation.gateway);
    let text =
        json!({"sequence": 5, "formatVersion": 99, "revision": "00".repeat(32), "slots": {}}).to_string();
    let index = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": installation.namespace}, "data": {"index.json": text}});
    let before = installation.api.apply(&index);
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], upstream.endpoint));
    let pod = Scripted::start(&installation, "verdict-0");
    pod.says(|status| status.formats_read = vec![1, 99]);
    let _operator = installation.operator().start();
    installation.wait_gateway("Programmed", "False", "NewerFormat");
    let after = installation.api.get(torwart_tests::cluster::Kind::ConfigMap, &installation.namespace, &name);
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}

#[test]
fn lists_suspects_and_our_reputation_are_the_gateways_conditions() {
    let Some(installation) = Installation::new() else { return };
    let lists = json!({"dnsLists": [{"name": "zen", "zone": "zen.example.com", "kind": "Block",
        "responses": [{"codes": ["127.0.0.2"], "score": 10}]}]});
    installation.api.apply(&installation.gateway_manifest(&lists));
    let pod = Scripted::start(&installation, "verdict-0");
    let usable = |usable: bool| ListStatus {
        name: "zen".to_owned(),
        usable,
        since: 1,
        detail: "it lists everything".to_owned(),
    };
    pod.says(|status| status.lists = vec![usable(true)]);
    let _operator = installation.operator().start();
    installation.wait_gateway("ListsUsable", "True", "Usable");
    installation.wait_gateway("ReputationClean", "True", "NotListed");
    installation.wait_gateway("ClientIPPreserved", "True", "Preserved");
    pod.says(|status| {
        status.lists = vec![usable(false)];
        status.suspects = Some(SuspectStatus { count: 7, last_seen: now() });
        status.own_addresses_listed =
            vec![OwnAddressListing { address: "192.0.2.25".to_owned(), list: "zen".to_owned(), since: 1 }];
    });
    let message = installation.wait_gateway("ListsUsable", "False", "ListUnusable");
    assert!(message.contains("zen") && message.contains("it lists everything"), "{message}");
    installation.wait_gateway("ClientIPPreserved", "False", "SuspectAddresses");
    let message = installation.wait_gateway("ReputationClean", "False", "OwnAddressListed");
    assert!(message.contains("192.0.2.25") && message.contains("zen"), "{message}");
    pod.says(|status| {
        status.lists = vec![usable(true)];
        status.own_addresses_listed.clear();
    });
    installation.wait_gateway("ListsUsable", "True", "Usable");
    installation.wait_gateway("ReputationClean", "True", "NotListed");
}

#[test]
fn an_upstream_that_is_gone_is_seen_in_the_status_and_so_is_its_return() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let _operator = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    let namespace = installation.namespace.clone();
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], upstream.endpoint));
    installation.wait_programmed("one");
    installation.wait_domain(&namespace, "one", "UpstreamReachable", "Unknown", "NoMail");
    let mail = || {
        torwart_tests::Client::greeted(edge.listen)
            .mail("anna@sender.example", &["bert@example.org"], b"\r\n")
            .code
    };
    upstream.close();
    assert_eq!(mail(), 451);
    installation.wait_domain(&namespace, "one", "UpstreamReachable", "False", "Unreachable");
    installation.wait_domain(&namespace, "one", "Ready", "False", "UpstreamUnreachable");
    upstream.open();
    torwart_tests::eventually("mail flows", || mail() == 250);
    installation.wait_domain(&namespace, "one", "UpstreamReachable", "True", "Reached");
}
