use std::fs;
use std::path::PathBuf;

use super::*;

fn file(crd: &Value) -> PathBuf {
    let name = crd["metadata"]["name"].as_str().unwrap();
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../k8s/crds/{name}.yaml"))
}

#[test]
fn the_files_are_what_the_types_say() {
    for crd in crds() {
        let text = document(&crd).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(file(&crd), &text).unwrap();
        }
        let written = fs::read_to_string(file(&crd)).unwrap_or_default();
        assert!(written == text, "k8s/crds is old: UPDATE=1 cargo test -p torwart-operator crd");
    }
}

#[test]
fn every_rule_has_its_place() {
    let unruled = |rules: &[Rule], mut schema: Value| {
        for (path, additions) in rules {
            assert!(apply(&mut schema, path, additions), "{path}");
        }
    };
    unruled(&rules::of_domain(), schema::<MailDomainSpec>(&[]));
    unruled(&rules::of_gateway(), schema::<MailGatewaySpec>(&[]));
    unruled(&rules::of_status(), schema::<MailDomainStatus>(&[]));
    unruled(&rules::of_status(), schema::<MailGatewayStatus>(&[]));
}

/// Every schema below, with its path.
fn walk<'v>(path: &str, schema: &'v Value, found: &mut Vec<(String, &'v Value)>) {
    found.push((path.to_owned(), schema));
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), below, found);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], found);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], found);
    }
}

#[test]
fn every_field_is_described_and_bounded() {
    for crd in crds() {
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Vec::new();
        walk("", root, &mut found);
        assert!(found.len() > 30);
        for (path, schema) in found {
            let is_entry = path.ends_with("[]") || path.ends_with("{}") || path.is_empty();
            assert!(is_entry || schema["description"].is_string(), "{path} has no description");
            assert!(schema.get("default").is_none(), "{path} has a default, which would hide the gateway's");
            match schema["type"].as_str() {
                Some("array") => assert!(schema["maxItems"].is_number(), "{path} has no maxItems"),
                Some("string") => {
                    let bounded = schema["maxLength"].is_number()
                        || schema["enum"].is_array()
                        || schema["format"] == "date-time";
                    assert!(
                        bounded || path.starts_with(".status") || path.ends_with("{}"),
                        "{path} has no maxLength"
                    );
                }
                Some("object" | "integer" | "number" | "boolean") => {}
                other => assert!(schema["x-kubernetes-int-or-string"] == true, "{path}: {other:?}"),
            }
        }
    }
}

#[test]
fn each_fits_the_annotation_of_kubectl_apply() {
    // "last-applied-configuration" may have 256 KiB (k8s.io/apimachinery: TotalAnnotationSizeLimitB).
    for crd in crds() {
        assert!(crd.to_string().len() < 200 << 10, "{}", crd.to_string().len());
    }
}
