//! The Pod Security Standard `restricted`, each rule of it, held against every pod that the chart makes.
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use serde_json::{Value, json};

use crate::helm::{Helm, LEAST, items, name, pod, values_file};

/// Volumes that `restricted` allows.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// What of `spec` is against the standard.
fn violations(metadata: &Value, spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |good: bool, rule: &str| {
        if !good {
            found.push(rule.to_owned());
        }
    };
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        check(spec[host] != true, host);
    }
    for volume in items(&spec["volumes"]) {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        for kind in kinds {
            check(VOLUMES.contains(&kind.as_str()), "volume type");
        }
    }
    let security = &spec["securityContext"];
    check(items(&security["sysctls"]).is_empty(), "sysctls");
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        let app_armor = key.starts_with("container.apparmor.security.beta.kubernetes.io/");
        check(!app_armor || value == "runtime/default", "AppArmor");
    }
    common(security, &mut check);
    let all = ["containers", "initContainers", "ephemeralContainers"];
    let containers = all.iter().flat_map(|list| items(&spec[*list]));
    for container in containers {
        let own = &container["securityContext"];
        common(own, &mut check);
        let inherited = |field: &str| if own[field].is_null() { &security[field] } else { &own[field] };
        check(own["privileged"] != true, "privileged");
        check(own["allowPrivilegeEscalation"] == false, "privilege escalation");
        check(inherited("runAsNonRoot") == true, "running as non-root");
        let seccomp = &inherited("seccompProfile")["type"];
        check(seccomp == "RuntimeDefault" || seccomp == "Localhost", "seccomp");
        check(items(&own["capabilities"]["drop"]).contains(&json!("ALL")), "capabilities dropped");
        let added = items(&own["capabilities"]["add"]);
        check(added.iter().all(|capability| capability == "NET_BIND_SERVICE"), "capabilities added");
        check(own["procMount"].is_null() || own["procMount"] == "Default", "procMount");
        let ports = items(&container["ports"]);
        check(ports.iter().all(|port| port["hostPort"].is_null() || port["hostPort"] == 0), "host ports");
        let mut actions: Vec<&Value> = ["livenessProbe", "readinessProbe", "startupProbe"]
            .iter()
            .map(|probe| &container[*probe])
            .collect();
        actions.extend(["postStart", "preStop"].iter().map(|event| &container["lifecycle"][*event]));
        let host = |action: &&Value| {
            ["httpGet", "tcpSocket"]
                .iter()
                .any(|how| action[*how]["host"].as_str().is_some_and(|h| !h.is_empty()))
        };
        check(!actions.iter().any(host), "host probes");
    }
    found.sort();
    found.dedup();
    found
}

/// What holds for a pod's security context and a container's.
fn common(security: &Value, check: &mut impl FnMut(bool, &str)) {
    check(security["runAsUser"] != 0, "running as user 0");
    check(security["runAsNonRoot"] != false, "running as non-root");
    check(security["seccompProfile"]["type"] != "Unconfined", "seccomp");
    check(security["windowsOptions"]["hostProcess"] != true, "host process");
    let linux = &security["seLinuxOptions"];
    check(SELINUX_TYPES.contains(&linux["type"].as_str().unwrap_or_default()), "SELinux type");
    check(linux["user"].is_null() && linux["role"].is_null(), "SELinux user and role");
    let profile = &security["appArmorProfile"]["type"];
    check(profile.is_null() || profile == "RuntimeDefault" || profile == "Localhost", "AppArmor");
}

/// All pods, with as much of the chart as goes together.
fn pods(helm: &Helm) -> Vec<(String, Value, Value)> {
    let [flag, file] = values_file("full-values.yaml");
    let mut objects = helm.render("torwart", "mail", &[&flag, &file]);
    let persistent = ["--set", "redis.persistence.enabled=true", "--set", "edge.certificates={mx}"];
    objects.extend(helm.render("torwart", "mail", &LEAST));
    objects.extend(helm.render_with(&persistent));
    objects.extend(helm.render_with(&["--set", "plain=true"]));
    let all = objects.iter().filter_map(|object| {
        pod(object).map(|(metadata, spec)| (name(object).to_owned(), metadata.clone(), spec.clone()))
    });
    all.collect()
}

