//! The cluster of one node, and what is around it: a mail server, and a sender outside.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use torwart_tests::{Output, root};

pub(crate) const NAMESPACE: &str = "torwart-system";
/// A host outside: documentation's network (RFC 5737).
pub(crate) const CLIENT: &str = "198.51.100.7";

const NODE: &str = "10.89.0.1";
const SINK_PORT: u16 = 2500;

/// Where a release takes mail, and for whom.
pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) gateway: &'static str,
    pub(crate) node_port: u16,
    pub(crate) object: &'static str,
    pub(crate) domain: &'static str,
}

/// The one that begins with the product's name, and another beside it.
pub(crate) const FIRST: Release = Release {
    name: "torwart",
    gateway: "default",
    node_port: 30025,
    object: "example-org",
    domain: "example.org",
};
pub(crate) const SECOND: Release = Release {
    name: "other",
    gateway: "other-torwart",
    node_port: 30026,
    object: "example-net",
    domain: "example.net",
};

pub(crate) struct Node {
    tool: PathBuf,
    binary: PathBuf,
    folder: TempDir,
}

/// A sender outside of the cluster, under way.
pub(crate) struct Load {
    sender: std::cell::RefCell<Child>,
    log: PathBuf,
    stop: PathBuf,
}

/// A mail server beside the pods.
pub(crate) struct Sink {
    server: Child,
    log: PathBuf,
}

/// In front of the sink, with a delay that a test can wait for.
pub(crate) fn mail_domain(release: &Release, more: &str) -> String {
    let Release { gateway, object, domain, .. } = release;
    format!(
        "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: {object}, namespace: {NAMESPACE}}}\n\
         spec:\n  gatewayRef: {{name: {gateway}}}\n  domains: [{domain}]\n  route: {{upstreams: [{{host: {NODE}, port: {SINK_PORT}}}]}}\n  \
         greylisting: {{mode: Always, delay: 3s}}\n{more}"
    )
}

impl Node {
    /// `None`, and a word about it, if there is no tool.
    pub(crate) fn start() -> Option<Self> {
        let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (Some(tool), Some(binary)) = (named("TORWART_TEST_NODE"), named("TORWART_STATIC_BIN")) else {
            println!("######## NOT RUN: TORWART_TEST_NODE and TORWART_STATIC_BIN are not set ########");
            return None;
        };
        let node = Self { tool, binary, folder: tempfile::tempdir().unwrap() };
        node.up();
        fs::write(
            node.values(),
            "image: {repository: torwart, tag: \"1\"}\n\
             gateway: {hostname: mx.example.org}\n\
             edge: {service: {type: NodePort, nodePort: 30025}}\n\
             redis:\n  enabled: true\n  image: {repository: redis, tag: \"1\"}\n\
             # This cluster's DNS remembers names for five seconds.\n\
             verdict: {minReadySeconds: 8}\n\
             # What stands in for a current API server here.\n\
             leastKubeVersion: \"1.20.0\"\n",
        )
        .unwrap();
        Some(node)
    }

    /// A tool in bash that looks for a process which it has just started must not give up where there is none yet: it
    /// would leave that process behind.
    fn up(&self) {
        let patient = "() { command ps \"$@\" || :; }";
        let output = Output::of(Command::new(&self.tool).arg("up").env("BASH_FUNC_ps%%", patient));
        assert_eq!(output.code, 0, "{}", output.text);
    }

    fn values(&self) -> PathBuf {
        self.folder.path().join("values.yaml")
    }

