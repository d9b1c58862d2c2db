//! Whole files: what is wrong with each, word for word.
//!
//! Every file in `tests/bad` begins with its messages, one `# expect: ` line each; `UPDATE=1 cargo test` writes them anew.

#![allow(clippy::unwrap_used)] // A test that can't go on should stop.

use std::fs;
use std::path::{Path, PathBuf};

use torwart_policy::load::{Loaded, SourceFile, compile_files};

/// 2026-12-01.
const NOW: i64 = 1_796_083_200;

fn load(path: &Path) -> Loaded {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let content = fs::read_to_string(path).map_err(|error| error.to_string());
    compile_files(&[SourceFile { name, content }], None, &["127.0.0.1:2525".parse().unwrap()], NOW)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Most files leave the postmaster out and are about something else.
fn said(loaded: &Loaded) -> Vec<String> {
    let postmaster = |line: &String| line.contains(": spec.postmaster: is left out");
    loaded.findings.iter().map(ToString::to_string).filter(|line| !postmaster(line)).collect()
}

#[test]
fn every_bad_file_is_told_what_is_wrong_with_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut paths: Vec<_> =
        fs::read_dir(folder("tests/bad")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        let said = said(&load(&path));
        if std::env::var_os("UPDATE").is_some() {
            update(&path, &text, said.len());
            continue;
        }
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        if said != expected {
            wrong.push(format!("{}\n  expected {expected:#?}\n  said {said:#?}", path.display()));
        }
    }
    assert!(seen > 0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The number of lines in front moves the lines in the messages, so it is fixed first.
fn update(path: &Path, text: &str, count: usize) {
    let rest: String =
        text.lines().filter(|line| !line.starts_with("# expect: ")).map(|line| format!("{line}\n")).collect();
    let room = "# expect: \n".repeat(count);
    fs::write(path, format!("{room}{rest}")).unwrap();
    let lines: String = said(&load(path)).iter().map(|line| format!("# expect: {line}\n")).collect();
    fs::write(path, format!("{lines}{rest}")).unwrap();
}

#[test]
fn the_quickstart_has_no_mistake_and_no_warning() {
    let loaded = load(&folder("../../k8s/examples/quickstart.yaml"));
    assert_eq!(loaded.findings, vec![]);
    assert_eq!(loaded.compilation.policy.unwrap().domains.len(), 1);
}
