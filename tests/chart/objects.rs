//! Everything that the chart renders is accepted, and belongs together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use torwart_tests::cluster::Api;
use torwart_tests::{Output, eventually};

use crate::helm::{Helm, LEAST, items, kind, name, namespace, pod, values_file};
use crate::install::Namespace;

/// Kinds of other people's CRDs, which no API server of ours has.
const FOREIGN: [&str; 4] = ["Certificate", "Issuer", "ServiceMonitor", "PrometheusRule"];

/// Each option, on top of the least that must be said.
const OPTIONS: [&[&str]; 26] = [
    &[],
    &["--set", "plain=true"],
    &["--set", "fullnameOverride=gate"],
    &["--set", "edge.autoscaling.enabled=true"],
    &["--set", "verdict.autoscaling.enabled=true"],
    &["--set", "edge.service.type=NodePort", "--set", "edge.service.nodePort=30125"],
    &["--set", "edge.service.type=ClusterIP"],
    &["--set", "edge.service.externalTrafficPolicy=Cluster"],
    &["--set", "edge.service.cloud=azure"],
    &["--set", "edge.service.cloud=gcp"],
    &["--set", "edge.service.cloud=openstack"],
    &["--set", "edge.certificates={mx}"],
    &["--set", "edge.proxyProtocol.enabled=true", "--set", "edge.proxyProtocol.from={10.0.0.0/24}"],
    &["--set", "redis.persistence.enabled=true", "--set", "redis.persistence.storageClass=fast"],
    &["--set", "redis.authSecret=mine"],
    &["--set", "tls.mode=certManager"],
    &["--set", "tls.mode=certManager", "--set", "tls.certManager.issuer.name=ours"],
    &[
        "--set",
        "tls.mode=secrets",
        "--set",
        "tls.secrets.edge=e,tls.secrets.verdict=v,tls.secrets.operator=o",
    ],
    &[
        "--set",
        "resolver.enabled=true,resolver.clusterIP=10.0.0.54",
        "--set",
        "resolver.clusterDNS={10.0.0.10}",
    ],
    &["--set", "networkPolicy.enabled=true"],
    &["--set", "rbac.create=false", "--set", "cleanup.enabled=false", "--set", "gateway.create=false"],
    &["--set", "topologySpread.enabled=false", "--set", "podDisruptionBudget.enabled=false"],
    &["--set", "traces.endpoint=http://collector:4317"],
    &["--set", "monitoring.dashboards.enabled=true", "--set", "monitoring.alerts.enabled=true"],
    &["--set", "monitoring.serviceMonitor.enabled=true"],
    &[
        "--set",
        "edge.extraArgs={--a}",
        "--set",
        "verdict.extraArgs={--b}",
        "--set",
        "operator.extraArgs={--c}",
    ],
];

/// All of them, and many at once.
fn everything(helm: &Helm, namespace: &str) -> Vec<(String, String)> {
    let full = values_file("full-values.yaml");
    let full = helm.text("torwart", namespace, &[&full[0], &full[1]]);
    let mut all = vec![("ci/full-values.yaml".to_owned(), full)];
    for flags in OPTIONS {
        let text = helm.text("torwart", namespace, &[LEAST.as_slice(), flags].concat());
        all.push((flags.join(" "), text));
    }
    all
}

#[test]
fn the_chart_lints_strictly() {
    let Some(helm) = Helm::new() else { return };
    let chart = crate::helm::chart().display().to_string();
    helm.ok(&["lint", "--strict", &chart]);
    for file in ["quick-values.yaml", "full-values.yaml"] {
        let [flag, file] = values_file(file);
        helm.ok(&["lint", "--strict", &chart, &flag, &file]);
    }
}

