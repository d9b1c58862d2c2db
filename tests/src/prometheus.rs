//! A real Prometheus (Debian's) of a test, that reads every second and has the shipped alerts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, endpoint, eventually, metrics, root};

/// Ends, and its data with it, when dropped.
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

/// What is read: the label `job` as a ServiceMonitor gives it (the Service's name), and an admin port. Nobody need be
/// there.
pub type Target = (&'static str, SocketAddr);

/// One time series of an answer.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub values: Vec<f64>,
}

/// What Prometheus says of a rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub health: String,
    pub error: String,
}

// === impl Prometheus ===

impl Prometheus {
    /// The label that its own discovery would give.
    pub const NAMESPACE: &str = "mail";
    /// How often it reads.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    #[track_caller]
    pub fn start(targets: &[Target]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = endpoint();
        let rules = root().join("charts/torwart/alerts/torwart.yaml");
        let every = format!("{}s", Self::INTERVAL.as_secs());
        let mut config = format!(
            "global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every}}}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n",
            rules.display().to_string()
        );
        let mut jobs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (job, address) in targets {
            jobs.entry(job).or_default().push(format!("\"{address}\""));
        }
        for (job, addresses) in jobs {
            let (addresses, namespace) = (addresses.join(", "), Self::NAMESPACE);
            let _ = writeln!(
                config,
                "  - job_name: {job}\n    static_configs: [{{targets: [{addresses}], labels: {{namespace: {namespace}}}}}]"
            );
        }
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let process = Process::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=warn"),
        );
        let mut prometheus = Self { process, address, _folder: folder };
        eventually("Prometheus is ready", || {
            let lines = prometheus.process.lines().all();
            assert!(prometheus.process.is_running(), "{}", lines.join("\n"));
            metrics::get(address, "/-/ready").is_ok_and(|(status, _)| status == 200)
        });
        prometheus
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until it has read, or tried to read, each target once more.
    #[track_caller]
    pub fn wait_read(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        eventually("each target has been read", || {
            let read = self.query("min(timestamp(up))");
            read.first().is_some_and(|series| series.values[0] > now)
        });
    }

    /// As of now.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Series> {
        series(&self.api(&format!("/api/v1/query?query={}", escaped(expression))))
    }

    /// From `start` to `end`, in seconds since 1970, each second.
    #[track_caller]
    pub fn query_range(&self, expression: &str, start: f64, end: f64) -> Vec<Series> {
        let query = escaped(expression);
        series(&self.api(&format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=1")))
    }

    /// What `label_values(selector, label)` of a dashboard asks.
    #[track_caller]
    pub fn label_values(&self, selector: &str, label: &str) -> Vec<String> {
        let answer = self.api(&format!("/api/v1/label/{label}/values?match%5B%5D={}", escaped(selector)));
        answer.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub fn rules(&self) -> Vec<Rule> {
        let answer = self.api("/api/v1/rules");
        let groups = answer["groups"].as_array().unwrap().iter();
        let word = |rule: &Value, field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap()).map(|rule| Rule {
            name: word(rule, "name"),
            health: word(rule, "health"),
            error: word(rule, "lastError"),
        });
        rules.collect()
    }

    #[track_caller]
    fn api(&self, path: &str) -> Value {
        let (_, body) = metrics::get(self.address, path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }
}

// === impl Series ===

impl Series {
    /// Whether there is anything to see: a number that is not 0.
    pub fn moves(&self) -> bool {
        self.values.iter().any(|value| value.is_finite() && *value != 0.0)
    }

    /// Whether there is any number.
    pub fn is_something(&self) -> bool {
        self.values.iter().any(|value| value.is_finite())
    }
}

fn series(answer: &Value) -> Vec<Series> {
    let number = |pair: &Value| pair[1].as_str().unwrap().parse::<f64>().unwrap();
    let one = |series: &Value| Series {
        labels: series["metric"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
        values: match series["values"].as_array() {
            Some(pairs) => pairs.iter().map(number).collect(),
            None => vec![number(&series["value"])],
        },
    };
    answer["result"].as_array().unwrap().iter().map(one).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
