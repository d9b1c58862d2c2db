//! One Torwart in the cluster: a namespace, a MailGateway's name, the shipped rights, and processes with those alone.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Api, Forwarder, History, Index, Kind, Pod, condition, unique};
use crate::{Authority, Certificate, Part, PartBuilder, PolicyFile, eventually};

/// What the certificates of edge and operator say.
const CLIENT: &str = "torwart-client";

/// Everything of it is gone when dropped.
pub struct Installation {
    pub api: Api,
    pub namespace: String,
    /// The MailGateway's name.
    pub gateway: String,
    tenants: Vec<String>,
    authority: Authority,
    server: Certificate,
    client: Certificate,
    folder: TempDir,
}

impl Installation {
    /// `None`, and a word about it, if no cluster is named.
    #[track_caller]
    pub fn new() -> Option<Self> {
        Api::connect().map(Self::on)
    }

    /// Applies the shipped CRDs and rights.
    #[track_caller]
    pub fn on(api: Api) -> Self {
        let word = unique();
        let authority = Authority::new("cluster");
        let installation = Self {
            namespace: format!("torwart-test-{word}"),
            gateway: format!("g{word}"),
            tenants: Vec::new(),
            server: authority.issue(&["torwart-verdict"]),
            client: authority.issue(&[CLIENT]),
            authority,
            folder: tempfile::tempdir().unwrap(),
            api,
        };
        let api = &installation.api;
        let crds = shipped("crds").display().to_string();
        api.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "-f", &crds]);
        api.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": installation.namespace}}));
        let rights = installation.folder.path().join("rbac");
        fs::create_dir(&rights).unwrap();
        for part in ["edge", "verdict", "operator"] {
            let text = fs::read_to_string(shipped("rbac").join(format!("{part}.yaml"))).unwrap();
            fs::write(rights.join(format!("{part}.yaml")), installation.renamed(&text)).unwrap();
        }
        api.kubectl_ok(&["apply", "-f", &rights.display().to_string()]);
        // The route of a kind lags a little behind the definition.
        eventually("the kinds are served", || {
            let served = |kind: Kind| api.call(Method::GET, &kind.collection(""), None).is_ok();
            served(Kind::MailDomain) && served(Kind::MailGateway)
        });
        installation
    }

    /// As the comment in the shipped files has it.
    fn renamed(&self, text: &str) -> String {
        let text = text.replace("torwart-system", &self.namespace);
        text.replace("-default", &format!("-{}", self.gateway))
    }

    /// Another namespace, with these labels; not an administrator's.
    #[track_caller]
    pub fn tenant(&mut self, labels: &Value) -> String {
        let name = format!("{}-t{}", self.namespace, self.tenants.len());
        let metadata = json!({"name": name, "labels": labels});
        self.api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        self.tenants.push(name.clone());
        name
    }

    // === processes

    /// A kubeconfig with a ServiceAccount's token and nothing else; by way of `through`, if it is given.
    #[track_caller]
    pub fn kubeconfig(&self, account: &str, through: Option<&Forwarder>) -> PathBuf {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": 3600}});
        let accounts = Kind::ServiceAccount.collection(&self.namespace);
        let made = self.api.call(Method::POST, &format!("{accounts}/{account}/token"), Some(&request));
        let made = made.unwrap_or_else(|refused| panic!("no token for {account}: {refused}"));
        let mut cluster = self.server();
        if let Some(forwarder) = through {
            let host = self.server_host();
            let name = host.rsplit_once(':').unwrap().0;
            cluster["tls-server-name"] = json!(name);
            cluster["server"] = json!(format!("https://{}", forwarder.endpoint));
        }
        let file = self.folder.path().join(format!("{account}-{}.kubeconfig", unique()));
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": account}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": account, "user": {"token": made["status"]["token"]}}],
        });
        fs::write(&file, text.to_string()).unwrap();
        file
    }

    /// The cluster of the administrator's current context.
    fn server(&self) -> Value {
        let read = Kubeconfig::read_from(self.api.kubeconfig()).unwrap();
        let current = read.current_context.as_deref();
        let context = read.contexts.iter().find(|context| Some(context.name.as_str()) == current);
        let name = context.and_then(|context| context.context.as_ref()).map(|context| &context.cluster);
        let found = read.clusters.iter().find(|cluster| Some(&cluster.name) == name);
        serde_json::to_value(found.and_then(|found| found.cluster.as_ref()).unwrap()).unwrap()
    }

    /// Its host and port.
    fn server_host(&self) -> String {
        let server = self.server();
        let url = server["server"].as_str().unwrap().trim_start_matches("https://").trim_end_matches('/');
        if url.contains(':') { url.to_owned() } else { format!("{url}:443") }
    }

    /// A way to the API server that can be cut.
    #[track_caller]
    pub fn forwarder(&self) -> Forwarder {
        Forwarder::to(&self.server_host())
    }

    #[track_caller]
    pub fn operator(&self) -> PartBuilder {
        self.operator_by(&self.kubeconfig("torwart-operator", None))
    }

    #[track_caller]
    pub fn operator_by(&self, kubeconfig: &Path) -> PartBuilder {
        Part::operator()
            .env("KUBECONFIG", kubeconfig.display())
            .flag("--namespace", &self.namespace)
            .flag("--gateway", &self.gateway)
            .flag("--verdict-ca", self.authority.cert.display())
            .flag("--verdict-cert", self.client.cert.display())
            .flag("--verdict-key", self.client.key.display())
    }

    #[track_caller]
    pub fn verdict(&self) -> PartBuilder {
        self.verdict_by(&self.kubeconfig("torwart-verdict", None))
    }

    #[track_caller]
    pub fn verdict_by(&self, kubeconfig: &Path) -> PartBuilder {
        let policy = format!("kube:{}/{}", self.namespace, self.gateway);
        Part::verdict(Path::new(&policy), "memory")
            .env("KUBECONFIG", kubeconfig.display())
            .flag("--grpc-cert", self.server.cert.display())
            .flag("--grpc-key", self.server.key.display())
            .flag("--grpc-client-ca", self.authority.cert.display())
            .flag("--grpc-client-name", CLIENT)
    }

    /// It asks these verdicts, and knows of no API server.
    #[track_caller]
    pub fn edge(&self, verdicts: &[&Part]) -> PartBuilder {
        let edge = Part::edge()
            .env("KUBECONFIG", "/nonexistent")
            .flag("--hostname", PolicyFile::HOSTNAME)
            .flag("--verdict-ca", self.authority.cert.display())
            .flag("--verdict-cert", self.client.cert.display())
            .flag("--verdict-key", self.client.key.display());
        verdicts
            .iter()
            .fold(edge, |edge, verdict| edge.flag("--verdict", format!("https://{}", verdict.listen)))
    }

    /// The Pod of a verdict that runs.
    #[track_caller]
    pub fn pod(&self, name: &str, grpc: SocketAddr) -> Pod {
        Pod::of_verdict(&self.api, &self.namespace, name, grpc)
    }

    /// What a scripted pod needs to be believed.
    pub fn server_files(&self) -> (&Certificate, &Path) {
        (&self.server, &self.authority.cert)
    }

    // === objects

    /// The MailGateway, with these further fields of `spec`.
    pub fn gateway_manifest(&self, more: &Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "torwart.dev/v1alpha1", "kind": "MailGateway", "metadata": {"name": self.gateway},
            "spec": {"hostname": PolicyFile::HOSTNAME, "postmaster": "postmaster@example.org"}});
        for (field, value) in more.as_object().into_iter().flatten() {
            manifest["spec"][field] = value.clone();
        }
        manifest
    }

    /// A MailDomain of the administrator's, without greylisting.
    pub fn domain_manifest(&self, name: &str, domains: &[&str], upstream: SocketAddr) -> Value {
        self.domain_in(&self.namespace, name, domains, upstream)
    }

    pub fn domain_in(&self, namespace: &str, name: &str, domains: &[&str], upstream: SocketAddr) -> Value {
        json!({
            "apiVersion": "torwart.dev/v1alpha1", "kind": "MailDomain",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "gatewayRef": {"name": self.gateway}, "domains": domains, "greylisting": {"mode": "Off"},
                "route": {"upstreams": [{"host": upstream.ip().to_string(), "port": upstream.port()}]}}})
    }

    /// Waits for a condition of the newest form of a MailDomain; its message is returned.
    #[track_caller]
    pub fn wait_domain(&self, namespace: &str, name: &str, kind: &str, status: &str, reason: &str) -> String {
        self.wait_condition(Kind::MailDomain, namespace, name, (kind, status, reason))
    }

    /// The same of the MailGateway.
    #[track_caller]
    pub fn wait_gateway(&self, kind: &str, status: &str, reason: &str) -> String {
        self.wait_condition(Kind::MailGateway, "", &self.gateway, (kind, status, reason))
    }

    #[track_caller]
    fn wait_condition(
        &self,
        of: Kind,
        namespace: &str,
        name: &str,
        (kind, status, reason): (&str, &str, &str),
    ) -> String {
        let is_it = |object: &Value| {
            condition(object, kind).is_some_and(|(is, why, _)| is == status && why == reason)
        };
        let what = format!("{kind}={status} {reason}");
        // Longer than a lease that its holder left behind.
        let object = self.api.wait_within(Duration::from_secs(45), of, namespace, name, &what, is_it);
        condition(&object, kind).unwrap().2.to_owned()
    }

    /// The newest form of a MailDomain of the administrator's is in force everywhere.
    #[track_caller]
    pub fn wait_programmed(&self, name: &str) {
        self.wait_domain(&self.namespace, name, "Programmed", "True", "Programmed");
    }

    #[track_caller]
    pub fn index(&self) -> Option<Index> {
        Index::read(&self.api, &self.namespace, &self.gateway)
    }

    /// Everything that is published from now on.
    pub fn history(&self) -> History {
        History::start(&self.api, &self.namespace, &self.gateway)
    }

    /// The reasons of all Events about an object.
    #[track_caller]
    pub fn events(&self, namespace: &str, name: &str) -> Vec<String> {
        let about = |event: &Value| event["regarding"]["name"] == name;
        let events = self.api.list(Kind::Event, namespace);
        events.iter().filter(|event| about(event)).map(|event| event["reason"].to_string()).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let role = format!("torwart-operator-{}", self.gateway);
        let _ = self.api.try_delete(Kind::ClusterRoleBinding, "", &role);
        let _ = self.api.try_delete(Kind::ClusterRole, "", &role);
        let _ = self.api.try_delete(Kind::MailGateway, "", &self.gateway);
        for namespace in self.tenants.iter().chain([&self.namespace]) {
            let _ = self.api.try_delete(Kind::Namespace, "", namespace);
        }
    }
}

/// A folder of what users get.
fn shipped(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("k8s").join(folder)
}
