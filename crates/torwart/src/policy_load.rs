//! From policy files to the policy in force. What is not good keeps its last good form; what is gone by accident
//! (an empty file, an unreadable directory, no file at all) removes nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use torwart_edge::Edge;
use torwart_policy::load::{Finding, Loaded, SourceFile, compile_files};
use torwart_policy::{Policy, Snapshot};
use torwart_verdict::{Clock, Engine};

use crate::admin::{Admin, PolicyView};
use crate::policy_state::PolicyState;

/// Compiles files, one state of them after the other.
#[derive(Debug)]
pub(crate) struct Loader {
    /// The gateway's own addresses: no upstream may be there.
    listeners: Vec<SocketAddr>,
    clock: Arc<dyn Clock>,
    last: Option<Arc<Snapshot>>,
    /// Where `last` outlives this process.
    state: Option<PolicyState>,
}

/// A policy that is good enough to serve with, and what was wrong on the way.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) policy: Arc<Policy>,
    /// The number of its publication; 0 if it comes from files.
    pub(crate) sequence: u64,
    pub(crate) view: PolicyView,
    pub(crate) mistakes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Who is told of a new policy.
pub(crate) struct Audience {
    pub(crate) engine: Arc<Engine>,
    pub(crate) admin: Arc<Admin>,
    /// The edge that goes by the MailGateway's hostname.
    pub(crate) edge: Option<Arc<Edge>>,
}

/// Mistakes beyond these are counted, not listed: a thousand files may share one.
const LISTED: usize = 200;

// === impl Loader ===

impl Loader {
    /// Goes on from what an earlier run left in `state`.
    pub(crate) fn new(
        listeners: Vec<SocketAddr>,
        clock: Arc<dyn Clock>,
        mut state: Option<PolicyState>,
    ) -> Self {
        let last = state.as_mut().and_then(PolicyState::read).map(Arc::new);
        Self { listeners, clock, last, state }
    }

    /// Keeps what was loaded last for the next run. To be called only by whoever holds the store, since the file is
    /// its neighbour's.
    pub(crate) fn keep(&mut self) {
        let (Some(state), Some(last)) = (&mut self.state, &self.last) else {
            return;
        };
        if let Err(error) = state.write(last) {
            let path = state.path().display();
            tracing::error!(%path, %error, "the policy can't be kept for the next run, which will know nothing of this one");
        }
    }

    /// `Err` if there is nothing to serve with; it holds every mistake. Then the last policy, if there was one,
    /// stays in force.
    pub(crate) fn load(&mut self, mut files: Vec<SourceFile>) -> Result<Compiled, Vec<String>> {
        if files.is_empty() {
            return Err(vec!["--policy: there is no policy file".to_owned()]);
        }
        if let Some(last) = &self.last {
            keep_what_vanished(&mut files, last);
        }
        let loaded = compile_files(&files, self.last.clone(), &self.listeners, self.clock.now());
        let mistakes = lines(loaded.mistakes());
        let warnings = lines(loaded.warnings());
        let Loaded { compilation, .. } = loaded;
        let (Some(policy), Some(snapshot)) = (compilation.policy, compilation.snapshot) else {
            return Err(mistakes);
        };
        if policy.domains.is_empty() && !mistakes.is_empty() {
            return Err(mistakes);
        }
        let view = view(&snapshot, &mistakes);
        self.last = Some(snapshot);
        Ok(Compiled { policy: Arc::new(policy), sequence: 0, view, mistakes, warnings })
    }
}

/// Files and directories that held objects before and show none now are unreadable, not gone: an editor, a copy or
/// a mount may be at work there.
fn keep_what_vanished(files: &mut Vec<SourceFile>, last: &Snapshot) {
    let mut missed = Vec::new();
    for source in last.sources.values() {
        let named = |file: &SourceFile| file.name.as_str() == &**source;
        let unreadable =
            |file: &&SourceFile| file.content.is_err() && Path::new(&**source).starts_with(&file.name);
        match files.iter_mut().find(|file| named(file)) {
            Some(file) if file.content.as_ref().is_ok_and(|text| text.trim().is_empty()) => {
                let why = "is empty; its last objects stay (remove the file to remove them)";
                file.content = Err(why.to_owned());
            }
            Some(_) => {}
            None => {
                if let Some(Err(why)) = files.iter().find(unreadable).map(|directory| &directory.content) {
                    missed.push(SourceFile { name: source.to_string(), content: Err(why.clone()) });
                }
            }
        }
    }
    missed.sort_by(|a, b| a.name.cmp(&b.name));
    missed.dedup_by(|a, b| a.name == b.name);
    files.append(&mut missed);
}