    #[track_caller]
    pub(crate) fn tool(&self, arguments: &[&str]) -> String {
        let output = Output::of(Command::new(&self.tool).args(arguments));
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.text);
        output.text
    }

    /// The binary alone, and Debian's Redis with the libraries that it needs.
    pub(crate) fn load_images(&self) {
        self.tool(&["load", "torwart:1", &self.binary.display().to_string(), "--user", "10001:10001"]);
        let redis = self.folder.path().join("redis");
        let script = "set -e; r=$(readlink -f \"$(command -v redis-server)\"); mkdir -p \"$0/usr/bin\"; cp \"$r\" \
                      \"$0/usr/bin/redis-server\"; for l in $(ldd \"$r\" | grep -o '/[^ ]*'); do mkdir -p \
                      \"$0$(dirname \"$l\")\"; cp -L \"$l\" \"$0$l\"; done";
        let output = Output::of(Command::new("bash").args(["-c", script]).arg(&redis));
        assert_eq!(output.code, 0, "{}", output.text);
        let (folder, entrypoint) = (redis.display().to_string(), "/usr/bin/redis-server");
        self.tool(&["load", "redis:1", &folder, "--entrypoint", entrypoint, "--user", "10001:10001"]);
    }

    #[track_caller]
    pub(crate) fn helm(&self, arguments: &[&str]) -> String {
        let (chart, values) = (root().join("charts/torwart"), self.values());
        let (chart, values) = (chart.display().to_string(), values.display().to_string());
        let mut all = vec!["exec", "helm", "-n", NAMESPACE];
        all.extend(arguments.iter().map(|argument| match *argument {
            "CHART" => chart.as_str(),
            "VALUES" => values.as_str(),
            other => other,
        }));
        self.tool(&all)
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.tool(&[&["exec", "kubectl", "-n", NAMESPACE], arguments].concat())
    }

    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) {
        let file = self.folder.path().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", &file.display().to_string()]);
    }

    /// A running pod of a part.
    #[track_caller]
    pub(crate) fn pod(&self, part: &str) -> String {
        let labels = format!("app.kubernetes.io/component={part}");
        let found = self.kubectl(&["get", "pods", "-l", &labels, "-o", "json"]);
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let runs = |pod: &&serde_json::Value| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
        };
        let pod = found["items"].as_array().unwrap().iter().find(runs);
        pod.unwrap_or_else(|| panic!("no {part} pod"))["metadata"]["name"].as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_ready(&self, part: &str) {
        let deployment = format!("deployment/torwart-{part}");
        self.kubectl(&["rollout", "status", &deployment, "--timeout=120s"]);
    }

    /// As a drained node would: by the disruption budget.
    pub(crate) fn evict(&self, pod: &str) {
        let file = self.folder.path().join("eviction.json");
        let body = format!(
            "{{\"apiVersion\":\"policy/v1beta1\",\"kind\":\"Eviction\",\"metadata\":{{\"name\":\"{pod}\",\
             \"namespace\":\"{NAMESPACE}\"}}}}"
        );
        fs::write(&file, body).unwrap();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
        self.kubectl(&["create", "--raw", &path, "-f", &file.display().to_string()]);
    }

    /// Until the API server is back.
    pub(crate) fn wait_api(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        let ready =
            || Output::of(Command::new(&self.tool).args(["exec", "kubectl", "get", "md", "-A"])).code == 0;
        while !ready() {
            assert!(Instant::now() < end, "the API server does not come back");
            thread::park_timeout(Duration::from_millis(200));
        }
    }

    /// Sends until one mail is taken.
    #[track_caller]
    pub(crate) fn takes_mail(&self, release: &Release, name: &str) {
        let load = Load::start(self, release, name, 1);
        crate::await_that(name, crate::LIMIT, || load.count("accepted") >= 1);
        load.stop(crate::LIMIT);
        assert_eq!(load.count("refused"), 0, "{}", load.text());
    }

    fn script(name: &str) -> String {
        root().join("tests/node").join(name).display().to_string()
    }

    pub(crate) fn sink(&self) -> Sink {
        let log = self.folder.path().join("sink.log");
        fs::write(&log, "").unwrap();
        let server = Command::new(&self.tool)
            .args(["exec", "python3", &Self::script("sink.py"), NODE, &SINK_PORT.to_string()])
            .arg(&log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Sink { server, log }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new(&self.tool).arg("down").output();
    }
}

impl Sink {
    /// What came, each as often as it came.
    pub(crate) fn received(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Load {
    pub(crate) fn start(node: &Node, release: &Release, name: &str, threads: usize) -> Self {
        let folder = tempfile::tempdir_in(node.folder.path()).unwrap().keep();
        let (log, stop) = (folder.join("log"), folder.join("stop"));
        fs::write(&log, "").unwrap();
        let sender = Command::new(&node.tool)
            .args(["client", CLIENT, "python3", &Node::script("sender.py"), NODE])
            .args([release.node_port.to_string(), format!("bert@{}", release.domain)])
            .args([&log, &stop])
            .args([&threads.to_string(), name])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { sender: sender.into(), log, stop }
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn ids(&self, what: &str) -> Vec<String> {
        let mine = |line: &str| {
            let mut words = line.split(' ');
            (words.next() == Some(what)).then(|| words.next().unwrap_or_default().to_owned())
        };
        self.text().lines().filter_map(mine).collect()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.ids(what).len()
    }

    /// Until what is begun is finished.
    pub(crate) fn stop(&self, limit: Duration) {
        fs::write(&self.stop, "").unwrap();
        let end = Instant::now() + limit;
        while self.sender.borrow_mut().try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the sender does not end:\n{}", self.text());
            thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let sender = self.sender.get_mut();
        let _ = sender.kill();
        let _ = sender.wait();
    }
}