/// The server-side dry run: defaults, validation and CRD rules of the API server, and nothing stays.
#[test]
fn the_api_server_accepts_every_object_of_every_option() {
    let Some(helm) = Helm::new() else { return };
    let own = Namespace::new(&helm.api);
    with_crds(&helm.api);
    let mut seen = BTreeSet::new();
    for (option, text) in everything(&helm, &own.name) {
        let objects = helm.parse(&text);
        let ours: Vec<&Value> = objects.iter().filter(|object| !FOREIGN.contains(&kind(object))).collect();
        seen.extend(ours.iter().map(|object| kind(object).to_owned()));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": ours}).to_string();
        let output = dry_run(&helm.api, &list);
        assert_eq!(output.code, 0, "{option}: {}", output.text);
        let accepted = output.text.lines().filter(|line| line.contains("dry run")).count();
        assert_eq!(accepted, ours.len(), "{option}: {}", output.text);
    }
    for expected in ["Deployment", "CronJob", "HorizontalPodAutoscaler", "NetworkPolicy", "MailDomain"] {
        assert!(seen.contains(expected), "no option renders a {expected}: {seen:?}");
    }
}

/// That the dry run can fail.
#[test]
fn the_api_server_does_not_accept_what_is_no_object() {
    let Some(helm) = Helm::new() else { return };
    let own = Namespace::new(&helm.api);
    let mut objects = helm.render("torwart", &own.name, &LEAST);
    objects.retain(|object| kind(object) == "Deployment");
    objects[0]["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"] =
        json!("far-too-long-a-name");
    let output = dry_run(&helm.api, &objects[0].to_string());
    assert!(output.code != 0 && output.text.contains("must be no more than 15"), "{}", output.text);
}

#[track_caller]
fn dry_run(api: &Api, text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.json");
    fs::write(&file, text).unwrap();
    api.kubectl(&["apply", "--dry-run=server", "-f", &file.display().to_string()])
}

#[track_caller]
pub(crate) fn with_crds(api: &Api) {
    let crds = crate::helm::root().join("k8s/crds").display().to_string();
    // As helm would have applied them, which otherwise finds a conflict.
    api.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", &crds]);
    // The route of a kind lags a little behind the definition.
    eventually("the kinds are served", || api.kubectl(&["get", "mailgateways,maildomains", "-A"]).code == 0);
}

#[test]
fn every_object_is_valid_in_current_kubernetes() {
    let Some(helm) = Helm::new() else { return };
    let tool = std::env::var("TORWART_TEST_KUBERNETES_VALIDATE");
    let tool = tool.unwrap_or_else(|_| "kubernetes-validate".to_owned());
    if Command::new(&tool).arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing (pip install kubernetes-validate)");
        println!("######## NOT RUN: {tool} is missing (pip install kubernetes-validate) ########");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (i, (_, text)) in everything(&helm, "mail").iter().enumerate() {
        let file = folder.path().join(format!("{i}.yaml"));
        fs::write(&file, text).unwrap();
        files.push(file);
    }
    let output = Output::of(Command::new(&tool).args(["-k", "1.37", "--strict"]).args(&files));
    assert_eq!(output.code, 0, "{}", output.text);
    let unknown = output.text.lines().filter(|line| line.contains("find schema for kind"));
    for line in unknown {
        let known = FOREIGN.iter().chain(&["MailGateway", "MailDomain"]);
        assert!(known.into_iter().any(|kind| line.contains(&format!("kind {kind} "))), "{line}");
    }
    assert!(output.text.contains("passed for resource deployment/torwart-edge"), "{}", output.text);
}

#[test]
fn two_renders_are_equal_and_no_template_can_make_another() {
    let Some(helm) = Helm::new() else { return };
    let [flag, file] = values_file("full-values.yaml");
    let render = || helm.text("torwart", "mail", &[&flag, &file]);
    assert_eq!(render(), render());
    for (file, text) in crate::files::templates() {
        for word in [
            "rand",
            "genCA",
            "genSigned",
            "genSelfSigned",
            "genPrivateKey",
            "uuidv4",
            "htpasswd",
            "encryptAES",
            "now",
            "lookup",
        ] {
            let called = [format!("{{{{ {word}"), format!("({word}"), format!("{{{{- {word}")];
            assert!(!called.iter().any(|call| text.contains(call.as_str())), "{file}: {word}");
        }
    }
}