fn lines<'f>(findings: impl Iterator<Item = &'f Finding>) -> Vec<String> {
    findings.map(ToString::to_string).collect()
}

/// What `/policy` says of it.
pub(crate) fn view(snapshot: &Snapshot, mistakes: &[String]) -> PolicyView {
    let domains: Vec<Value> = snapshot
        .domains
        .iter()
        .map(|(object, domain)| json!({"object": object.to_string(), "domains": domain.spec.domains}))
        .collect();
    let summary = json!({
        "revision": &*snapshot.revision.0,
        "gateway": snapshot.gateway.metadata.name,
        "hostname": snapshot.gateway.spec.hostname,
        "domains": domains,
        "removed": snapshot.removed,
    });
    let mut full = summary.clone();
    full["mistakes"] = json!(mistakes);
    full["objects"] = json!({
        "gateway": &*snapshot.gateway,
        "domains": snapshot.domains.values().map(|domain| &**domain).collect::<Vec<_>>(),
    });
    PolicyView { summary, full }
}

// === impl Audience ===

impl Audience {
    /// Puts the policy in force and tells of it.
    pub(crate) fn announce(&self, compiled: Compiled) {
        let Compiled { policy, sequence, view, mistakes, warnings } = compiled;
        for warning in warnings.iter().take(LISTED) {
            tracing::warn!(warning, "policy");
        }
        let unchanged = self.engine.policy().is_some_and(|before| before.revision == policy.revision);
        if let Some(edge) = &self.edge {
            edge.set_hostname(&policy.gateway.hostname);
        }
        if policy.incomplete {
            tracing::error!(
                "some of the policy can't be read and nobody knows which domains are in it: until that is mended, mail \
                 for every unknown domain is deferred with 451"
            );
        }
        let held = policy.domains.held();
        if held > 0 {
            tracing::error!(
                domains = held,
                "mail domains of objects with mistakes are deferred with 451 until these are mended"
            );
        }
        let (revision, domains) = (policy.revision.clone(), policy.domains.len());
        self.engine.set_published(policy, sequence);
        self.admin.policy.store(Some(Arc::new(view)));
        self.report(&mistakes);
        if unchanged {
            tracing::info!(%revision, "the policy is the same as before");
        } else {
            tracing::info!(%revision, domains, mistakes = mistakes.len(), "the policy is in force");
        }
    }

    /// Says that what was good before stays, or that there is nothing to answer by.
    pub(crate) fn refuse(&self, mistakes: &[String]) {
        self.report(mistakes);
        let mistakes = mistakes.len();
        if self.engine.policy().is_some() {
            tracing::error!(mistakes, "the policy files can't be used; the policy in force stays");
        } else {
            tracing::error!(
                mistakes,
                "the policy files can't be used and there is no other policy: until they are mended, all mail is \
                 deferred with 451"
            );
        }
    }

    /// Says that what is published can't be used or can't be had, and why.
    pub(crate) fn refuse_publication(&self, problem: &str, is_of_policy: bool) {
        if is_of_policy {
            self.engine.metrics().policy_load_failed();
        }
        if self.engine.policy().is_some() {
            tracing::error!(problem, "no newer policy from the cluster; the policy in force stays");
        } else {
            tracing::error!(
                problem,
                "no policy from the cluster and there is no other: until there is, all mail is deferred with 451"
            );
        }
    }

