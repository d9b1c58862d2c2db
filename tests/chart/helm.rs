//! helm, and what it renders.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use torwart_tests::Output;
use torwart_tests::cluster::Api;
pub(crate) use torwart_tests::root;

/// The chart as it would be used: an administrator's cluster is at hand.
pub(crate) struct Helm {
    pub(crate) api: Api,
}

/// What `helm template` was told.
pub(crate) struct Release<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) flags: &'a [&'a str],
}

/// The least that a user must say.
pub(crate) const LEAST: [&str; 4] =
    ["--set", "gateway.hostname=mx.example.org", "--set", "redis.enabled=true"];

pub(crate) fn chart() -> PathBuf {
    root().join("charts/torwart")
}

/// Values of the chart's `ci` folder, as flags.
pub(crate) fn values_file(name: &str) -> [String; 2] {
    ["--values".to_owned(), chart().join("ci").join(name).display().to_string()]
}

// === impl Helm ===

impl Helm {
    /// `None`, and a word about it, without a cluster.
    #[track_caller]
    pub(crate) fn new() -> Option<Self> {
        Api::connect().map(|api| Self { api })
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Output::of(Command::new("helm").env("KUBECONFIG", self.api.kubeconfig()).args(arguments))
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code, 0, "helm {arguments:?}: {}", output.text);
        output.text
    }

    /// `helm template`.
    #[track_caller]
    pub(crate) fn try_render(&self, release: &Release<'_>) -> Output {
        let chart = chart().display().to_string();
        let mut arguments = vec!["template", release.name, &chart, "--namespace", release.namespace];
        arguments.extend(release.flags);
        self.run(&arguments)
    }

    #[track_caller]
    pub(crate) fn text(&self, name: &str, namespace: &str, flags: &[&str]) -> String {
        let output = self.try_render(&Release { name, namespace, flags });
        assert_eq!(output.code, 0, "{flags:?}: {}", output.text);
        output.text
    }

    /// The objects that it renders.
    #[track_caller]
    pub(crate) fn render(&self, name: &str, namespace: &str, flags: &[&str]) -> Vec<Value> {
        self.parse(&self.text(name, namespace, flags))
    }

    /// With nothing but what a user must say, and `flags`.
    #[track_caller]
    pub(crate) fn render_with(&self, flags: &[&str]) -> Vec<Value> {
        self.render("torwart", "mail", &[LEAST.as_slice(), flags].concat())
    }

    /// Objects in YAML, as kubectl reads them.
    #[track_caller]
    pub(crate) fn parse(&self, yaml: &str) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.yaml");
        std::fs::write(&file, yaml).unwrap();
        let file = file.display().to_string();
        // Without a server, and without a change: the label "read" is taken away where it is not.
        let text = self.api.kubectl_ok(&["label", "--local", "-o", "json", "-f", &file, "read-"]);
        let text: Vec<&str> = text.lines().filter(|line| !is_remark(line)).collect();
        let text = text.join("\n");
        let stream = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        stream.map(|object| object.unwrap_or_else(|error| panic!("{error}: {text}"))).collect()
    }
}

/// kubectl remarks that there was no such label.
fn is_remark(line: &str) -> bool {
    line.starts_with("label \"read\" not found")
}

// === objects ===

pub(crate) fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub(crate) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

#[track_caller]
pub(crate) fn find<'a>(objects: &'a [Value], wanted: &str, called: &str) -> &'a Value {
    let found = objects.iter().find(|object| kind(object) == wanted && name(object) == called);
    found.unwrap_or_else(|| panic!("no {wanted} {called}"))
}

/// The pods that an object makes or is: their metadata and spec.
pub(crate) fn pod(object: &Value) -> Option<(&Value, &Value)> {
    let template = match kind(object) {
        "Pod" => object,
        "Deployment" | "Job" => &object["spec"]["template"],
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        "StatefulSet" | "DaemonSet" | "ReplicaSet" => panic!("{} is a kind that no test reads", kind(object)),
        _ => return None,
    };
    Some((&template["metadata"], &template["spec"]))
}

pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