/// What an object is called in the whole cluster.
fn identity(object: &Value) -> (String, String, String) {
    (kind(object).to_owned(), namespace(object).to_owned(), name(object).to_owned())
}

#[test]
fn two_releases_share_no_name_and_select_no_pod_of_each_other() {
    let Some(helm) = Helm::new() else { return };
    let extra = [
        "--set",
        "networkPolicy.enabled=true",
        "--set",
        "monitoring.dashboards.enabled=true",
        "--set",
        "monitoring.serviceMonitor.enabled=true",
        "--set",
        "monitoring.alerts.enabled=true",
    ];
    let flags = [LEAST.as_slice(), &extra].concat();
    let one = helm.render("torwart", "mail", &flags);
    let two = helm.render("second", "mail", &flags);
    let elsewhere = helm.render("second", "other", &flags);
    let named = |objects: &[Value]| objects.iter().map(identity).collect::<BTreeSet<_>>();
    let shared: Vec<_> = named(&one).intersection(&named(&two)).cloned().collect();
    assert!(shared.is_empty(), "{shared:?}");
    // Of the same name in another namespace: only the MailGateway, which gateway.name tells apart.
    let shared: Vec<_> = named(&two).intersection(&named(&elsewhere)).cloned().collect();
    let gateway = ("MailGateway".to_owned(), String::new(), "second-torwart".to_owned());
    assert_eq!(shared, [gateway], "cluster-scoped names carry the namespace");
    for object in two.iter().filter(|object| kind(object) != "MailGateway") {
        assert!(name(object).contains("second-torwart"), "{}", name(object));
    }
    // Pods are selected by labels of both.
    for object in &two {
        let Some(labels) = selector(object) else { continue };
        for other in &one {
            let Some((metadata, _)) = pod(other) else { continue };
            let taken = labels.iter().all(|(key, value)| metadata["labels"][key] == **value);
            assert!(!taken, "{} {} selects pods of {}", kind(object), name(object), name(other));
        }
    }
}

/// The labels by which an object finds pods.
fn selector(object: &Value) -> Option<BTreeMap<&String, &Value>> {
    let labels = match kind(object) {
        "Service" => &object["spec"]["selector"],
        "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
        "Deployment" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
        _ => return None,
    };
    Some(labels.as_object().unwrap_or_else(|| panic!("{} selects all", name(object))).iter().collect())
}

#[test]
fn every_selector_finds_the_pods_of_one_part_and_every_port_is_theirs() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render_with(&["--set", "networkPolicy.enabled=true"]);
    for object in &objects {
        let Some(labels) = selector(object) else { continue };
        let matching: Vec<&Value> = objects
            .iter()
            .filter(|other| {
                pod(other).is_some_and(|(metadata, _)| {
                    labels.iter().all(|(key, value)| metadata["labels"][key] == **value)
                })
            })
            .collect();
        let parts: BTreeSet<String> = matching
            .iter()
            .map(|other| pod(other).unwrap().0["labels"]["app.kubernetes.io/component"].to_string())
            .collect();
        assert_eq!(parts.len(), 1, "{} {}: {parts:?}", kind(object), name(object));
        if kind(object) == "Service" {
            let (_, spec) = pod(matching[0]).unwrap();
            let there: Vec<&Value> =
                items(&spec["containers"][0]["ports"]).iter().map(|p| &p["name"]).collect();
            for port in items(&object["spec"]["ports"]) {
                assert!(there.contains(&&port["targetPort"]), "{}: {port}", name(object));
            }
        }
    }
}
