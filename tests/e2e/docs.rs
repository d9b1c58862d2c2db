//! What the documentation promises is in the tree.

use std::collections::BTreeSet;
use std::fs;

use torwart_tests::{root, sources};

/// The rows of all tables that have a column `test`: what stands in backquotes in each cell.
pub(crate) fn rows(page: &str) -> Vec<Vec<Vec<&str>>> {
    let mut in_table = false;
    let mut rows = Vec::new();
    for line in page.lines() {
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        if cells.last() == Some(&"test") {
            in_table = true;
        } else if in_table && !inner.starts_with("---") {
            rows.push(cells.iter().map(|cell| cell.split('`').skip(1).step_by(2).collect()).collect());
        }
    }
    rows
}

/// The names of all functions that have an attribute `test`.
pub(crate) fn tests(code: &str) -> BTreeSet<&str> {
    let mut is_test = false;
    let mut names = BTreeSet::new();
    for line in code.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some((_, rest)) = line.split_once("fn ") {
            if is_test {
                names.extend(rest.split(['(', '<']).next());
            }
            is_test = false;
        }
    }
    names
}

#[test]
fn every_row_of_the_failure_contract_names_tests_that_exist_and_metrics_that_move() {
    let page = fs::read_to_string(root().join("docs/failure-contract.md")).unwrap();
    let code = sources(&["crates", "tests/cluster", "tests/e2e", "tests/src"]);
    let functions = tests(&code);
    let rows = rows(&page);
    assert!(rows.len() > 20, "the page has lost its tables");
    for row in rows {
        let [_failure, _hears, moves, tests] = row.as_slice() else { panic!("not four cells: {row:?}") };
        assert!(!tests.is_empty(), "a row without a test: {row:?}");
        for test in tests {
            assert!(functions.contains(test), "{test} is no test of the tree");
        }
        for word in moves {
            let name = word.split('{').next().unwrap();
            assert!(code.contains(&format!("\"{name}\"")), "nothing is called {name}: {row:?}");
        }
    }
}

#[test]
fn every_reason_of_a_condition_is_on_its_page_with_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let reasons = fs::read_to_string(root().join("crates/operator/src/plan/reasons.rs")).unwrap();
    let reasons: BTreeSet<&str> = reasons
        .lines()
        .filter_map(|line| line.strip_suffix("\",")?.split_once(" = \""))
        .map(|(_, reason)| reason)
        .collect();
    assert!(reasons.len() > 30, "{reasons:?}");
    let code = sources(&["crates/operator", "tests/cluster"]);
    let functions = tests(&code);
    let rows = rows(&page);
    let mut told = BTreeSet::new();
    for row in &rows {
        let [_status, reason, _meaning, _remedy, tests] = row.as_slice() else {
            panic!("not five cells: {row:?}")
        };
        let [reason] = reason.as_slice() else { panic!("not one reason: {row:?}") };
        told.insert(*reason);
        assert!(!tests.is_empty(), "a row without a test: {row:?}");
        for test in tests {
            assert!(functions.contains(test), "{test} is no test of the tree");
        }
    }
    assert_eq!(told, reasons);
}
