//! An edge and a verdict of different releases understand each other: what was released once stays as it was.
//!
//! `released.binpb` is the descriptor set of the last release. `RELEASE=1 cargo test -p torwart-proto --test additive`
//! writes it anew when a release is made, and only if nothing is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod breaks;

use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    OneofDescriptorProto,
};

use self::breaks::breaks;

fn released_at() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/torwart/verdict/v1/released.binpb")
}

fn released() -> FileDescriptorSet {
    FileDescriptorSet::decode(std::fs::read(released_at()).unwrap().as_slice()).unwrap()
}

/// What the process tells by reflection; another test holds it to the sources.
fn present() -> FileDescriptorSet {
    FileDescriptorSet::decode(torwart_proto::FILE_DESCRIPTOR_SET).unwrap()
}

#[test]
fn what_was_released_is_still_there_unchanged() {
    let broken = breaks(&released(), &present());
    assert!(
        broken.is_empty(),
        "an edge and a verdict of different releases would not understand:\n{broken:#?}"
    );
    if std::env::var_os("RELEASE").is_some() {
        std::fs::write(released_at(), torwart_proto::FILE_DESCRIPTOR_SET).unwrap();
    }
}

#[test]
fn the_release_holds_both_services() {
    let names: Vec<String> = released()
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(|service| service.name().to_owned()))
        .collect();
    assert!(names.contains(&"VerdictService".to_owned()) && names.contains(&"StatusService".to_owned()));
}

// === the comparison itself ===

fn file<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut FileDescriptorProto {
    set.file.iter_mut().find(|file| file.name().ends_with(name)).unwrap()
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    set.file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
        .find(|message| message.name() == name)
        .unwrap()
}

fn field<'a>(set: &'a mut FileDescriptorSet, of: &str, name: &str) -> &'a mut FieldDescriptorProto {
    message(set, of).field.iter_mut().find(|field| field.name() == name).unwrap()
}

fn list<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut EnumDescriptorProto {
    set.file.iter_mut().flat_map(|file| &mut file.enum_type).find(|list| list.name() == name).unwrap()
}

#[test]
fn each_kind_of_break_is_found() {
    type Change = fn(&mut FileDescriptorSet);
    let table: [(&str, Change); 24] = [
        ("message Peer", |set| file(set, "session.proto").message_type.retain(|m| m.name() != "Peer")),
        ("message Peer", |set| message(set, "Peer").name = Some("Client".to_owned())),
        ("field Peer.helo", |set| message(set, "Peer").field.retain(|f| f.name() != "helo")),
        ("field Peer.helo", |set| field(set, "Peer", "helo").name = Some("greeting".to_owned())),
        ("field Peer.helo", |set| field(set, "Peer", "helo").number = Some(99)),
        ("field Peer.helo", |set| field(set, "Peer", "helo").set_type(Type::Bytes)),
        ("field Peer.helo", |set| field(set, "Peer", "helo").set_label(Label::Repeated)),
        ("field Peer.helo", |set| {
            let helo = field(set, "Peer", "helo");
            (helo.proto3_optional, helo.oneof_index) = (None, None);
        }),
        ("field Peer.tls", |set| {
            field(set, "Peer", "tls").type_name = Some(".torwart.verdict.v1.Reply".to_owned());
        }),
        ("field Peer.port", |set| {
            // The number goes to another name.
            field(set, "Peer", "port").number = Some(99);
            field(set, "Peer", "early_talker").number = Some(3);
        }),
        ("field CheckMessageRequest.end", |set| {
            field(set, "CheckMessageRequest", "end").oneof_index = None;
        }),
        ("field CheckMessageRequest.end", |set| {
            let request = message(set, "CheckMessageRequest");
            request.oneof_decl.push(OneofDescriptorProto { name: Some("other".to_owned()), options: None });
            let other = i32::try_from(request.oneof_decl.len() - 1).unwrap();
            field(set, "CheckMessageRequest", "end").oneof_index = Some(other);
        }),
        ("field CheckMessageRequest.chunk", |set| {
            message(set, "CheckMessageRequest").oneof_decl[0].name = Some("piece".to_owned());
        }),
        ("enum Action", |set| file(set, "session.proto").enum_type.retain(|e| e.name() != "Action")),
        ("value Action.ACTION_REJECT", |set| {
            list(set, "Action").value.retain(|v| v.name() != "ACTION_REJECT");
        }),
        ("value Action.ACTION_REJECT", |set| {
            list(set, "Action").value.last_mut().unwrap().number = Some(9);
        }),
        ("value Action.ACTION_REJECT", |set| {
            list(set, "Action").value.last_mut().unwrap().name = Some("ACTION_REFUSE".to_owned());
        }),
        ("service StatusService", |set| file(set, "status.proto").service.clear()),
        ("call VerdictService.GetRoute", |set| {
            file(set, "verdict.proto").service[0].method.retain(|m| m.name() != "GetRoute");
        }),
        ("call VerdictService.CheckConnection", |set| {
            let call = &mut file(set, "verdict.proto").service[0].method[0];
            call.input_type = Some(".torwart.verdict.v1.GetRouteRequest".to_owned());
        }),
        ("call VerdictService.CheckConnection", |set| {
            let call = &mut file(set, "verdict.proto").service[0].method[0];
            call.output_type = Some(".torwart.verdict.v1.GetRouteResponse".to_owned());
        }),
        ("call VerdictService.CheckConnection", |set| {
            file(set, "verdict.proto").service[0].method[0].client_streaming = Some(true);
        }),
        ("call VerdictService.CheckConnection", |set| {
            file(set, "verdict.proto").service[0].method[0].server_streaming = Some(true);
        }),
        ("message CheckMessageRequest", |set| file(set, "verdict.proto").package = Some("other".to_owned())),
    ];
    for (i, (what, change)) in table.into_iter().enumerate() {
        let mut changed = present();
        change(&mut changed);
        let found = breaks(&present(), &changed);
        assert!(
            found.iter().any(|found| found.starts_with(&format!("{what} "))),
            "row {i}, {what}: {found:#?}"
        );
    }
}

#[test]
fn what_is_added_or_moved_between_files_is_no_break() {
    let mut changed = present();
    let mut added = field(&mut changed, "Peer", "port").clone();
    (added.name, added.number) = (Some("added".to_owned()), Some(99));
    message(&mut changed, "Peer").field.insert(0, added.clone());
    let part = Some(0);
    (added.number, added.oneof_index) = (Some(98), part);
    message(&mut changed, "CheckMessageRequest").field.push(added);
    let mut value = list(&mut changed, "Action").value[0].clone();
    (value.name, value.number) = (Some("ACTION_ADDED".to_owned()), Some(99));
    list(&mut changed, "Action").value.insert(1, value);
    let service = &mut file(&mut changed, "verdict.proto").service[0];
    let mut call = service.method[0].clone();
    call.name = Some("Added".to_owned());
    service.method.insert(0, call);
    let peer = message(&mut changed, "Peer").clone();
    file(&mut changed, "session.proto").message_type.retain(|message| message.name() != "Peer");
    file(&mut changed, "route.proto").message_type.push(peer);
    assert_eq!(breaks(&present(), &changed), Vec::<String>::new());
    // And the other way round each of them would be missed.
    assert_eq!(breaks(&changed, &present()).len(), 4);
}
