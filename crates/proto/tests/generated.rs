//! What is generated from `proto/` is committed: building needs no generator. `UPDATE=1 cargo test -p torwart-proto`
//! writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

const FOLDER: &str = "torwart/verdict/v1";

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn descriptors() -> FileDescriptorSet {
    let root = package().join("../../proto");
    let entries = fs::read_dir(root.join(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<String> = entries
        .filter_map(|name| name.into_string().ok().filter(|name| name.ends_with(".proto")))
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    files.sort_unstable();
    assert!(!files.is_empty());
    protox::compile(files, [root]).unwrap()
}

fn generated() -> Vec<(&'static str, Vec<u8>)> {
    let descriptors = descriptors();
    let folder = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .emit_rerun_if_changed(false)
        .bytes("torwart.verdict.v1.CheckMessageRequest.chunk")
        .compile_fds(descriptors.clone())
        .unwrap();
    // Comments are for the sources; what the process carries is for reflection.
    let mut bare = descriptors;
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    vec![
        ("torwart.verdict.v1.rs", fs::read(folder.path().join("torwart.verdict.v1.rs")).unwrap()),
        ("torwart.verdict.v1.binpb", bare.encode_to_vec()),
    ]
}

#[test]
fn the_committed_code_is_what_the_sources_generate() {
    for (name, fresh) in generated() {
        let path = package().join("src/generated").join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        let committed = fs::read(&path).unwrap();
        assert!(committed == fresh, "{name} is old: UPDATE=1 cargo test -p torwart-proto writes it anew");
    }
}

#[test]
fn every_message_field_value_and_call_is_commented() {
    for file in descriptors().file {
        let commented: Vec<Vec<i32>> = file
            .source_code_info
            .iter()
            .flat_map(|info| &info.location)
            .filter(|location| location.leading_comments.as_ref().is_some_and(|text| !text.trim().is_empty()))
            .map(|location| location.path.clone())
            .collect();
        let mut wanted: Vec<(String, Vec<i32>)> = Vec::new();
        for (i, message) in (0..).zip(&file.message_type) {
            wanted.push((message.name().to_owned(), vec![4, i]));
            for (j, field) in (0..).zip(&message.field) {
                wanted.push((format!("{}.{}", message.name(), field.name()), vec![4, i, 2, j]));
            }
            let optional = message.field.iter().filter(|field| field.proto3_optional()).count();
            // The last ones stand for `optional` and are in no source.
            let written = message.oneof_decl.len() - optional;
            for (j, oneof) in (0..).zip(&message.oneof_decl[..written]) {
                wanted.push((format!("{}.{}", message.name(), oneof.name()), vec![4, i, 8, j]));
            }
        }
        for (i, list) in (0..).zip(&file.enum_type) {
            wanted.push((list.name().to_owned(), vec![5, i]));
            for (j, value) in (0..).zip(&list.value) {
                wanted.push((value.name().to_owned(), vec![5, i, 2, j]));
            }
        }
        for (i, service) in (0..).zip(&file.service) {
            wanted.push((service.name().to_owned(), vec![6, i]));
            for (j, call) in (0..).zip(&service.method) {
                wanted.push((call.name().to_owned(), vec![6, i, 2, j]));
            }
        }
        for (name, path) in wanted {
            assert!(commented.contains(&path), "{}: {name} has no comment", file.name());
        }
    }
}
