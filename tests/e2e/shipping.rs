//! What is shipped: the image's one binary alone in a folder, and the files that make image and release.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use torwart_tests::{
    Certificate, Client, DnsServer, PolicyFile, Process, RedisServer, Upstream, address, endpoint, eventually,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The workflows: name and text.
fn workflows() -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join(".github/workflows")).unwrap();
    let found: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(found.len() >= 2, "{found:?}");
    found
}

/// What follows `key: ` in each line that has it, a list's first line or not.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim).collect()
}

#[test]
fn every_action_is_pinned_by_its_commit_and_says_its_version() {
    let mut seen = 0;
    for (file, text) in workflows() {
        for used in values(&text, "uses") {
            if used.starts_with("./") {
                continue;
            }
            seen += 1;
            let (action, version) =
                used.split_once(" # v").unwrap_or_else(|| panic!("{file}: no version: {used}"));
            let (_, commit) = action.split_once('@').unwrap_or_else(|| panic!("{file}: no commit: {used}"));
            let is_hash =
                commit.len() == 40 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(
                is_hash,
                "{file}: {used} is not pinned by a commit: whoever owns the tag can change what runs"
            );
            assert_eq!(version.split('.').count(), 3, "{file}: {used}: the whole version");
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{file}: {used}");
        }
    }
    assert!(seen > 10);
}

#[test]
fn one_version_of_an_action_is_used() {
    let texts = workflows();
    let mut pins: Vec<&str> = texts.iter().flat_map(|(_, text)| values(text, "uses")).collect();
    pins.sort_unstable();
    pins.dedup();
    let mut actions: Vec<&str> = pins.iter().filter_map(|pin| pin.split('@').next()).collect();
    let count = actions.len();
    actions.dedup();
    assert_eq!(actions.len(), count, "{pins:?}");
}

#[test]
fn a_workflow_may_read_and_each_job_says_what_else_it_may() {
    for (file, text) in workflows() {
        let head = text.split("\njobs:").next().unwrap();
        assert!(
            head.contains("\npermissions:\n  contents: read\n"),
            "{file}: permissions of the whole workflow"
        );
        assert!(!head.contains("write") || file == "release.yml" && !head.contains(": write"), "{file}");
        assert!(!text.contains("write-all") && !text.contains("pull_request_target"), "{file}");
        let checkouts =
            values(&text, "uses").iter().filter(|used| used.starts_with("actions/checkout@")).count();
        assert_eq!(
            text.matches("persist-credentials: false").count(),
            checkouts,
            "{file}: no token is left lying"
        );
        let jobs = text.matches("runs-on:").count();
        assert_eq!(text.matches("timeout-minutes:").count(), jobs, "{file}: every job has a time limit");
        // What an outsider can write (a branch, a title) would be run as a script.
        let mut in_script = None;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            if in_script.is_some_and(|from| indent <= from && !line.trim().is_empty()) {
                in_script = None;
            }
            let code = line.trim_start().trim_start_matches("- ");
            if code.starts_with("run:") {
                in_script = Some(indent);
            }
            assert!(
                in_script.is_none() || !line.contains("${{"),
                "{file}: by env, not in the script: {line}"
            );
        }
    }
}

#[test]
fn image_and_ci_build_with_the_rust_that_the_manifest_asks_for() {
    let manifest = read("Cargo.toml");
    let rust = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    let wanted = format!("rust:{rust}-bookworm");
    assert!(read("Dockerfile").contains(&format!("FROM {wanted} AS build\n")));
    assert_eq!(values(&read(".github/workflows/ci.yml"), "container"), [wanted.as_str()]);
}

