//! From `kubectl apply` to delivered mail.

use std::time::Instant;

use torwart_tests::cluster::Installation;
use torwart_tests::{Client, PolicyFile, Upstream, eventually};

#[test]
fn a_manifest_that_kubectl_applies_is_programmed_and_its_mail_is_delivered() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    let _operator = installation.operator().start();
    let verdict = installation.verdict().launch();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    installation.api.apply(&installation.gateway_manifest(&serde_json::json!({})));
    verdict.wait_ready();
    // The form that a user writes, for files and for a cluster alike; only the names are the test's. kubectl reads
    // YAML 1.1, in which a bare Off is false.
    let text = PolicyFile::to(upstream.endpoint).greylisting("{mode: \"Off\"}").text();
    let domain = text.split("---\n").nth(1).unwrap();
    let domain = domain.replace("namespace: mail", &format!("namespace: {}", installation.namespace));
    let domain = domain.replace("{name: default}", &format!("{{name: {}}}", installation.gateway));
    let mail =
        || Client::greeted(edge.listen).mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n");
    assert_eq!(mail().code, 550, "no policy names the domain yet");
    let began = Instant::now();
    let applied = installation.api.kubectl_apply(&domain);
    assert_eq!(applied.code, 0, "{}", applied.text);
    let after_apply = began.elapsed();
    installation.wait_programmed("example-org");
    let programmed = began.elapsed();
    // Every Ready verdict has it, so there is nothing to wait for.
    assert_eq!(mail().code, 250);
    upstream.wait_received(1);
    println!(
        "kubectl took {after_apply:?}; Programmed after {programmed:?}; delivered after {:?}",
        began.elapsed()
    );
    installation.wait_domain(&installation.namespace, "example-org", "UpstreamReachable", "True", "Reached");
    installation.wait_domain(&installation.namespace, "example-org", "Ready", "True", "Ready");
    let table = installation.api.kubectl_ok(&["get", "md", "-n", &installation.namespace]);
    assert!(table.contains("example.org"), "{table}");
    installation.api.kubectl_ok(&["delete", "md", "example-org", "-n", &installation.namespace]);
    eventually("mail for a domain that went is held, and not refused", || mail().code == 451);
}
