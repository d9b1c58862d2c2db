//! The crates' dependencies are the design: a new arrow, or a second TLS library, fails here first.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each may use. Tests of a crate may use more.
const ARROWS: [(&str, &[&str]); 10] = [
    ("torwart-api", &[]),
    ("torwart-core", &[]),
    ("torwart-edge", &["torwart-core", "torwart-proto", "torwart-smtp"]),
    ("torwart-operator", &["torwart-api", "torwart-core", "torwart-policy", "torwart-proto"]),
    ("torwart-policy", &["torwart-api", "torwart-core"]),
    ("torwart-proto", &["torwart-core"]),
    ("torwart-smtp", &[]),
    ("torwart-verdict", &["torwart-api", "torwart-core", "torwart-policy", "torwart-proto"]),
    (
        "torwart",
        &[
            "torwart-api",
            "torwart-core",
            "torwart-edge",
            "torwart-operator",
            "torwart-policy",
            "torwart-proto",
            "torwart-smtp",
            "torwart-verdict",
        ],
    ),
    ("torwart-tests", &[]),
];

/// Each would bring a second TLS library, or a system library into the build.
const BANNED: [&str; 5] = ["ring", "native-tls", "openssl", "openssl-sys", "libz-sys"];

/// No sockets, no clock, no I/O: nothing of this may be under them.
const PURE: [&str; 4] = ["torwart-api", "torwart-core", "torwart-policy", "torwart-smtp"];
const IMPURE: [&str; 5] = ["tokio", "mio", "socket2", "rustls", "hyper"];

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn metadata() -> Value {
    let platform = "x86_64-unknown-linux-gnu";
    let arguments =
        ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", platform];
    serde_json::from_str(&cargo(&arguments)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Package id to name, for every package.
fn names(metadata: &Value) -> BTreeMap<&str, &str> {
    let packages = list(&metadata["packages"]).iter();
    packages.map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap())).collect()
}

/// Package id to the ids that it is built with; tests left out.
fn graph(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let is_for_tests =
        |dependency: &Value| list(&dependency["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev");
    let nodes = list(&metadata["resolve"]["nodes"]).iter();
    nodes
        .map(|node| {
            let used = list(&node["deps"]).iter().filter(|dependency| !is_for_tests(dependency));
            (
                node["id"].as_str().unwrap(),
                used.map(|dependency| dependency["pkg"].as_str().unwrap()).collect(),
            )
        })
        .collect()
}

/// The names of everything that is built for a package; unlike the metadata it leaves out what no feature asks for.
fn built(root: &str) -> BTreeSet<String> {
    let text = cargo(&[
        "tree",
        "--package",
        root,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--locked",
        "--offline",
    ]);
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_crate_uses_another_that_the_design_does_not_allow() {
    let metadata = metadata();
    let names = names(&metadata);
    let graph = graph(&metadata);
    let members: BTreeSet<&str> =
        list(&metadata["workspace_members"]).iter().map(|id| id.as_str().unwrap()).collect();
    let ours: BTreeSet<&str> = members.iter().map(|id| names[id]).collect();
    let listed: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, listed, "a crate came or went: draw its arrows");
    for (name, allowed) in ARROWS {
        let id = members.iter().find(|id| names[*id] == name).unwrap();
        let used: BTreeSet<&str> =
            graph[*id].iter().filter(|id| members.contains(*id)).map(|id| names[id]).collect();
        let new: Vec<_> = used.iter().filter(|used| !allowed.contains(*used)).collect();
        assert!(new.is_empty(), "{name} -> {new:?} is not in the design");
    }
}

#[test]
fn one_tls_library_and_no_system_library_are_built() {
    let built = built("torwart");
    assert!(built.contains("aws-lc-rs"));
    for name in BANNED {
        assert!(!built.contains(name), "{name} is in the build");
    }
}

#[test]
fn the_pure_crates_stay_pure() {
    for root in PURE {
        let built = built(root);
        let impure: Vec<_> = IMPURE.iter().filter(|name| built.contains(**name)).collect();
        assert!(impure.is_empty(), "{root} is built with {impure:?}");
    }
}