#[test]
fn the_image_is_from_nothing_and_runs_as_nobody_in_particular() {
    let text = read("Dockerfile");
    let (_, last) = text.rsplit_once("\nFROM ").unwrap();
    assert!(last.starts_with("scratch\n"), "{last}");
    for line in ["\nUSER 10001:10001\n", "\nENTRYPOINT [\"/torwart\"]\n", "\nCOPY --from=build /image/ /\n"] {
        assert!(last.contains(line), "{line:?} is not in the last stage");
    }
    assert!(!last.contains("\nRUN "), "there is nothing to run there");
    for label in ["title", "description", "source", "licenses", "version", "revision", "created"] {
        assert!(last.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    // What is copied into the build is in the tree.
    for line in read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(root().join(line).exists(), "{line}");
    }
}

/// The folder that is all of the file system for one process.
struct Alone {
    folder: tempfile::TempDir,
}

impl Alone {
    /// `None`, and says so, without a static binary or the right to change the root.
    fn with(resolver: &DnsServer, search: &str) -> Option<Self> {
        let Some(binary) = std::env::var_os("TORWART_STATIC_BIN") else {
            eprintln!("not run: TORWART_STATIC_BIN names no static binary (tests/static-build makes one)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::copy(&binary, folder.path().join("torwart")).unwrap();
        let alone = Self { folder };
        let resolv_conf =
            format!("nameserver {}\nsearch {search}\noptions ndots:5\n", resolver.address().ip());
        alone.put("etc/resolv.conf", resolv_conf.as_bytes());
        fs::set_permissions(alone.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Some(alone)
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// As the image runs it: no other file, no right.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.args(["--userspec=10001:10001", "--groups="]).arg(self.folder.path()).arg("/torwart");
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// The gateway with the policy, the authority and the key that were put there.
    fn run(&self, listen: &str, admin: &str, store: &str, more: &[&str]) -> Process {
        let addresses = ["run", "--smtp-listen", listen, "--admin-listen", admin, "--policy", "/policy.yaml"];
        let stored = ["--store", store, "--store-ca", "/ca.crt", "--store-key-file", "/store.key"];
        Process::start(&mut self.command(&[&addresses[..], &stored, more].concat()))
    }
}

#[test]
fn the_binary_of_the_image_needs_no_other_file() {
    let resolver = DnsServer::start((address(), 53).into(), &[]);
    let Some(alone) = Alone::with(&resolver, "example.test") else { return };
    let output = alone.command(&["--version"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("torwart "), "{output:?}");
}

#[test]
fn the_binary_of_the_image_finds_its_servers_by_name_and_knows_them_by_certificate() {
    let ip = address().to_string();
    let resolver = DnsServer::start(
        (address(), 53).into(),
        &[
            ("mx.mail.svc.cluster.test.", "A", &ip),
            // By an alias, as a name outside of the cluster.
            ("redis.example.test.", "CNAME", "node.redis.example.test."),
            ("node.redis.example.test.", "A", &ip),
        ],
    );
    let search = "mail.svc.cluster.test svc.cluster.test cluster.test";
    let Some(alone) = Alone::with(&resolver, search) else { return };
    let certificate = Certificate::new(&["redis.example.test", &ip]);
    let redis = RedisServer::builder().tls(&certificate).start();
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}").text();
    let by_name = policy.replace(&format!("host: \"{}\"", upstream.endpoint.ip()), "host: mx");
    assert_ne!(policy, by_name);
    alone.put("policy.yaml", by_name.as_bytes());
    alone.put("ca.crt", &fs::read(&certificate.cert).unwrap());
    alone.put("store.key", b"0123456789abcdef0123456789abcdef");
    let smtp = endpoint();
    let (listen, admin) = (smtp.to_string(), endpoint().to_string());
    let store = format!("rediss://redis.example.test:{}", redis.address().port());
    let process = alone.run(&listen, &admin, &store, &["--store-timeout", "1s"]);
    process.lines().wait("ready", |line| line.contains("\"ready\"").then_some(()));
    let send =
        || Client::greeted(smtp).mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n").code;
    assert_eq!(send(), 450, "the first try of a sender that nobody knows");
    assert_ne!(redis.cli(&["DBSIZE"]), "0", "what was seen is in Redis");
    eventually("the second try is taken", || send() == 250);
    assert_eq!(upstream.received().len(), 1);
    let asked = resolver.asked();
    assert!(asked.iter().any(|name| name == "mx.mail.svc.cluster.test."), "{asked:?}");
}

#[test]
fn the_binary_of_the_image_refuses_a_server_with_another_name() {
    let ip = address().to_string();
    let resolver = DnsServer::start((address(), 53).into(), &[("redis.example.test.", "A", &ip)]);
    let Some(alone) = Alone::with(&resolver, "example.test") else { return };
    let certificate = Certificate::new(&["other.example.test", &ip]);
    let redis = RedisServer::builder().tls(&certificate).start();
    alone.put("policy.yaml", PolicyFile::to(endpoint()).text().as_bytes());
    alone.put("ca.crt", &fs::read(&certificate.cert).unwrap());
    alone.put("store.key", b"0123456789abcdef0123456789abcdef");
    let (listen, admin) = (endpoint().to_string(), endpoint().to_string());
    let store = format!("rediss://redis:{}", redis.address().port());
    let process = alone.run(&listen, &admin, &store, &[]);
    let wanted = "not valid for name";
    process.lines().wait(wanted, |line| line.contains(wanted).then_some(()));
}
