//! `torwart verdict --policy kube:NAMESPACE/GATEWAY` as a process, against the API server of `TORWART_TEST_KUBECONFIG`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // helpers of tests

#[path = "../../operator/tests/follow/outage.rs"]
mod outage;
#[path = "../../operator/tests/follow/publish.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod publish;
mod running;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::config::Kubeconfig;

use self::outage::Way;
use self::publish::{Publisher, api_server, index, snapshot};
use self::running::{Running, spawn, torwart};

const LIMIT: Duration = Duration::from_secs(30);

/// A KUBECONFIG that leads along the way.
fn kubeconfig(folder: &Path, way: &Way) -> PathBuf {
    let path = std::env::var_os("TORWART_TEST_KUBECONFIG").unwrap();
    let mut file = Kubeconfig::read_from(Path::new(&path)).unwrap();
    for cluster in file.clusters.iter_mut().filter_map(|cluster| cluster.cluster.as_mut()) {
        cluster.server = Some(way.config.cluster_url.to_string());
        cluster.tls_server_name.clone_from(&way.config.tls_server_name);
    }
    let path = folder.join("kubeconfig");
    std::fs::write(&path, serde_json::to_string(&file).unwrap()).unwrap();
    path
}

struct Verdict {
    folder: tempfile::TempDir,
    policy: String,
    kubeconfig: PathBuf,
}

impl Verdict {
    fn new(publisher: &Publisher, way: &Way) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(folder.path(), way);
        Self { policy: publisher.source.to_string(), kubeconfig, folder }
    }

    fn start(&self, keeps: bool) -> Running {
        let mut command = torwart(&["verdict", "--store", "memory", "--policy", &self.policy]);
        command.args([
            "--grpc-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--drain-delay",
            "0s",
        ]);
        command.env("KUBECONFIG", &self.kubeconfig);
        if keeps {
            command.arg("--policy-state").arg(self.state());
        }
        let mut running = spawn(command);
        running.admin = running.line("listening")["admin"].as_str().unwrap().to_owned();
        // Nobody reads its lines from here on, and a full pipe must not hold it up.
        let lines = std::mem::replace(&mut running.lines, std::sync::mpsc::sync_channel(0).1);
        std::thread::spawn(move || lines.into_iter().for_each(drop));
        running
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("policy.state")
    }
}

fn code(running: &Running, path: &str) -> String {
    running.get(path).split(' ').nth(1).unwrap().to_owned()
}

/// The policy in force, once it holds the word.
fn until(running: &Running, word: &str) -> String {
    let began = Instant::now();
    loop {
        let policy = running.get("/policy");
        if policy.contains(word) {
            return policy;
        }
        assert!(began.elapsed() < LIMIT, "no {word} in {policy}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_serves_by_the_cluster_and_restarts_without_its_api_server() {
    let Some(config) = api_server().await else { return };
    let publisher = Publisher::new(config.clone(), "process").await;
    let mut way = Way::new(config).await;
    let setup = Verdict::new(&publisher, &way);

    // Nothing is there: neither a policy nor a way to one.
    let verdict = setup.start(true);
    assert_eq!((code(&verdict, "/readyz"), code(&verdict, "/policy")), ("503".into(), "503".into()));
    assert_eq!(code(&verdict, "/healthz"), "200");
    publisher.publish(10, &snapshot(&["first.example"])).await;
    way.open().await;
    until(&verdict, "first.example");
    assert_eq!(code(&verdict, "/readyz"), "200");

    // What can't be taken is counted, and nothing else.
    publisher.put_index("{").await;
    let began = Instant::now();
    while !verdict.get("/metrics").contains("\ntorwart_policy_load_failures_total 1\n") {
        assert!(began.elapsed() < LIMIT, "no failure is counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(verdict.get("/policy").contains("first.example"));
    let second = snapshot(&["first.example", "second.example"]);
    publisher.publish(11, &second).await;
    until(&verdict, "second.example");

    // Its end waits until that is on disk; and then there is only the disk.
    let mut verdict = verdict;
    verdict.signal("TERM");
    assert!(verdict.child.wait().unwrap().success());
    way.close().await;
    let restarted = setup.start(true);
    assert!(until(&restarted, "second.example").contains(&*second.revision.0));
    assert_eq!(code(&restarted, "/readyz"), "200");
    let forgetful = setup.start(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(&forgetful, "/readyz"), "503");

    // Both find what came meanwhile.
    publisher.publish(12, &snapshot(&["third.example"])).await;
    way.open().await;
    until(&restarted, "third.example");
    until(&forgetful, "third.example");

    // What was kept is believed no more than what is published.
    let mut restarted = restarted;
    restarted.signal("TERM");
    assert!(restarted.child.wait().unwrap().success());
    drop(forgetful);
    way.close().await;
    let text = std::fs::read_to_string(setup.state()).unwrap();
    let other = index(12, &second).revision;
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    let revision = serde_json::from_str::<serde_json::Value>(kept["index"].as_str().unwrap()).unwrap();
    let broken = text.replace(revision["revision"].as_str().unwrap(), &other.0);
    assert_ne!(broken, text);
    std::fs::write(setup.state(), broken).unwrap();
    let distrusting = setup.start(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(&distrusting, "/readyz"), "503");
    way.open().await;
    until(&distrusting, "third.example");
    publisher.end().await;
}

#[test]
fn without_any_way_to_an_api_server_it_does_not_start_and_names_the_flag() {
    let mut command = torwart(&["verdict", "--store", "memory", "--policy", "kube:torwart-system/default"]);
    command.args(["--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let output = command.env("KUBECONFIG", "/nowhere/kubeconfig").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--policy kube:torwart-system/default: "), "{text}");
    assert!(text.contains("KUBECONFIG"), "{text}");
}
