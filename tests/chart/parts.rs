//! What the chart says to the parts is what they understand, and what they may do is what k8s/rbac says.

use std::fs;
use std::path::Path;

use serde_json::Value;
use torwart_tests::{Gateway, Output};

use crate::helm::{Helm, LEAST, find, items, kind, name, pod, root, values_file};

/// The resolver with what it needs.
const RESOLVER: &str = "resolver.enabled=true,resolver.clusterIP=10.0.0.54,resolver.clusterDNS={10.0.0.10}";

fn arguments(container: &Value) -> Vec<String> {
    items(&container["args"]).iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
}

/// The real binary reads each command line. In a pod only files could be wrong, and those it is said to mount.
#[test]
fn the_binary_understands_every_command_line_that_the_chart_writes() {
    let Some(helm) = Helm::new() else { return };
    let [flag, file] = values_file("full-values.yaml");
    let mut objects = helm.render("torwart", "mail", &[&flag, &file]);
    objects.extend(helm.render("torwart", "mail", &LEAST));
    let mut seen = 0;
    for object in &objects {
        let Some((_, spec)) = pod(object) else { continue };
        for container in items(&spec["containers"]) {
            if !container["command"].is_null() {
                continue;
            }
            let arguments = arguments(container);
            let mounted = |path: &str| {
                items(&container["volumeMounts"])
                    .iter()
                    .any(|mount| Path::new(path).starts_with(mount["mountPath"].as_str().unwrap()))
            };
            for argument in &arguments {
                let (_, value) = argument.split_once('=').unwrap_or_default();
                assert!(!value.starts_with('/') || mounted(value), "{}: {argument}", name(object));
            }
            seen += 1;
            if arguments[0] == "probe" {
                continue;
            }
            let given: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut command = Gateway::command(&given);
            let output = Output::of(command.env("KUBECONFIG", "/nowhere"));
            if arguments[0] == "secrets" {
                assert_eq!(output.code, 1, "{}: {}", name(object), output.text);
                continue;
            }
            assert_eq!(output.code, 2, "{}: {}", name(object), output.text);
            let mistakes = output.text.lines().filter(|line| line.starts_with("  "));
            for mistake in mistakes {
                let folders = ["/etc/torwart/", "/var/lib/torwart", "/var/spool/torwart"];
                let file = folders.iter().any(|folder| mistake.contains(folder));
                assert!(file, "{}: {}", name(object), output.text);
            }
        }
    }
    assert!(seen >= 12, "{seen}");
}

/// Rules without what makes no difference: their order, and that of names.
fn rules(role: &Value) -> Vec<String> {
    let mut rules: Vec<String> = items(&role["rules"])
        .iter()
        .map(|rule| {
            let mut rule = rule.clone();
            for list in rule.as_object_mut().unwrap().values_mut() {
                list.as_array_mut().unwrap().sort_by_key(ToString::to_string);
            }
            rule.to_string()
        })
        .collect();
    rules.sort();
    rules
}

#[test]
fn rights_are_those_of_the_shipped_manifests_rule_for_rule() {
    let Some(helm) = Helm::new() else { return };
    let chart = helm.render("torwart", "torwart-system", &LEAST);
    let mut compared = 0;
    for part in ["edge", "verdict", "operator", "secrets"] {
        let text = fs::read_to_string(root().join(format!("k8s/rbac/{part}.yaml"))).unwrap();
        for shipped in helm.parse(&text) {
            let called = match kind(&shipped) {
                "ClusterRole" | "ClusterRoleBinding" => format!("torwart-system:torwart-{part}"),
                _ if part == "secrets" => name(&shipped).to_owned(),
                _ => format!("torwart-{part}"),
            };
            let ours = find(&chart, kind(&shipped), &called);
            assert_eq!(rules(ours), rules(&shipped), "{called}");
            assert_eq!(ours["subjects"], shipped["subjects"], "{called}");
            compared += rules(ours).len();
        }
    }
    assert!(compared >= 17, "{compared}");
    // And nobody else has any, but the Jobs for their Secrets.
    for object in chart.iter().filter(|object| kind(object).contains("Role")) {
        let who = name(object).trim_start_matches("torwart-system:");
        let known = [
            "torwart-verdict",
            "torwart-operator",
            "torwart-secrets",
            "torwart-secrets-ensure",
            "torwart-secrets-delete",
        ];
        assert!(known.contains(&who), "{who}");
    }
}

