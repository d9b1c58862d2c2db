//! Files that are made from others are what they would be made now.

use std::fs;
use std::process::Command;

use torwart_tests::{Gateway, Output};

use crate::helm::{Helm, chart, root};

/// Names and texts of all templates.
pub(crate) fn templates() -> Vec<(String, String)> {
    let folder = chart().join("templates");
    let mut all = Vec::new();
    for folder in [folder.clone(), folder.join("tests")] {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                all.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(all.len() > 10);
    all
}

#[test]
fn the_charts_crds_are_the_shipped_ones_byte_for_byte() {
    let read = |folder: &str| {
        let files = fs::read_dir(root().join(folder)).unwrap();
        let mut files: Vec<_> = files
            .map(|file| {
                let path = file.unwrap().path();
                (path.file_name().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let shipped = read("k8s/crds");
    assert_eq!(shipped.len(), 2);
    assert!(read("charts/torwart/crds") == shipped, "run k8s/render");
}

#[test]
fn the_base_is_what_the_chart_renders() {
    let Some(_helm) = Helm::new() else { return };
    let output = Command::new(root().join("k8s/render")).arg("--print").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rendered = String::from_utf8(output.stdout).unwrap();
    let committed = fs::read_to_string(root().join("k8s/base/torwart.yaml")).unwrap();
    assert!(rendered == committed, "k8s/base/torwart.yaml is old: run k8s/render");
}

#[test]
fn the_examples_are_good_and_without_warnings() {
    for name in ["quickstart", "cluster", "postfix", "tenants", "exchange", "hmailserver"] {
        let file = root().join(format!("k8s/examples/{name}.yaml")).display().to_string();
        let output = Output::of(&mut Gateway::command(&["check", "--policy", &file]));
        assert!(output.code == 0 && output.text.contains("0 mistakes, 0 warnings"), "{}", output.text);
    }
}

/// A rules file whose tests are packaged would be read as rules by some.
#[test]
fn only_what_helm_needs_is_packaged() {
    let Some(helm) = Helm::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().display().to_string();
    helm.ok(&["package", &chart().display().to_string(), "--destination", &to]);
    let package = fs::read_dir(&to).unwrap().next().unwrap().unwrap().path();
    let listed = Output::of(Command::new("tar").arg("tzf").arg(&package)).text;
    for wanted in [
        "torwart/Chart.yaml",
        "torwart/values.schema.json",
        "torwart/templates/NOTES.txt",
        "torwart/crds/maildomains.torwart.dev.yaml",
        "torwart/alerts/torwart.yaml",
        "torwart/dashboards/overview.json",
    ] {
        assert!(listed.lines().any(|line| line == wanted), "{wanted}: {listed}");
    }
    assert!(!listed.contains("torwart/ci/") && !listed.contains("alerts/tests"), "{listed}");
}

/// The release script relies on it.
#[test]
fn the_charts_versions_are_the_programs() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("version: {version}"), format!("appVersion: {version}")] {
        assert!(text.lines().any(|it| it == line), "{line}");
    }
}
