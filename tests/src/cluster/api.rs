//! The API server as an administrator sees it: raw JSON, one call after the other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Kind;
use crate::{Output, PATIENCE};

/// One call may take this long.
const LIMIT: Duration = Duration::from_secs(20);

/// A client; clones share it.
#[derive(Clone)]
pub struct Api {
    runtime: Arc<Runtime>,
    client: kube::Client,
    kubeconfig: PathBuf,
}

/// The server said no, or nothing.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The HTTP status; 0: there was no answer.
    pub code: u16,
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Api {
    /// The server that `TORWART_TEST_KUBECONFIG` names; `None`, and a word about it, if that is not set.
    #[track_caller]
    pub fn connect() -> Option<Self> {
        match std::env::var_os("TORWART_TEST_KUBECONFIG") {
            Some(file) if !file.is_empty() => Some(Self::of(Path::new(&file))),
            _ => {
                skipped("TORWART_TEST_KUBECONFIG is not set");
                None
            }
        }
    }

    /// By the current context of a kubeconfig.
    #[track_caller]
    pub fn of(kubeconfig: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let read = Kubeconfig::read_from(kubeconfig).unwrap();
        let client = runtime.block_on(async {
            let config =
                kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
            kube::Client::try_from(config).unwrap()
        });
        Self { runtime: Arc::new(runtime), client, kubeconfig: kubeconfig.to_owned() }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl as this administrator, to its end.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        Output::of(Command::new("kubectl").env("KUBECONFIG", &self.kubeconfig).args(arguments))
    }

    /// As [`Api::kubectl`]; panics unless it succeeds.
    #[track_caller]
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert_eq!(output.code, 0, "kubectl {arguments:?}: {}", output.text);
        output.text
    }

    /// Writes a manifest to a file and has kubectl apply it, as a user does.
    #[track_caller]
    pub fn kubectl_apply(&self, manifest: &str) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", &file.display().to_string()])
    }

    /// One call, whatever comes of it.
    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        self.runtime.block_on(self.call_async(method, path, body))
    }

    pub async fn call_async(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        let kind = match method {
            Method::PATCH if path.contains("fieldManager=") => "application/apply-patch+yaml",
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let call = self.client.request::<Value>(request.body(body).unwrap());
        match tokio::time::timeout(LIMIT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => {
                Err(Refused { code: status.code, message: status.message.clone() })
            }
            Ok(Err(error)) => Err(Refused { code: 0, message: error.to_string() }),
            Err(_) => Err(Refused { code: 0, message: format!("no answer in {LIMIT:?}") }),
        }
    }

    /// `None`: it is not there.
    #[track_caller]
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        match self.call(Method::GET, &format!("{}/{name}", kind.collection(namespace)), None) {
            Ok(object) => Some(object),
            Err(refused) if refused.code == 404 => None,
            Err(refused) => panic!("{kind:?} {namespace}/{name}: {refused}"),
        }
    }

    #[track_caller]
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Value {
        self.find(kind, namespace, name).unwrap_or_else(|| panic!("no {kind:?} {namespace}/{name}"))
    }

    /// All in a namespace, or everywhere if it is empty.
    #[track_caller]
    pub fn list(&self, kind: Kind, namespace: &str) -> Vec<Value> {
        let list = self.call(Method::GET, &kind.collection(namespace), None);
        let list = list.unwrap_or_else(|refused| panic!("{kind:?} in {namespace}: {refused}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn try_create(&self, manifest: &Value) -> Result<Value, Refused> {
        self.runtime.block_on(self.create_async(manifest))
    }

    pub async fn create_async(&self, manifest: &Value) -> Result<Value, Refused> {
        let (kind, namespace, _) = place(manifest);
        self.call_async(Method::POST, &kind.collection(namespace), Some(manifest)).await
    }

    /// Server-side apply: creates it, or changes it into this.
    pub fn try_apply(&self, manifest: &Value) -> Result<Value, Refused> {
        let (kind, namespace, name) = place(manifest);
        let path = format!("{}/{name}?fieldManager=torwart-tests&force=true", kind.collection(namespace));
        self.call(Method::PATCH, &path, Some(manifest))
    }

    #[track_caller]
    pub fn apply(&self, manifest: &Value) -> Value {
        self.try_apply(manifest).unwrap_or_else(|refused| panic!("{refused}; it was: {manifest}"))
    }

    /// Merges these fields into an object.
    #[track_caller]
    pub fn merge(&self, kind: Kind, namespace: &str, name: &str, fields: &Value) -> Value {
        let path = format!("{}/{name}", kind.collection(namespace));
        self.call(Method::PATCH, &path, Some(fields))
            .unwrap_or_else(|refused| panic!("{kind:?} {namespace}/{name}: {refused}"))
    }

    /// Merges these fields into its status.
    #[track_caller]
    pub fn merge_status(&self, kind: Kind, namespace: &str, name: &str, status: &Value) {
        let path = format!("{}/{name}/status", kind.collection(namespace));
        if let Err(refused) = self.call(Method::PATCH, &path, Some(&json!({"status": status}))) {
            panic!("the status of {kind:?} {namespace}/{name}: {refused}");
        }
    }

    /// It need not be there.
    #[track_caller]
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        if let Err(refused) = self.try_delete(kind, namespace, name) {
            panic!("{kind:?} {namespace}/{name}: {refused}");
        }
    }

    /// All in a namespace, in one call.
    #[track_caller]
    pub fn delete_all(&self, kind: Kind, namespace: &str) {
        if let Err(refused) = self.call(Method::DELETE, &kind.collection(namespace), None) {
            panic!("all {kind:?} in {namespace}: {refused}");
        }
    }

    pub(crate) fn try_delete(&self, kind: Kind, namespace: &str, name: &str) -> Result<(), Refused> {
        match self.call(Method::DELETE, &format!("{}/{name}", kind.collection(namespace)), None) {
            Ok(_) => Ok(()),
            Err(refused) if refused.code == 404 => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    /// Looks until an object is as it should be. Panics, with the object, when [`PATIENCE`] is over.
    #[track_caller]
    pub fn wait(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        self.wait_within(PATIENCE, kind, namespace, name, what, wanted)
    }

    /// As [`Api::wait`], with a patience of its own. A server that does not answer is asked again.
    #[track_caller]
    pub fn wait_within(
        &self,
        patience: Duration,
        kind: Kind,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + patience;
        let path = format!("{}/{name}", kind.collection(namespace));
        loop {
            let seen = self.call(Method::GET, &path, None);
            if let Ok(object) = &seen
                && wanted(object)
            {
                return object.clone();
            }
            if Instant::now() > end {
                let seen = match seen {
                    Ok(mut object) => {
                        object["metadata"]["managedFields"].take();
                        serde_json::to_string_pretty(&object).unwrap()
                    }
                    Err(refused) => refused.to_string(),
                };
                panic!("{kind:?} {namespace}/{name} never was: {what}; it is {seen}");
            }
            std::thread::park_timeout(Duration::from_millis(30));
        }
    }
}

/// Says it where no test runner's capture keeps it back.
pub(crate) fn skipped(why: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// Kind, namespace and name of a manifest.
#[track_caller]
fn place(manifest: &Value) -> (Kind, &str, &str) {
    let kind = manifest["kind"].as_str().and_then(Kind::named);
    let kind = kind.unwrap_or_else(|| panic!("a kind that Kind does not know: {manifest}"));
    let metadata = &manifest["metadata"];
    (kind, metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap())
}
