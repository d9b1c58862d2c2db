//! Runs the fuzz target's seeds as a plain test, so that what once broke stays whole.

#![allow(clippy::panic, clippy::unwrap_used)] // a test from end to end

use std::path::PathBuf;

#[test]
fn publication_holds_on_its_seeds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/publication");
    let seeds: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(seeds.len() >= 4, "publication has lost its seeds");
    for seed in seeds {
        // The name is shown if the entry panics.
        println!("{}", seed.display());
        torwart_policy::fuzz::publication(&std::fs::read(&seed).unwrap());
    }
}
