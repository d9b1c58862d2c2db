//! The page of proofs is held to the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use torwart_tests::root;

use crate::docs::{rows, tests};

/// Where tests are, and what the names of those in it begin with.
const FOLDERS: [(&str, &str); 8] = [
    ("crates/api/src", "api"),
    ("crates/edge/src", "edge"),
    ("crates/policy/src", "policy"),
    ("crates/proto/src", "proto"),
    ("crates/smtp/src", "smtp"),
    ("crates/torwart/src", "torwart"),
    ("crates/verdict/src", "verdict"),
    ("tests/e2e", "e2e"),
];
const TRANSCRIPTS: &str = "crates/smtp/tests/transcripts";
/// The page's sections, by the letter of their rows, with as many rows as there are statements to hold.
const SECTIONS: [(char, usize); 5] = [('S', 46), ('T', 6), ('U', 25), ('M', 19), ('D', 6)];

/// The names of all tests below a folder, each with the path of its file.
fn names(folder: &Path, prefix: &str, into: &mut BTreeSet<String>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let name = if matches!(stem.as_str(), "mod" | "lib" | "main") {
            prefix.to_owned()
        } else {
            format!("{prefix}::{stem}")
        };
        if path.is_dir() {
            names(&path, &name, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = fs::read_to_string(&path).unwrap();
            into.extend(tests(&code).iter().map(|test| format!("{name}::{test}")));
        }
    }
}

fn all_names() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (folder, prefix) in FOLDERS {
        names(&root().join(folder), prefix, &mut all);
    }
    all
}

#[test]
fn every_statement_has_a_test_and_every_test_that_is_named_exists() {
    let page = fs::read_to_string(root().join("docs/proof.md")).unwrap();
    let all = all_names();
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for row in rows(&page) {
        let [line, _statement, tests] = row.as_slice() else { panic!("not three cells: {row:?}") };
        let [line] = line.as_slice() else { panic!("a row without its number: {row:?}") };
        let section = line.chars().next().unwrap();
        let count = counts.entry(section).or_default();
        *count += 1;
        assert_eq!(*line, format!("{section}{count}"), "the numbers have no gap");
        if tests.is_empty() {
            wrong.push(format!("{line} has no test"));
        }
        for test in tests {
            let exists = if Path::new(test).extension().is_some_and(|extension| extension == "txt") {
                root().join(TRANSCRIPTS).join(test).is_file()
            } else {
                all.contains(*test)
            };
            if !exists {
                wrong.push(format!("{line}: there is no {test}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(counts, BTreeMap::from(SECTIONS), "a statement came or went");
}

#[test]
fn a_name_is_found_by_the_path_of_its_file() {
    let all = all_names();
    let ours = "e2e::proof::a_name_is_found_by_the_path_of_its_file";
    assert!(all.contains(ours));
    assert!(!all.contains("e2e::proof::all_names"), "what is no test proves nothing");
    assert!(all.iter().any(|name| name.starts_with("edge::upstream::tests::")), "modules of modules");
}