    fn report(&self, mistakes: &[String]) {
        if mistakes.is_empty() {
            return;
        }
        self.engine.metrics().policy_load_failed();
        for mistake in mistakes.iter().take(LISTED) {
            tracing::error!(mistake, "policy mistake; what was good before stays");
        }
        if mistakes.len() > LISTED {
            tracing::error!(more = mistakes.len() - LISTED, "more policy mistakes; see torwart check");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torwart_policy::DomainMatch;
    use torwart_verdict::ManualClock;

    const GATEWAY: &str = "
apiVersion: torwart.dev/v1alpha1
kind: MailGateway
metadata: {name: default}
spec: {hostname: mx.example.net}
";
    const DOMAIN: &str = "
apiVersion: torwart.dev/v1alpha1
kind: MailDomain
metadata: {name: example}
spec:
  domains: [example.org]
  route:
    upstreams: [{host: 192.0.2.1, port: 25}]
";

    fn loader() -> Loader {
        Loader::new(Vec::new(), Arc::new(ManualClock::new(1_000)), None)
    }

    fn files(domain: Result<&str, &str>) -> Vec<SourceFile> {
        let file = |name: &str, content: Result<&str, &str>| SourceFile {
            name: name.to_owned(),
            content: content.map(str::to_owned).map_err(str::to_owned),
        };
        vec![file("policy/gateway.yaml", Ok(GATEWAY)), file("policy/example.yaml", domain)]
    }

    fn knows_domain(compiled: &Compiled) -> bool {
        matches!(compiled.policy.domains.find("example.org", 1_000), DomainMatch::Known { .. })
    }

    #[test]
    fn what_looks_like_an_accident_removes_nothing() {
        let half = &DOMAIN[..DOMAIN.len() / 2];
        let accidents = [
            ("emptied", files(Ok(""))),
            ("blanked", files(Ok(" \n\n"))),
            ("broken off", files(Ok(half))),
            ("no YAML", files(Ok("{{{"))),
            ("unreadable", files(Err("Permission denied"))),
            ("its folder is unreadable", {
                let mut files = files(Err("Permission denied"));
                files[1].name = "policy".to_owned();
                files
            }),
        ];
        for (what, files_then) in accidents {
            let mut loader = loader();
            assert!(loader.load(files(Ok(DOMAIN))).unwrap().mistakes.is_empty());
            let then = loader.load(files_then).unwrap();
            assert!(knows_domain(&then), "{what}");
            assert!(!then.mistakes.is_empty(), "{what} is not reported");
            let again = loader.load(files(Ok(DOMAIN))).unwrap();
            assert!(knows_domain(&again) && again.mistakes.is_empty(), "{what}");
        }
    }

    #[test]
    fn a_file_that_is_gone_removes_its_objects() {
        let mut loader = loader();
        assert!(knows_domain(&loader.load(files(Ok(DOMAIN))).unwrap()));
        let mut without = files(Ok(DOMAIN));
        without.truncate(1);
        let then = loader.load(without).unwrap();
        assert!(matches!(then.policy.domains.find("example.org", 1_000), DomainMatch::Removed { .. }));
        assert!(then.mistakes.is_empty());
    }

    #[test]
    fn no_file_at_all_is_refused() {
        assert!(loader().load(Vec::new()).is_err());
    }

    #[test]
    fn a_gateway_alone_is_enough_unless_something_is_wrong() {
        let mut alone = files(Ok(DOMAIN));
        alone.truncate(1);
        assert!(loader().load(alone).is_ok());
        let mistakes = loader().load(files(Ok("{{{"))).unwrap_err();
        assert!(mistakes[0].starts_with("policy/example.yaml:1:"), "{mistakes:?}");
    }

    /// Another run over the same store.
    fn next_run(folder: &tempfile::TempDir, now: i64) -> Loader {
        let store = torwart_verdict::StoreSpec::Redb(folder.path().join("g.redb"));
        Loader::new(Vec::new(), Arc::new(ManualClock::new(now)), PolicyState::beside(&store))
    }

    fn told(compiled: &Compiled, now: i64) -> String {
        match compiled.policy.domains.find("example.org", now) {
            DomainMatch::Known { .. } => "known".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_domain_that_was_removed_between_two_runs_or_before_them_keeps_its_grace() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = next_run(&folder, 1_000);
        assert_eq!(told(&first.load(files(Ok(DOMAIN))).unwrap(), 1_000), "known");
        first.keep();
        let gateway = || files(Ok(DOMAIN)).into_iter().take(1).collect::<Vec<_>>();
        for (now, wanted) in
            [(2_000, "Removed { until: 88400 }"), (80_000, "Removed { until: 88400 }"), (88_400, "Unknown")]
        {
            let mut run = next_run(&folder, now);
            assert_eq!(told(&run.load(gateway()).unwrap(), now), wanted, "{now}");
            run.keep();
        }
    }

    #[test]
    fn what_was_broken_before_a_restart_keeps_its_last_good_form() {
        let broken = DOMAIN.replace("port: 25", "port: 70000");
        let accidents =
            [files(Ok(&broken)), files(Ok("{{{")), files(Ok("")), files(Err("Permission denied"))];
        for accident in accidents {
            let folder = tempfile::tempdir().unwrap();
            let mut first = next_run(&folder, 1_000);
            assert!(first.load(files(Ok(DOMAIN))).is_ok());
            first.keep();
            for now in [2_000, 900_000] {
                let mut run = next_run(&folder, now);
                let compiled = run.load(accident.clone()).unwrap();
                assert_eq!(told(&compiled, now), "known");
                assert!(!compiled.mistakes.is_empty() && !compiled.policy.incomplete);
                run.keep();
            }
        }
    }

    #[test]
    fn nothing_is_kept_unless_told_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(next_run(&folder, 1_000).load(files(Ok(DOMAIN))).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_mass_removal_between_two_runs_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let many = |count: usize| {
            let domains = (0..count).map(|i| {
                let name = format!("d{i}");
                DOMAIN
                    .replace("name: example", &format!("name: {name}"))
                    .replace("example.org", &format!("{name}.example"))
            });
            files(Ok(&domains.collect::<Vec<_>>().join("---")))
        };
        let mut first = next_run(&folder, 1_000);
        assert!(first.load(many(20)).unwrap().mistakes.is_empty());
        first.keep();
        for now in [2_000, 3_000] {
            let mut run = next_run(&folder, now);
            let compiled = run.load(many(5)).unwrap();
            assert_eq!(compiled.policy.domains.len(), 20);
            assert!(
                compiled.mistakes.iter().any(|line| line.contains("confirm-removal")),
                "{:?}",
                compiled.mistakes
            );
            run.keep();
        }
    }

    #[test]
    fn that_a_part_of_a_file_was_never_read_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let half = format!("{DOMAIN}---\n{{{{{{\n");
        for now in [1_000, 2_000, 3_000] {
            let mut run = next_run(&folder, now);
            let compiled = run.load(files(Ok(&half))).unwrap();
            assert!(told(&compiled, now) == "known" && compiled.policy.incomplete, "{now}");
            run.keep();
        }
        let mut mended = next_run(&folder, 4_000);
        assert!(!mended.load(files(Ok(DOMAIN))).unwrap().policy.incomplete);
        mended.keep();
        // From here on, the last policy knows all that was in the file.
        assert!(!next_run(&folder, 5_000).load(files(Ok(&half))).unwrap().policy.incomplete);
    }

    #[test]
    fn at_a_first_start_nothing_that_could_not_be_read_is_refused() {
        let other = DOMAIN.replace("name: example", "name: other").replace("example.org", "other.example");
        let broken = DOMAIN.replace("port: 25", "port: 70000");
        for (text, held) in [
            (Ok(broken.as_str()), true),
            (Ok(&format!("{DOMAIN}---{DOMAIN}")), true),
            (Ok("{{{"), false),
            (Err("Permission denied"), false),
        ] {
            let mut files = files(text);
            files.push(SourceFile { name: "policy/other.yaml".to_owned(), content: Ok(other.clone()) });
            let mut loader = loader();
            // And so again: that nobody knows what is in a file is not forgotten at the next look.
            for _ in 0..2 {
                let compiled = loader.load(files.clone()).unwrap();
                assert_eq!(told(&compiled, 1_000), if held { "Held" } else { "Unknown" }, "{text:?}");
                assert_eq!(compiled.policy.incomplete, !held, "{text:?}");
            }
            let mended = loader.load(self::files(Ok(DOMAIN))).unwrap();
            assert!(told(&mended, 1_000) == "known" && !mended.policy.incomplete, "{text:?}");
        }
    }
}
