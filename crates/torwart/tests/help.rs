//! `docs/cli.md` is the help of the binary itself. `UPDATE=1 cargo test -p torwart --test help` rewrites it.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const INTRODUCTION: &str = "# The command line

This is what `torwart help` prints. Every flag can be given in the environment instead: `TORWART_` and its name in
capitals, as shown. Flags that are repeatable take several values there, separated by commas. Exit status: 2 if the
command line is wrong (every mistake is reported, each with its flag), 1 if something else is, 0 otherwise.
";

fn help(subcommand: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_torwart"))
        .arg("help")
        .args(subcommand)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "help {subcommand:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_docs_show_the_help_as_it_is() {
    let mut text = INTRODUCTION.to_owned();
    for subcommand in [
        &[][..],
        &["run"],
        &["edge"],
        &["verdict"],
        &["operator"],
        &["check"],
        &["explain"],
        &["crd"],
        &["demo"],
    ] {
        let title = [&["torwart"], subcommand].concat().join(" ");
        writeln!(text, "\n## {title}\n\n```text\n{}\n```", help(subcommand).trim_end()).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "docs/cli.md is old: UPDATE=1 cargo test -p torwart --test help");
}