/// Whoever runs the same as before is not replaced, and Redis keeps its records.
#[test]
fn another_version_changes_no_pod_but_those_of_its_own_image() {
    let Some(helm) = Helm::new() else { return };
    let template = |tag: &str, part: &str| {
        let tag = format!("image.tag={tag}");
        let objects = helm.render_with(&["--set", RESOLVER, "--set", &tag]);
        find(&objects, "Deployment", &format!("torwart-{part}"))["spec"]["template"].clone()
    };
    for part in ["redis", "resolver"] {
        assert_eq!(template("one", part), template("two", part), "{part}");
    }
    let (mut one, two) = (template("one", "edge"), template("two", "edge"));
    assert_ne!(one, two);
    one["spec"]["containers"][0]["image"] = two["spec"]["containers"][0]["image"].clone();
    assert_eq!(one, two);
    // The chart's own version is in no label of a pod.
    assert!(!template("one", "redis").to_string().contains("helm.sh/chart"));
}

/// Lists refuse what comes through the cluster's DNS, and a key is no part of a command line.
#[test]
fn verdicts_ask_the_releases_own_resolver_and_find_the_keys_of_lists_in_a_folder() {
    let Some(helm) = Helm::new() else { return };
    let pod = |flags: &[&str]| {
        let objects = helm.render_with(flags);
        find(&objects, "Deployment", "torwart-verdict")["spec"]["template"]["spec"].clone()
    };
    let has = |pod: &Value, flag: &str| items(&pod["containers"][0]["args"]).contains(&flag.into());
    let with = pod(&["--set", RESOLVER, "--set", "verdict.listKeysSecret=list-keys"]);
    assert!(
        has(&with, "--dns-server=10.0.0.54") && has(&with, "--secrets-dir=/etc/torwart/list-keys"),
        "{with}"
    );
    let volume = |pod: &Value| items(&pod["volumes"]).iter().find(|it| it["name"] == "list-keys").cloned();
    assert_eq!(volume(&with).unwrap()["secret"]["secretName"], "list-keys");
    let without = pod(&[]);
    assert!(!without.to_string().contains("--dns-server") && !without.to_string().contains("--secrets-dir"));
    assert!(volume(&without).is_none());
}

#[test]
fn renewing_certificates_takes_no_right_to_the_keys_of_the_store() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("torwart", "mail", &LEAST);
    let may = |job: &str, secret: &str| {
        let rules = find(&objects, "Role", job)["rules"].clone();
        items(&rules).iter().any(|rule| items(&rule["resourceNames"]).contains(&secret.into()))
    };
    for secret in ["torwart-store-key", "torwart-redis-auth"] {
        assert!(may("torwart-secrets-ensure", secret) && !may("torwart-secrets", secret), "{secret}");
    }
    assert!(may("torwart-secrets", "torwart-edge-tls"));
}

