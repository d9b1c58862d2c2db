//! The API server or etcd goes away and comes back; mail goes on.

use serde_json::json;
use torwart_tests::cluster::{Installation, OwnCluster};
use torwart_tests::{Client, Part, Upstream, eventually};

fn code(edge: &Part, to: &str) -> u16 {
    Client::greeted(edge.listen).mail("anna@sender.example", &[to], b"Subject: x\r\n").code
}

#[test]
fn api_server_and_etcd_are_killed_and_restarted_and_nothing_is_lost() {
    let Some(own) = OwnCluster::start() else { return };
    let installation = Installation::on(own.api.clone());
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let _operators = [installation.operator().start(), installation.operator().start()];
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    installation.api.apply(&installation.domain_manifest("one", &["d0.example"], upstream.endpoint));
    installation.wait_programmed("one");
    let history = installation.history();
    for (n, component) in ["kas", "etcd", "kas"].into_iter().enumerate() {
        let domain = format!("d{}.example", n + 1);
        own.restart(component);
        assert_eq!(code(&edge, &format!("bert@d{n}.example")), 250, "after {component}");
        eventually("the server takes a change", || {
            installation
                .api
                .try_apply(&installation.domain_manifest("one", &[&domain], upstream.endpoint))
                .is_ok()
        });
        installation.wait_programmed("one");
        assert_eq!(code(&edge, &format!("bert@{domain}")), 250, "after {component}");
    }
    history.assert_whole();
}

#[test]
fn a_verdict_that_starts_without_an_api_server_serves_what_it_had() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], upstream.endpoint));
    let _operator = installation.operator().start();
    let way = installation.forwarder();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("policy.state");
    let kubeconfig = installation.kubeconfig("torwart-verdict", Some(&way));
    let mut verdict = installation.verdict_by(&kubeconfig).flag("--policy-state", state.display()).start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    installation.wait_programmed("one");
    assert_eq!(code(&edge, "bert@example.org"), 250);
    way.close();
    assert_eq!(code(&edge, "bert@example.org"), 250, "what it has, it keeps");
    verdict.kill();
    verdict.start_again();
    eventually("it serves what it had on disk", || code(&edge, "bert@example.org") == 250);
    way.open();
    installation.api.apply(&installation.domain_manifest("one", &["other.example"], upstream.endpoint));
    installation.wait_programmed("one");
    eventually("it follows again", || code(&edge, "bert@other.example") == 250);
}

#[test]
fn a_verdict_without_state_and_without_an_api_server_is_not_ready_and_lets_nothing_bounce() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    installation.api.apply(&installation.domain_manifest("one", &["example.org"], upstream.endpoint));
    let _operator = installation.operator().start();
    let way = installation.forwarder();
    way.close();
    let verdict = installation.verdict_by(&installation.kubeconfig("torwart-verdict", Some(&way))).launch();
    let edge = installation.edge(&[&verdict]).start();
    eventually("its admin port answers", || Client::try_connect(verdict.admin, None).is_ok());
    assert_eq!(verdict.get("/readyz").0, 503);
    assert_eq!(code(&edge, "bert@example.org"), 451);
    way.open();
    verdict.wait_ready();
    eventually("mail flows", || code(&edge, "bert@example.org") == 250);
}
