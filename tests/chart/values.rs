//! Values: each explained, each in the schema, and bad ones refused with a word on what to do.

use std::fs;

use serde_json::Value;

use crate::helm::{Helm, LEAST, Release, chart};

/// `values.yaml` as it is read.
fn values(helm: &Helm) -> Value {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    // kubectl reads objects only, so it is made one.
    let mut all = helm.parse(&format!("apiVersion: v1\nkind: Values\nmetadata: {{name: values}}\n{text}"));
    let mut values = all.remove(0);
    for key in ["apiVersion", "kind", "metadata"] {
        values.as_object_mut().unwrap().remove(key);
    }
    values
}

#[test]
fn every_value_has_a_comment() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut values = 0;
    for (i, line) in lines.iter().enumerate() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        // Groups are explained by what is in them; the parts of one value by it.
        if key.trim_start().starts_with('#') || rest.is_empty() || is_part_of_resources(&lines, i) {
            continue;
        }
        values += 1;
        assert!(lines[i - 1].trim_start().starts_with("# "), "values.yaml:{}: {line} has no comment", i + 1);
    }
    assert!(values > 100, "{values}");
}

fn is_part_of_resources(lines: &[&str], i: usize) -> bool {
    let key = lines[i].trim_start();
    key.starts_with("requests:") || key.starts_with("limits:")
}

#[test]
fn every_value_is_in_the_schema_and_nothing_else() {
    let Some(helm) = Helm::new() else { return };
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut seen = 0;
    walk(&values(&helm), &schema, "values", &mut seen);
    assert!(seen > 150, "{seen}");
}

fn walk(value: &Value, schema: &Value, path: &str, seen: &mut usize) {
    let Some(properties) = schema["properties"].as_object() else { return };
    // A free-form object, as of Kubernetes' own types, names some of its fields only to refuse them.
    if properties.values().all(Value::is_boolean) {
        return;
    }
    assert_eq!(schema["additionalProperties"], false, "{path}: a slip of the pen would be taken");
    let Some(fields) = value.as_object() else { return };
    for (key, field) in fields {
        let inner = format!("{path}.{key}");
        let found = properties.get(key).unwrap_or_else(|| panic!("{inner} is not in values.schema.json"));
        *seen += 1;
        walk(field, found, &inner, seen);
    }
    // resources has fields of its own that need no default.
    for key in properties.keys().filter(|key| !["global", "claims"].contains(&key.as_str())) {
        assert!(fields.contains_key(key), "{path}.{key} is in values.schema.json and not in values.yaml");
    }
}