/// Kubernetes takes an empty list for everyone, and one with a single peer for that peer alone.
#[test]
fn nobody_named_is_everyone_in_a_network_policy() {
    let Some(helm) = Helm::new() else { return };
    let everyone = "networkPolicy.smtpInternal.from=[]";
    let flags = ["--set", "networkPolicy.enabled=true", "--set", RESOLVER];
    let rules = |objects: &[Value], part: &str, way: &str, port: u64| -> Vec<Value> {
        let policy = find(objects, "NetworkPolicy", &format!("torwart-{part}"));
        let has = |rule: &&Value| items(&rule["ports"]).iter().any(|it| it["port"] == port);
        items(&policy["spec"][way]).iter().filter(has).cloned().collect()
    };
    let objects = helm.render_with(&[flags.as_slice(), &["--set-json", everyone]].concat());
    assert!(rules(&objects, "edge", "ingress", 2526)[0]["from"].is_null());
    let one = "networkPolicy.smtpInternal.from=[{\"podSelector\": {}}]";
    let objects = helm.render_with(&[flags.as_slice(), &["--set-json", one]].concat());
    assert_eq!(items(&rules(&objects, "edge", "ingress", 2526)[0]["from"]).len(), 2, "and `helm test`");
    // The resolver asks the cluster's DNS for the cluster's names, whatever else it may ask.
    let world = "networkPolicy.resolver.to=[{\"ipBlock\": {\"cidr\": \"192.0.2.0/24\"}}]";
    let cluster = "networkPolicy.dns.to=[{\"namespaceSelector\": {}}]";
    let more = ["--set-json", world, "--set-json", cluster];
    let objects = helm.render_with(&[flags.as_slice(), &more].concat());
    assert_eq!(rules(&objects, "resolver", "egress", 53).len(), 2);
}

#[test]
fn jobs_may_touch_secrets_of_their_own_release_alone() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("torwart", "mail", &LEAST);
    for job in ["torwart-secrets", "torwart-secrets-ensure", "torwart-secrets-delete"] {
        let role = find(&objects, "Role", job);
        for rule in items(&role["rules"]) {
            let verbs = items(&rule["verbs"]);
            let create_only = verbs.len() == 1 && verbs[0] == "create";
            assert!(create_only || !items(&rule["resourceNames"]).is_empty(), "{job}: {rule}");
            assert!(
                !verbs.iter().any(|verb| verb == "list" || verb == "watch" || verb == "*"),
                "{job}: {rule}"
            );
        }
    }
}

fn seconds(spec: &Value, flag: &str) -> i64 {
    let arguments = arguments(&spec["containers"][0]);
    let value = arguments.iter().find_map(|argument| argument.strip_prefix(flag)).unwrap();
    value.trim_start_matches('=').trim_end_matches('s').parse().unwrap()
}

#[test]
fn pods_are_given_longer_than_they_need_to_drain() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("torwart", "mail", &LEAST);
    // A session that waits for a mail server's last reply has nine minutes more.
    for (part, last_reply) in [("edge", 540), ("verdict", 0)] {
        let (_, spec) = pod(find(&objects, "Deployment", &format!("torwart-{part}"))).unwrap();
        let drain = seconds(spec, "--drain-delay") + seconds(spec, "--drain-timeout") + last_reply;
        let grace = spec["terminationGracePeriodSeconds"].as_i64().unwrap();
        assert!(grace > drain, "{part}: {grace} <= {drain}");
    }
}

fn mebibytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap();
    match text.strip_suffix("Gi") {
        Some(number) => number.parse::<u64>().unwrap() * 1024,
        None => text.strip_suffix("Mi").unwrap().parse().unwrap(),
    }
}

