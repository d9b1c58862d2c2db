//! Edges and verdicts as processes of their own, each in the test's hand.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Client, Lines, Part, PartBuilder, PolicyFile, eventually};

pub struct Fleet {
    pub edges: Vec<Part>,
    pub verdicts: Vec<Part>,
    lines: Lines,
    policy: PathBuf,
    folder: TempDir,
}

#[derive(Clone)]
pub struct FleetBuilder {
    store: String,
    edges: usize,
    verdicts: usize,
    edge: PartBuilder,
    verdict_flags: Vec<(String, String)>,
}

impl Fleet {
    /// One edge and three verdicts that remember in this store.
    pub fn builder(store: &str) -> FleetBuilder {
        FleetBuilder {
            store: store.to_owned(),
            edges: 1,
            verdicts: 3,
            edge: Part::edge(),
            verdict_flags: Vec::new(),
        }
    }

    /// What all of them have written since the first start.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.edges.iter().chain(&self.verdicts)
    }

    /// A connection to the first edge that is greeted.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::greeted(self.edges.first().unwrap().listen)
    }

    /// Puts another policy in place, and waits until every verdict has taken it or refused it.
    #[track_caller]
    pub fn replace_policy(&self, text: &str) {
        let before: Vec<PolicyMark> = self.verdicts.iter().map(policy_mark).collect();
        replace(&self.policy, text);
        for (verdict, before) in self.verdicts.iter().zip(before) {
            eventually("the verdict has seen the policy", || policy_mark(verdict) != before);
        }
    }

    /// For whoever keeps the parts: the folder that must outlive them.
    pub(crate) fn into_parts(self) -> (Vec<Part>, TempDir) {
        (self.edges.into_iter().chain(self.verdicts).collect(), self.folder)
    }
}

/// Puts another file in place, the way an editor or a mounted ConfigMap does: by renaming.
pub(crate) fn replace(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, file).unwrap();
}

/// The policy that a verdict has in force, and how many it has refused.
pub(crate) type PolicyMark = (String, f64);

#[track_caller]
pub(crate) fn policy_mark(verdict: &Part) -> PolicyMark {
    let failures = verdict.metrics().sum("torwart_policy_load_failures_total", &[]);
    (verdict.get("/policy").1, failures)
}

// === impl FleetBuilder ===

impl FleetBuilder {
    pub fn edges(mut self, count: usize) -> Self {
        self.edges = count;
        self
    }

    pub fn verdicts(mut self, count: usize) -> Self {
        self.verdicts = count;
        self
    }

    pub fn edge_flag(mut self, name: &str, value: impl ToString) -> Self {
        self.edge = self.edge.flag(name, value);
        self
    }

    pub fn verdict_flag(mut self, name: &str, value: impl ToString) -> Self {
        self.verdict_flags.push((name.to_owned(), value.to_string()));
        self
    }

    /// Replaces how edges are started; their endpoints hold if there is one.
    pub fn edge(mut self, edge: PartBuilder) -> Self {
        self.edge = edge;
        self
    }

    /// Starts all, and waits until all are ready.
    #[track_caller]
    pub fn start(self, policy: &str) -> Fleet {
        let fleet = self.launch(policy);
        fleet.parts().for_each(Part::wait_ready);
        fleet
    }

    /// As [`FleetBuilder::start`], without the wait.
    #[track_caller]
    pub fn launch(self, policy: &str) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        fs::write(&file, policy).unwrap();
        self.launch_in(folder, &file, &Lines::new())
    }

    /// With a policy that the caller keeps.
    #[track_caller]
    pub(crate) fn launch_with(self, policy: &Path, lines: &Lines) -> Fleet {
        self.launch_in(tempfile::tempdir().unwrap(), policy, lines)
    }

    #[track_caller]
    fn launch_in(self, folder: TempDir, policy: &Path, lines: &Lines) -> Fleet {
        // With a key of its own a fleet shares nothing with others in the same Redis.
        let key = folder.path().join("store.key");
        fs::write(&key, fs::read("/proc/sys/kernel/random/uuid").unwrap()).unwrap();
        let verdict =
            Part::verdict(policy, &self.store).flag("--store-key-file", key.display()).sharing(lines);
        let verdict = self.verdict_flags.iter().fold(verdict, |part, (name, value)| part.flag(name, value));
        let verdicts: Vec<Part> = (0..self.verdicts).map(|_| verdict.clone().elsewhere().launch()).collect();
        let mut edge = self.edge.sharing(lines);
        if !edge.has("--hostname") {
            // An edge has no policy to take it from.
            edge = edge.flag("--hostname", PolicyFile::HOSTNAME);
        }
        let edge = verdicts.iter().fold(edge, PartBuilder::asks);
        let edges = (0..self.edges)
            .map(|n| if n == 0 { edge.clone() } else { edge.clone().elsewhere() })
            .map(PartBuilder::launch)
            .collect();
        Fleet { edges, verdicts, lines: lines.clone(), policy: policy.to_owned(), folder }
    }
}
