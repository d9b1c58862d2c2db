//! What of one descriptor set is no longer the same in another, as far as a peer on the wire, or code that was generated
//! from the first, could tell.

use std::collections::BTreeMap;

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// Each thing by its name, with all that must stay as it is.
type Things = BTreeMap<String, String>;

/// Everything of `old` that is gone from `new`, or changed there. Additions are no break.
pub(crate) fn breaks(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let new = things(new);
    things(old)
        .into_iter()
        .filter_map(|(name, was)| match new.get(&name) {
            None => Some(format!("{name} is gone (it was {was})")),
            Some(is) if *is != was => Some(format!("{name} was {was} and is {is}")),
            Some(_) => None,
        })
        .collect()
}

fn things(set: &FileDescriptorSet) -> Things {
    let mut things = Things::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            add_message(&mut things, package, "", message);
        }
        for list in &file.enum_type {
            add_enum(&mut things, package, "", list);
        }
        for service in &file.service {
            things.insert(format!("service {}", service.name()), format!("in {package}"));
            for call in &service.method {
                let stream = |streams: bool| if streams { "stream of " } else { "" };
                let is = format!(
                    "{}{} -> {}{}",
                    stream(call.client_streaming()),
                    call.input_type(),
                    stream(call.server_streaming()),
                    call.output_type()
                );
                things.insert(format!("call {}.{}", service.name(), call.name()), is);
            }
        }
    }
    things
}

fn add_message(things: &mut Things, package: &str, within: &str, message: &DescriptorProto) {
    let name = format!("{within}{}", message.name());
    things.insert(format!("message {name}"), format!("in {package}"));
    for field in &message.field {
        let choice = field
            .oneof_index
            .and_then(|i| message.oneof_decl.get(usize::try_from(i).ok()?))
            .map_or("", |choice| choice.name());
        let is = format!(
            "number {}, {:?} {:?} {}, one of {choice:?}, optional: {}, packed: {:?}",
            field.number(),
            field.label(),
            field.r#type(),
            field.type_name(),
            field.proto3_optional(),
            field.options.as_ref().and_then(|options| options.packed),
        );
        things.insert(format!("field {name}.{}", field.name()), is);
    }
    let within = format!("{name}.");
    for nested in &message.nested_type {
        add_message(things, package, &within, nested);
    }
    for nested in &message.enum_type {
        add_enum(things, package, &within, nested);
    }
}

fn add_enum(things: &mut Things, package: &str, within: &str, list: &EnumDescriptorProto) {
    let name = format!("{within}{}", list.name());
    things.insert(format!("enum {name}"), format!("in {package}"));
    for value in &list.value {
        things.insert(format!("value {name}.{}", value.name()), format!("number {}", value.number()));
    }
}
