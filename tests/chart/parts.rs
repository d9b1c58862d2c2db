//! What the chart says to the parts is what they understand, and what they may do is what k8s/rbac says.

use std::fs;

use serde_json::Value;
use torwart_tests::{Gateway, Output};

use crate::helm::{Helm, LEAST, find, items, kind, name, pod, root, values_file};

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
                    .any(|mount| path.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap())))
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
                let file = mistake.contains("/etc/torwart/") || mistake.contains("/var/lib/torwart");
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
    for part in ["edge", "verdict", "operator"] {
        let text = fs::read_to_string(root().join(format!("k8s/rbac/{part}.yaml"))).unwrap();
        for shipped in helm.parse(&text) {
            let called = match kind(&shipped) {
                "ClusterRole" | "ClusterRoleBinding" => format!("torwart-system-torwart-{part}"),
                _ => format!("torwart-{part}"),
            };
            let ours = find(&chart, kind(&shipped), &called);
            assert_eq!(rules(ours), rules(&shipped), "{called}");
            assert_eq!(ours["subjects"], shipped["subjects"], "{called}");
            compared += rules(ours).len();
        }
    }
    assert!(compared >= 9, "{compared}");
    // And nobody else has any, but the Jobs for their Secrets.
    for object in chart.iter().filter(|object| kind(object).contains("Role")) {
        let who = name(object).trim_start_matches("torwart-system-");
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
