//! What an operator of Torwart looks at, as files: dashboards, alerts, their tests and their runbooks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alerts;
mod dashboards;
mod expression;
mod labels;
mod live;
mod metrics;
mod picture;
mod rig;

use std::fs;

pub(crate) use torwart_tests::root;

#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the files in a folder that end so, without that end.
#[track_caller]
pub(crate) fn names(folder: &str, end: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let name =
        |entry: fs::DirEntry| entry.file_name().into_string().unwrap().strip_suffix(end).map(str::to_owned);
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}
