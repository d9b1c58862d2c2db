//! The chart on a real node: pods that run, probes that are asked, Services that lead somewhere.
//!
//! `TORWART_TEST_NODE` names the tool that starts the cluster (`TOOL up`, `load`, `exec`, `client`, `restart`, `down`),
//! `TORWART_STATIC_BIN` the binary that becomes the image. Without them nothing here runs, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::thread;
use std::time::{Duration, Instant};

use node::{FIRST, Load, Node, SECOND};

/// For what takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

fn await_that(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::park_timeout(Duration::from_millis(200));
    }
}

/// The story of one installation, since an installation takes its time.
#[test]
fn a_release_is_installed_takes_mail_is_upgraded_and_disturbed_under_load_and_goes_without_a_trace() {
    let Some(node) = Node::start() else { return };
    node.load_images();

    // Ten lines of values, and one MailDomain.
    let began = Instant::now();
    node.helm(&[
        "install",
        "torwart",
        "CHART",
        "--create-namespace",
        "-f",
        "VALUES",
        "--wait",
        "--timeout",
        "110s",
    ]);
    println!("helm install --wait: {:?}", began.elapsed());
    let sink = node.sink();
    node.apply(&node::mail_domain(&FIRST, ""));
    node.kubectl(&["wait", "maildomain/example-org", "--for=condition=Programmed", "--timeout=60s"]);
    println!("from nothing to a mail domain in force: {:?}", began.elapsed());

    // Deferred, tried again, delivered; and the log knows the client's own address.
    let load = Load::start(&node, &FIRST, "first", 1);
    await_that("one mail is taken", LIMIT, || load.count("accepted") >= 1);
    load.stop(LIMIT);
    assert!(load.count("deferred") >= 1, "nothing was deferred:\n{}", load.text());
    assert_eq!(load.count("refused"), 0, "{}", load.text());
    await_that("it is in the mail server", LIMIT, || !sink.received().is_empty());
    let log = node.kubectl(&["logs", "-l", "app.kubernetes.io/component=edge", "--tail=-1"]);
    let line = format!("\"client\":\"{}\"", node::CLIENT);
    assert!(log.contains(&line), "no {line} in the log:\n{log}");
    node.helm(&["test", "torwart", "--timeout", "60s"]);

    // Everything that happens in the life of an installation, under steady load.
    let load = Load::start(&node, &FIRST, "load", 4);
    let goes_on = |what: &str| {
        let before = load.count("accepted");
        await_that(&format!("mail flows after: {what}"), LIMIT, || load.count("accepted") > before + 20);
        println!("{what}: {} taken so far", load.count("accepted"));
    };
    goes_on("the beginning");
    node.helm(&[
        "upgrade", "torwart", "CHART", "-f", "VALUES", "--wait", "--timeout", "110s", "--set",
        "edge.podAnnotations.turn=second,verdict.podAnnotations.turn=second,operator.podAnnotations.turn=second",
    ]);
    goes_on("an upgrade");
    for part in ["edge", "verdict", "operator"] {
        let pod = node.pod(part);
        node.kubectl(&["delete", "pod", &pod, "--wait=false"]);
        goes_on(&format!("{part} pod deleted"));
    }
    for part in ["edge", "verdict"] {
        node.wait_ready(part);
        node.evict(&node.pod(part));
        goes_on(&format!("{part} pod evicted"));
    }
    node.kubectl(&["delete", "pod", &node.pod("redis"), "--grace-period=0", "--force"]);
    goes_on("Redis killed");
    node.tool(&["restart", "kas"]);
    goes_on("API server killed");
    node.wait_api();
    for replicas in [1, 3, 1] {
        node.kubectl(&["scale", "deployment/torwart-edge", &format!("--replicas={replicas}")]);
        node.kubectl(&["rollout", "status", "deployment/torwart-edge", "--timeout=120s"]);
        goes_on(&format!("{replicas} edge pods"));
    }
    node.apply(&node::mail_domain(&FIRST, "  limits: {recipients: 7}\n"));
    node.kubectl(&["wait", "maildomain/example-org", "--for=condition=Programmed", "--timeout=60s"]);
    goes_on("a MailDomain changed");
    load.stop(LIMIT);

    // Nothing lost, nothing doubled, and no 5xx.
    assert_eq!(load.count("refused"), 0, "{}", load.text());
    let (accepted, unclear) = (load.ids("accepted"), load.ids("unclear"));
    let received = sink.received();
    let times = |id: &str| received.iter().filter(|received| *received == id).count();
    for id in &accepted {
        let tries_unclear = unclear.iter().filter(|unclear| *unclear == id).count();
        let times = times(id);
        assert!(times >= 1, "{id} was taken and is lost");
        assert!(times <= 1 + tries_unclear, "{id} came {times} times");
    }
    println!(
        "{} mails taken, {} of them after an unclear try; {} deferred, {} connections lost",
        accepted.len(),
        unclear.len(),
        load.count("deferred"),
        load.count("lost")
    );

    // Another installation beside it, in the same namespace even: both take mail, and one goes without the other.
    let port = format!("edge.service.nodePort={}", SECOND.node_port);
    node.helm(&[
        "install",
        SECOND.name,
        "CHART",
        "-f",
        "VALUES",
        "--set",
        &port,
        "--wait",
        "--timeout",
        "110s",
    ]);
    node.apply(&node::mail_domain(&SECOND, ""));
    node.kubectl(&["wait", "maildomain/example-net", "--for=condition=Programmed", "--timeout=60s"]);
    for (release, name) in [(&SECOND, "beside"), (&FIRST, "still")] {
        node.takes_mail(release, name);
    }
    node.kubectl(&["delete", "maildomain/example-net"]);
    node.helm(&["uninstall", SECOND.name, "--wait", "--timeout", "120s"]);
    node.takes_mail(&FIRST, "alone");
    println!("a second release came and went: {:?}", began.elapsed());

    // Only what is not the release's own stays.
    node.kubectl(&["delete", "maildomain/example-org"]);
    node.helm(&["uninstall", FIRST.name, "--wait", "--timeout", "120s"]);
    let kinds = "deployments,replicasets,statefulsets,jobs,cronjobs,services,configmaps,secrets,serviceaccounts,roles,\
                 rolebindings,poddisruptionbudgets,horizontalpodautoscalers,networkpolicies,leases,mailgateways";
    let left = || {
        let text = node.kubectl(&["get", kinds, "-o", "name", "--ignore-not-found"]);
        let usual = |line: &&str| {
            !line.contains("default-token") && !line.ends_with("/default") && !line.contains("kube-root-ca")
        };
        text.lines().filter(|line| !line.is_empty()).filter(usual).map(str::to_owned).collect::<Vec<_>>()
    };
    await_that("the objects of the release go", LIMIT, || left().is_empty());
    let wide = node.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"]);
    assert!(!wide.contains("torwart"), "{wide}");
    let crds = node.kubectl(&["get", "crds", "-o", "name"]);
    assert!(crds.contains("maildomains.torwart.dev") && crds.contains("mailgateways.torwart.dev"), "{crds}");
}
