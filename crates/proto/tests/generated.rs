//! What is generated from `proto/` is committed: building needs no generator. `UPDATE=1 cargo test -p torwart-proto`
//! writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

const FILES: [&str; 4] = [
    "torwart/verdict/v1/route.proto",
    "torwart/verdict/v1/session.proto",
    "torwart/verdict/v1/status.proto",
    "torwart/verdict/v1/verdict.proto",
];

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn descriptors() -> FileDescriptorSet {
    protox::compile(FILES, [package().join("../../proto")]).unwrap()
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
