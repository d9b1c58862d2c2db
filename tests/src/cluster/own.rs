//! An API server that a test may kill.

use std::path::PathBuf;
use std::process::Command;

use super::api::skipped;
use super::{Api, unique};
use crate::Output;

/// By the tool that `TORWART_TEST_ENVTEST` names; gone when dropped.
pub struct OwnCluster {
    tool: PathBuf,
    run: String,
    ports: u16,
    pub api: Api,
}

impl OwnCluster {
    /// `None`, and a word about it, without such a tool.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let Some(tool) = std::env::var_os("TORWART_TEST_ENVTEST").filter(|tool| !tool.is_empty()) else {
            skipped("TORWART_TEST_ENVTEST names no tool that starts an API server to be killed");
            return None;
        };
        let tool = PathBuf::from(tool);
        let run = format!("test-{}", unique());
        // Below the kernel's range for outgoing connections; with the controller-manager's, seven ports that belong
        // to this process.
        let ports = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 10;
        let output = Output::of(command(&tool, &run, ports).arg("up"));
        assert_eq!(output.code, 0, "{}", output.text);
        let exported = output.text.split_whitespace().find_map(|word| word.strip_prefix("KUBECONFIG="));
        let kubeconfig = PathBuf::from(exported.unwrap_or_else(|| panic!("{}", output.text)));
        Some(Self { api: Api::of(&kubeconfig), tool, run, ports })
    }

    /// Kills a component at once and starts it again with its data: `kas`, the API server, or `etcd`.
    #[track_caller]
    pub fn restart(&self, component: &str) {
        let output = Output::of(command(&self.tool, &self.run, self.ports).args(["restart", component]));
        assert_eq!(output.code, 0, "{}", output.text);
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let _ = Output::of(command(&self.tool, &self.run, self.ports).arg("down"));
        let folder = self.api.kubeconfig().parent();
        if let Some(folder) = folder.filter(|folder| folder.ends_with(&self.run)) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn command(tool: &PathBuf, run: &str, ports: u16) -> Command {
    let mut command = Command::new(tool);
    command.env("ENVTEST_RUN", run);
    for (name, port) in [("ETCD_PORT", ports), ("API_PORT", ports + 2), ("EXT_PORT", ports + 3)] {
        command.env(name, port.to_string());
    }
    command
}
