//! The chart installed, upgraded and uninstalled by helm. Hooks, which need a node, run in the test on a whole cluster.

use serde_json::json;
use torwart_tests::cluster::{Api, Kind};
use torwart_tests::{Gateway, Output};

use crate::helm::{Helm, LEAST, chart};
use crate::objects::with_crds;

/// Gone when dropped.
pub(crate) struct Namespace {
    api: Api,
    pub(crate) name: String,
}

impl Namespace {
    #[track_caller]
    pub(crate) fn new(api: &Api) -> Self {
        let word = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let name = format!("chart-{}", &word[..8]);
        api.kubectl_ok(&["create", "namespace", &name]);
        Self { api: api.clone(), name }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.api.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// What of it is in the cluster, by label.
fn left(api: &Api, own: &Namespace, release: &str) -> Vec<String> {
    let kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies,\
                 cronjobs,persistentvolumeclaims,maildomains,mailgateways,clusterroles,clusterrolebindings";
    let label = format!("app.kubernetes.io/instance={release}");
    let text = api.kubectl_ok(&["get", kinds, "-n", &own.name, "-l", &label, "-o", "name"]);
    text.lines().filter(|line| line.contains('/')).map(str::to_owned).collect()
}

#[test]
fn two_releases_are_installed_side_by_side_upgraded_and_gone_again() {
    let Some(helm) = Helm::new() else { return };
    with_crds(&helm.api);
    let own = Namespace::new(&helm.api);
    let chart = chart().display().to_string();
    let releases = [format!("{}a", own.name), format!("{}b", own.name)];
    let rest = ["--namespace", &own.name, "--no-hooks", "--skip-crds", "--set", "leastKubeVersion=1.20.0"];
    let rest = [LEAST.as_slice(), &rest].concat();
    for release in &releases {
        let notes = helm.ok(&[["install", release.as_str(), &chart].as_slice(), &rest].concat());
        for wanted in ["MX  10 mx.example.org.", &format!("helm -n {} test {release}", own.name), "450"] {
            assert!(notes.contains(wanted), "{wanted} is not in: {notes}");
        }
        assert!(left(&helm.api, &own, release).len() > 20, "{:?}", left(&helm.api, &own, release));
    }
    // The Job of an uninstallation, applied by whoever knows no hooks, leaves an installation in use alone.
    let delete = |release: &str| {
        let prefix = format!("{release}-torwart");
        let arguments =
            ["secrets", "delete", "--namespace", &own.name, "--prefix", &prefix, "--gateway", &prefix];
        let kubeconfig = std::env::var_os("TORWART_TEST_KUBECONFIG").unwrap();
        Output::of(Gateway::command(&arguments).env("KUBECONFIG", kubeconfig))
    };
    let refused = delete(&releases[0]);
    assert!(refused.code == 1 && refused.text.contains("-torwart-edge is still there"), "{}", refused.text);
    let options = ["--set", "edge.autoscaling.enabled=true", "--set", "networkPolicy.enabled=true"];
    helm.ok(&[["upgrade", releases[0].as_str(), &chart].as_slice(), &rest, &options].concat());
    // With an HPA the number of pods is its to say: the upgrade does not write it again.
    let deployment = format!("{}-torwart-edge", releases[0]);
    let scale = ["-n", &own.name, "scale", "deployment", &deployment, "--replicas=7"];
    helm.api.kubectl_ok(&scale);
    helm.ok(&[["upgrade", releases[0].as_str(), &chart].as_slice(), &rest, &options].concat());
    let path = ["-n", &own.name, "get", "deployment", &deployment, "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(helm.api.kubectl_ok(&path).trim(), "7");
    for release in &releases {
        helm.ok(&["uninstall", release, "--namespace", &own.name, "--no-hooks"]);
        let left = left(&helm.api, &own, release);
        // The controller-manager takes away pods and ReplicaSets in its own time.
        let left: Vec<_> =
            left.iter().filter(|it| !it.starts_with("pod/") && !it.contains("replicaset")).collect();
        assert!(left.is_empty(), "{left:?}");
        let deleted = delete(release);
        assert_eq!(deleted.code, 0, "{}", deleted.text);
    }
    helm.api.list(Kind::MailGateway, "");
}

#[test]
fn the_base_is_accepted_and_kustomize_can_change_the_hostname() {
    let Some(helm) = Helm::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = crate::helm::root().join("k8s");
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["base"],
        "patches": [{"patch": json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "torwart-edge", "namespace": "torwart-system"},
            "spec": {"template": {"spec": {"containers": [
                {"name": "edge", "env": [{"name": "TORWART_HOSTNAME", "value": "mx.other.example"}]}]}}},
        }).to_string()}]});
    std::fs::create_dir(folder.path().join("base")).unwrap();
    for file in ["kustomization.yaml", "namespace.yaml", "torwart.yaml"] {
        std::fs::copy(base.join("base").join(file), folder.path().join("base").join(file)).unwrap();
    }
    std::fs::write(folder.path().join("kustomization.yaml"), overlay.to_string()).unwrap();
    let text = helm.api.kubectl_ok(&["kustomize", &folder.path().display().to_string()]);
    assert!(text.contains("value: mx.other.example") && !text.contains("mx.example.net"), "{text}");
    let all = helm.parse(&helm.api.kubectl_ok(&["kustomize", &base.display().to_string()]));
    assert!(all.iter().filter(|object| crate::helm::kind(object) == "CustomResourceDefinition").count() == 2);
    assert!(!text.contains("helm.sh/"), "nothing of Helm's");
}