/// What is set, and what must be heard.
const BAD: &[(&[&str], &str)] = &[
    (&["gateway.hostname="], "gateway.hostname is needed"),
    (&["redis.enabled=false"], "say where greylisting remembers senders"),
    (&["store.url=redis://a:6379"], "store.url and redis.enabled exclude each other"),
    (
        &["redis.enabled=false", "store.url=redis://u:p@a:6379"],
        "store.url must not hold a user or a password",
    ),
    (&["redis.enabled=false", "store.url=memory"], "/store/url"),
    (&["redis.enabled=false", "store.url=redis://a", "store.caSecret.name=x"], "without a rediss URL"),
    (&["store.timeout=5s"], "/store/timeout"),
    (&["hostname=mx"], "hostname"),
    (&["edge.replica=2"], "replica"),
    (&["edge.replicas=many"], "/edge/replicas"),
    (&["gateway.hostname=-mx"], "/gateway/hostname"),
    (&["gateway.postmaster=nobody"], "/gateway/postmaster"),
    (&["gateway.spec.hostname=mx2"], "/gateway/spec"),
    (&["gateway.name=Default"], "is not a name"),
    (&["gateway.name=mail-3f"], "ends as the names of another gateway"),
    (&["image.pullPolicy=Sometimes"], "/image/pullPolicy"),
    (&["image.digest=abc"], "/image/digest"),
    (&["edge.service.type=Ingress"], "/edge/service/type"),
    (&["edge.service.port=0"], "/edge/service/port"),
    (&["edge.service.cloud=mine"], "/edge/service/cloud"),
    (&["edge.service.externalTrafficPolicy=local"], "/edge/service/externalTrafficPolicy"),
    (&["edge.terminationGracePeriodSeconds=70"], "edge.terminationGracePeriodSeconds: 70 is not 550 above"),
    (&["edge.drain.timeoutSeconds=80"], "630 is not 550 above"),
    (&["edge=null"], "missing property 'edge'"),
    (&["edge.resources=null"], "missing property 'resources'"),
    (
        &["edge.podLabels.app\\.kubernetes\\.io/component=x"],
        "invalid propertyName 'app.kubernetes.io/component'",
    ),
    (&["commonLabels.app\\.kubernetes\\.io/name=x"], "invalid propertyName 'app.kubernetes.io/name'"),
    (&["gateway.spec.bogus=1"], "invalid propertyName 'bogus'"),
    (&["edge.spool.max=40Mi"], "edge.spool.max: 40Mi is less than one message may have"),
    (&["edge.spool.sizeLimit=2Gi"], "edge.spool.sizeLimit: 2Gi is not above edge.spool.max (2Gi)"),
    (&["edge.spool.memory=much"], "/edge/spool/memory"),
    (&["verdict.stateSizeLimit=512Mi"], "verdict.stateSizeLimit: 512Mi is less than 520Mi"),
    (&["redis.maxMemory=161mb"], "less than twice redis.maxMemory (161mb)"),
    (&["redis.dataSizeLimit=500Mi"], "redis.dataSizeLimit: 500Mi is less than four times"),
    (
        &[
            "edge.proxyProtocol.enabled=true",
            "edge.proxyProtocol.from={10.0.0.0/8}",
            "edge.service.cloud=gcp",
        ],
        "know no PROXY protocol",
    ),
    (
        &["verdict.terminationGracePeriodSeconds=20"],
        "verdict.terminationGracePeriodSeconds: 20 is not 10 above",
    ),
    (
        &["edge.autoscaling.enabled=true", "edge.autoscaling.minReplicas=20"],
        "minReplicas 20 is above maxReplicas 10",
    ),
    (&["edge.maxConnectionsPerNetwork=30000"], "is above edge.maxConnections"),
    (&["edge.proxyProtocol.enabled=true"], "edge.proxyProtocol.from is needed"),
    (&["edge.proxyProtocol.from={10.0.0.0/8}"], "does nothing without edge.proxyProtocol.enabled=true"),
    (
        &["edge.proxyProtocol.enabled=true", "edge.proxyProtocol.from={10.0.0.1}"],
        "/edge/proxyProtocol/from/0",
    ),
    (&["tls.mode=none"], "/tls/mode"),
    (&["tls.mode=secrets"], "tls.secrets.edge is needed"),
    (&["tls.names.edge=other"], "tls.names"),
    (&["store.keySecret.name=torwart-store-key"], "this chart keeps for Secrets of its own"),
    (&["resolver.enabled=true"], "resolver.clusterIP is needed"),
    (&["resolver.enabled=true", "resolver.clusterIP=10.0.0.53"], "resolver.clusterDNS is needed"),
    (&["networkPolicy.smtp.from={10.0.0.0/8}"], "/networkPolicy/smtp/from/0"),
    (&["podSecurity.runAsUser=0"], "/podSecurity/runAsUser"),
    (&["traces.sampleRatio=2"], "/traces/sampleRatio"),
    (&["leastKubeVersion=9.0.0"], "but at least 9.0.0 is needed"),
];

#[test]
fn bad_values_are_refused_with_a_word_on_what_is_wrong() {
    let Some(helm) = Helm::new() else { return };
    for (set, wanted) in BAD {
        let mut flags = LEAST.to_vec();
        flags.extend(set.iter().flat_map(|value| ["--set", value]));
        let output = helm.try_render(&Release { name: "torwart", namespace: "mail", flags: &flags });
        // helm writes paths with slashes or dots, by version.
        let text = output.text.replace('.', "/");
        let said = output.text.contains(wanted) || text.contains(wanted);
        assert!(output.code != 0 && said, "{set:?}: {wanted:?} is not in: {}", output.text);
    }
    let long = "a-name-of-a-release-that-is-far-too-long-torwart";
    for (name, wanted) in [(long, "Kubernetes has room for 40"), ("1st-torwart", "begin with a letter")] {
        let output = helm.try_render(&Release { name, namespace: "mail", flags: &LEAST });
        assert!(output.code != 0 && output.text.contains(wanted), "{}", output.text);
    }
}