#[test]
fn every_pod_is_restricted() {
    let Some(helm) = Helm::new() else { return };
    let pods = pods(&helm);
    for part in [
        "edge",
        "verdict",
        "operator",
        "redis",
        "resolver",
        "secrets",
        "secrets-ensure",
        "secrets-delete",
        "test",
    ] {
        assert!(pods.iter().any(|(name, ..)| *name == format!("torwart-{part}")), "no pod of {part}");
    }
    for (name, metadata, spec) in &pods {
        assert_eq!(violations(metadata, spec), Vec::<String>::new(), "{name}");
        assert!(!items(&spec["containers"]).is_empty(), "{name}");
        for container in items(&spec["containers"]) {
            // Beyond the standard.
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
            assert!(!container["resources"]["limits"]["memory"].is_null(), "{name}: bounded memory");
            assert!(!container["resources"]["requests"]["cpu"].is_null(), "{name}: requests");
        }
    }
}

#[test]
fn each_rule_of_the_standard_is_seen_when_it_is_broken() {
    let good = || {
        json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "a", "secret": {}}],
            "containers": [{"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]})
    };
    assert_eq!(violations(&json!({}), &good()), Vec::<String>::new());
    for (path, value, rule) in [
        ("/hostNetwork", json!(true), "hostNetwork"),
        ("/hostPID", json!(true), "hostPID"),
        ("/hostIPC", json!(true), "hostIPC"),
        ("/volumes/0/hostPath", json!({}), "volume type"),
        ("/securityContext/sysctls", json!([{"name": "a"}]), "sysctls"),
        ("/securityContext/runAsUser", json!(0), "running as user 0"),
        ("/securityContext/runAsNonRoot", json!(null), "running as non-root"),
        ("/securityContext/seccompProfile", json!(null), "seccomp"),
        ("/securityContext/appArmorProfile", json!({"type": "Unconfined"}), "AppArmor"),
        ("/securityContext/seLinuxOptions", json!({"type": "spc_t"}), "SELinux type"),
        ("/securityContext/seLinuxOptions", json!({"user": "u"}), "SELinux user and role"),
        ("/containers/0/securityContext/runAsNonRoot", json!(false), "running as non-root"),
        ("/containers/0/securityContext/runAsUser", json!(0), "running as user 0"),
        ("/containers/0/securityContext/privileged", json!(true), "privileged"),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(null), "privilege escalation"),
        ("/containers/0/securityContext/seccompProfile", json!({"type": "Unconfined"}), "seccomp"),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["CHOWN"]}), "capabilities dropped"),
        (
            "/containers/0/securityContext/capabilities",
            json!({"drop": ["ALL"], "add": ["CHOWN"]}),
            "capabilities added",
        ),
        ("/containers/0/securityContext/procMount", json!("Unmasked"), "procMount"),
        ("/containers/0/securityContext/windowsOptions", json!({"hostProcess": true}), "host process"),
        ("/containers/0/ports", json!([{"hostPort": 25}]), "host ports"),
        ("/containers/0/livenessProbe", json!({"httpGet": {"host": "10.0.0.1"}}), "host probes"),
        ("/containers/0/lifecycle", json!({"preStop": {"tcpSocket": {"host": "a"}}}), "host probes"),
    ] {
        let mut spec = good();
        let (parent, key) = path.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        assert!(
            violations(&json!({}), &spec).contains(&rule.to_owned()),
            "{path}: {:?}",
            violations(&json!({}), &spec)
        );
    }
}

#[test]
fn only_who_needs_the_api_server_has_a_token() {
    let Some(helm) = Helm::new() else { return };
    for (name, metadata, spec) in pods(&helm) {
        let part = metadata["labels"]["app.kubernetes.io/component"].as_str().unwrap();
        let wanted = ["operator", "verdict", "secrets"].contains(&part);
        assert_eq!(spec["automountServiceAccountToken"], wanted, "{name}");
    }
}
