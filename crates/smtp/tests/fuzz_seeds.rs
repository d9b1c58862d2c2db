//! Runs the fuzz targets' seeds as plain tests, so that what once broke stays whole.

#![allow(clippy::panic, clippy::unwrap_used)] // a test from end to end

use std::path::PathBuf;

fn run(target: &str, entry: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(seeds.len() >= 4, "{target} has lost its seeds");
    for seed in seeds {
        let bytes = std::fs::read(&seed).unwrap();
        // The name is shown if the entry panics.
        println!("{}", seed.display());
        entry(&bytes);
    }
}

#[test]
fn command_line_holds_on_its_seeds() {
    run("command_line", torwart_smtp::fuzz::command_line);
}

#[test]
fn message_data_holds_on_its_seeds() {
    run("message_data", torwart_smtp::fuzz::message_data);
}

#[test]
fn header_edit_holds_on_its_seeds() {
    run("header_edit", torwart_smtp::fuzz::header_edit);
}

#[test]
fn upstream_reply_holds_on_its_seeds() {
    run("upstream_reply", torwart_smtp::fuzz::upstream_reply);
}

#[test]
fn session_holds_on_its_seeds() {
    run("session", torwart_smtp::fuzz::session);
}