#[test]
fn room_on_disk_is_above_what_is_written_there() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("torwart", "mail", &LEAST);
    let room = |part: &str, volume: &str| {
        let (_, spec) = pod(find(&objects, "Deployment", &format!("torwart-{part}"))).unwrap();
        let found = items(&spec["volumes"]).iter().find(|it| it["name"] == volume).unwrap();
        mebibytes(&found["emptyDir"]["sizeLimit"])
    };
    // The state file has at most 256 MiB, and a new one is written beside it.
    assert!(room("verdict", "state") > 2 * 256);
    // What is held is bounded by the edge itself, before the node evicts it.
    let (_, spec) = pod(find(&objects, "Deployment", "torwart-edge")).unwrap();
    let held = arguments(&spec["containers"][0])
        .into_iter()
        .find_map(|argument| argument.strip_prefix("--spool-max=").map(|max| mebibytes(&Value::from(max))));
    assert!(room("edge", "spool") > held.unwrap());
    let (_, spec) = pod(find(&objects, "Deployment", "torwart-redis")).unwrap();
    let arguments = arguments(&spec["containers"][0]);
    let at = arguments.iter().position(|argument| argument == "--maxmemory").unwrap();
    let most: u64 = arguments[at + 1].strip_suffix("mb").unwrap().parse().unwrap();
    assert!(room("redis", "data") > 4 * most);
    assert!(mebibytes(&spec["containers"][0]["resources"]["limits"]["memory"]) > 2 * most);
    // Every emptyDir has a bound.
    for object in &objects {
        let Some((_, spec)) = pod(object) else { continue };
        for volume in items(&spec["volumes"]) {
            assert!(
                volume["emptyDir"].is_null() || !volume["emptyDir"]["sizeLimit"].is_null(),
                "{}",
                name(object)
            );
        }
    }
}

#[test]
fn with_autoscaling_the_number_of_pods_is_not_rendered() {
    let Some(helm) = Helm::new() else { return };
    for part in ["edge", "verdict"] {
        let called = format!("torwart-{part}");
        let objects = helm.render("torwart", "mail", &LEAST);
        assert_eq!(find(&objects, "Deployment", &called)["spec"]["replicas"], 2);
        let objects = helm.render_with(&["--set", &format!("{part}.autoscaling.enabled=true")]);
        assert!(find(&objects, "Deployment", &called)["spec"]["replicas"].is_null());
        let scaler = find(&objects, "HorizontalPodAutoscaler", &called);
        assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], called);
    }
}

#[test]
fn the_clients_address_is_kept_and_load_balancers_wait_longer_than_senders() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("torwart", "mail", &LEAST);
    let service = find(&objects, "Service", "torwart-edge");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    for (cloud, annotation, value) in [
        (
            "aws",
            "service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-25",
            "tcp.idle_timeout.seconds=660",
        ),
        ("azure", "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout", "15"),
        ("openstack", "loadbalancer.openstack.org/timeout-client-data", "660000"),
    ] {
        let objects = helm.render_with(&["--set", &format!("edge.service.cloud={cloud}")]);
        let service = find(&objects, "Service", "torwart-edge");
        assert_eq!(service["metadata"]["annotations"][annotation], value, "{cloud}");
    }
    // A header is believed from whom the node sees, so that must be the load balancer.
    let proxy =
        ["edge.service.cloud=aws", "edge.proxyProtocol.enabled=true", "edge.proxyProtocol.from={10.0.0.0/8}"];
    let objects = helm.render_with(&proxy.map(|value| ["--set", value]).concat());
    let annotations = &find(&objects, "Service", "torwart-edge")["metadata"]["annotations"];
    let group = "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes";
    assert!(
        annotations[group].as_str().unwrap().contains("preserve_client_ip.enabled=false"),
        "{annotations}"
    );
}

#[test]
fn no_password_is_on_a_command_line_or_in_an_environment() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("torwart", "mail", &LEAST);
    let (_, spec) = pod(find(&objects, "Deployment", "torwart-redis")).unwrap();
    let arguments = arguments(&spec["containers"][0]);
    assert!(!arguments.iter().any(|argument| argument.contains("requirepass")), "{arguments:?}");
    assert!(arguments.contains(&"/etc/redis/auth/users.acl".to_owned()));
    for object in &objects {
        assert_ne!(kind(object), "Secret", "{}: nothing secret is in a template", name(object));
        let Some((_, spec)) = pod(object) else { continue };
        for variable in items(&spec["containers"][0]["env"]) {
            assert!(variable["valueFrom"]["secretKeyRef"].is_null(), "{}: {variable}", name(object));
        }
        // A file below a subPath does not change when its Secret does.
        for mount in items(&spec["containers"][0]["volumeMounts"]) {
            assert!(mount["subPath"].is_null(), "{}: {mount}", name(object));
        }
    }
}
