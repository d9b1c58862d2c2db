//! Two operators: one writes, and never is something older put in place of something newer.

use std::time::Duration;

use serde_json::{Value, json};
use torwart_tests::cluster::{Installation, Kind, condition};
use torwart_tests::{Client, Part, Upstream, eventually};

/// Who has the lease.
fn holder(installation: &Installation) -> String {
    let name = format!("torwart-operator-{}", installation.gateway);
    let lease = installation.api.find(Kind::Lease, &installation.namespace, &name);
    lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn leads(operator: &Part) -> bool {
    operator.metrics().sum("torwart_operator_leader", &[]) == 1.0
}

#[track_caller]
fn wait_leads(operator: &Part) {
    operator.wait_metrics("it leads", |metrics| metrics.sum("torwart_operator_leader", &[]) == 1.0);
}

fn apply(installation: &Installation, name: &str, number: usize, upstream: &Upstream) {
    let domain = format!("d{number}.example");
    installation.api.apply(&installation.domain_manifest(name, &[&domain], upstream.endpoint));
}

#[test]
fn when_the_leading_operator_is_killed_another_takes_over() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let history = installation.history();
    let mut first = installation.operator().start();
    wait_leads(&first);
    let second = installation.operator().start();
    let verdict = installation.verdict().start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    apply(&installation, "one", 1, &upstream);
    installation.wait_programmed("one");
    let before = holder(&installation);
    assert!(!leads(&second), "one at a time");
    first.kill();
    apply(&installation, "one", 2, &upstream);
    installation.wait_programmed("one");
    wait_leads(&second);
    assert_ne!(holder(&installation), before);
    history.assert_whole();
}

#[test]
fn an_operator_that_ends_in_order_gives_the_lease_back() {
    let Some(installation) = Installation::new() else { return };
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let mut first = installation.operator().start();
    wait_leads(&first);
    first.signal("TERM");
    assert!(first.process().wait(Duration::from_secs(10)).success());
    assert_eq!(holder(&installation), "", "nobody need wait for it to expire");
}

/// The one thing that a lease can't prevent: a process that goes on where it was stopped, believing that it leads.
#[test]
fn an_operator_that_was_stopped_and_goes_on_puts_nothing_old_in_place() {
    let Some(installation) = Installation::new() else { return };
    let (old, new) = (Upstream::start(), Upstream::start());
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let first = installation.operator().start();
    wait_leads(&first);
    let second = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let change = |weight: usize, upstream: &Upstream| {
        for (n, name) in names.iter().enumerate() {
            let mut object =
                installation.domain_manifest(name, &[&format!("d{n}.example")], upstream.endpoint);
            object["spec"]["route"]["upstreams"][0]["weight"] = json!(weight);
            installation.api.apply(&object);
        }
    };
    change(1, &old);
    names.iter().for_each(|name| installation.wait_programmed(name));
    let history = installation.history();
    let before = history.wait("what is there", |_| true);
    // It is in the middle of its work: the first of these changes is out, the others are not.
    std::thread::scope(|scope| {
        scope.spawn(|| (2..6).for_each(|weight| change(weight, &old)));
        history.wait("it publishes", |index| index.sequence > before.sequence);
        first.signal("STOP");
    });
    change(7, &old);
    installation.wait_programmed("m0");
    wait_leads(&second);
    first.signal("CONT");
    change(8, &new);
    names.iter().for_each(|name| installation.wait_programmed(name));
    first.wait_metrics("it knows that it lost", |metrics| metrics.sum("torwart_operator_leader", &[]) == 0.0);
    history.assert_whole();
    // The statuses are about the newest forms, and mail goes by them.
    for (n, name) in names.iter().enumerate() {
        let object = installation.api.get(Kind::MailDomain, &installation.namespace, name);
        let accepted = condition(&object, "Accepted").map(|(status, ..)| status);
        assert_eq!(accepted, Some("True"), "{object}");
        let to = format!("bert@d{n}.example");
        assert_eq!(
            Client::greeted(edge.listen).mail("anna@sender.example", &[&to], b"\r\n").code,
            250,
            "{to}"
        );
    }
    assert_eq!((old.received().len(), new.received().len()), (0, names.len()));
}

/// It runs, but reaches nobody: as stopped, with a clock.
#[test]
fn a_leader_that_loses_the_api_server_gives_up_and_comes_back_as_a_standby() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let way = installation.forwarder();
    let first = installation.operator_by(&installation.kubeconfig("torwart-operator", Some(&way))).start();
    wait_leads(&first);
    let second = installation.operator().start();
    let verdict = installation.verdict().start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    apply(&installation, "one", 1, &upstream);
    installation.wait_programmed("one");
    let history = installation.history();
    way.close();
    apply(&installation, "one", 2, &upstream);
    installation.wait_programmed("one");
    wait_leads(&second);
    assert!(!leads(&first));
    way.open();
    apply(&installation, "one", 3, &upstream);
    installation.wait_programmed("one");
    history.assert_whole();
    eventually("it is still no leader", || !leads(&first) && leads(&second));
}

/// What a person may do by mistake.
#[test]
fn an_index_that_was_deleted_is_published_again_with_a_higher_number() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let _operator = installation.operator().start();
    let verdict = installation.verdict().start();
    let edge = installation.edge(&[&verdict]).start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    apply(&installation, "one", 1, &upstream);
    installation.wait_programmed("one");
    let before = installation.index().unwrap();
    let name = format!("torwart-policy-{}", installation.gateway);
    installation.api.delete(Kind::ConfigMap, &installation.namespace, &name);
    let mail =
        || Client::greeted(edge.listen).mail("anna@sender.example", &["bert@d1.example"], b"\r\n").code;
    assert_eq!(mail(), 250, "a verdict keeps what it has");
    apply(&installation, "one", 1, &upstream);
    eventually("it is there again", || {
        installation.index().is_some_and(|index| index.sequence > before.sequence)
    });
    apply(&installation, "two", 2, &upstream);
    installation.wait_programmed("two");
    assert_eq!(mail(), 250);
}

/// The last line of every plan: nobody who does not lead writes.
#[test]
fn a_standby_writes_nothing() {
    let Some(installation) = Installation::new() else { return };
    let upstream = Upstream::start();
    installation.api.apply(&installation.gateway_manifest(&json!({})));
    let first = installation.operator().start();
    wait_leads(&first);
    let standby = installation.operator().start();
    let verdict = installation.verdict().start();
    let _pod = installation.pod("verdict-0", verdict.listen);
    apply(&installation, "one", 1, &upstream);
    installation.wait_programmed("one");
    let writes: f64 = standby.metrics().sum("torwart_operator_writes_total", &[]);
    assert_eq!(writes, 0.0, "{}", standby.metrics().text());
    assert!(first.metrics().sum("torwart_operator_writes_total", &[]) > 0.0);
    let object: Value = installation.api.get(Kind::MailDomain, &installation.namespace, "one");
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        managers
            .iter()
            .any(|entry| entry["manager"] == "torwart-operator" && entry["subresource"] == "status")
    );
}
