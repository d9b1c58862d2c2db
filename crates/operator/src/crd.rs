//! The CustomResourceDefinitions, made from the types in `torwart-api`: what their comments and serde attributes say,
//! with the maxima and rules of `crd/rules.rs` put in.

mod rules;

use std::borrow::Cow;

use kube_core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use torwart_api::{MailDomainSpec, MailDomainStatus, MailGatewaySpec, MailGatewayStatus};

use self::rules::Rule;

/// What `kubectl` shows of an object.
struct Column {
    name: &'static str,
    kind: &'static str,
    path: Cow<'static, str>,
    /// Above 0: only with `-o wide`.
    priority: u32,
}

/// Both definitions, as the API server takes them.
pub fn crds() -> [Value; 2] {
    let gateway = definition(
        Names { kind: "MailGateway", plural: "mailgateways", short: "mgw", scope: "Cluster" },
        "The installation: who it is, who may use it, and what holds for every mail domain.",
        schema::<MailGatewaySpec>(&rules::of_gateway()),
        schema::<MailGatewayStatus>(&rules::of_status()),
        &[
            Column { name: "Hostname", kind: "string", path: Cow::Borrowed(".spec.hostname"), priority: 0 },
            condition("Accepted", 0),
            condition("Programmed", 0),
            Column {
                name: "Domains",
                kind: "integer",
                path: Cow::Borrowed(".status.mailDomains"),
                priority: 0,
            },
            condition("ClientIPPreserved", 1),
            condition("ListsUsable", 1),
            condition("ReputationClean", 1),
            AGE,
        ],
    );
    let domain = definition(
        Names { kind: "MailDomain", plural: "maildomains", short: "md", scope: "Namespaced" },
        "Mail domains that share a route and a policy.",
        schema::<MailDomainSpec>(&rules::of_domain()),
        schema::<MailDomainStatus>(&rules::of_status()),
        &[
            Column { name: "Domains", kind: "string", path: Cow::Borrowed(".spec.domains"), priority: 0 },
            Column { name: "Mode", kind: "string", path: Cow::Borrowed(".status.greylisting"), priority: 0 },
            condition("Accepted", 0),
            condition("Programmed", 0),
            of_condition("Upstream", "UpstreamReachable", "status"),
            Column { priority: 1, ..of_condition("Reason", "Ready", "reason") },
            AGE,
        ],
    );
    [gateway, domain]
}

/// Both as one YAML text, as in `k8s/crds`.
///
/// # Errors
/// Only if a definition has no YAML form, which none should.
pub fn yaml() -> Result<String, String> {
    let documents = crds().map(|crd| document(&crd));
    let [gateway, domain] = documents;
    Ok(format!("{}---\n{}", gateway?, domain?))
}

/// One definition as YAML.
///
/// # Errors
/// Only if it has no YAML form.
pub fn document(crd: &Value) -> Result<String, String> {
    serde_saphyr::to_string(crd).map_err(|error| error.to_string())
}

struct Names {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    scope: &'static str,
}

const AGE: Column =
    Column { name: "Age", kind: "date", path: Cow::Borrowed(".metadata.creationTimestamp"), priority: 0 };

fn condition(kind: &'static str, priority: u32) -> Column {
    Column { priority, ..of_condition(kind, kind, "status") }
}

/// One field of a condition.
fn of_condition(name: &'static str, kind: &str, field: &str) -> Column {
    let path = format!(".status.conditions[?(@.type==\"{kind}\")].{field}").into();
    Column { name, kind: "string", path, priority: 0 }
}

fn definition(names: Names, description: &str, spec: Value, status: Value, columns: &[Column]) -> Value {
    let Names { kind, plural, short, scope } = names;
    let columns: Vec<Value> = columns
        .iter()
        .map(|Column { name, kind, path, priority }| {
            json!({ "name": name, "type": kind, "jsonPath": path, "priority": priority })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.torwart.dev") },
        "spec": {
            "group": "torwart.dev",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [short],
                "categories": ["torwart"],
            },
            "scope": scope,
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": description,
                    "required": ["spec"],
                    "properties": { "spec": spec, "status": status },
                } },
            }],
        },
    })
}

/// The structural schema of a type (Kubernetes: "Specifying a structural schema"), with `rules` put in.
fn schema<T: JsonSchema>(rules: &[Rule]) -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generator = settings
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.remove("title");
    }
    for (path, additions) in rules {
        apply(&mut schema, path, additions);
    }
    schema
}

/// Drops what says nothing to an API server, or too much: that an optional field may be null, the formats of numbers that
/// OpenAPI does not have, defaults.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("nullable");
            if let Some(Value::String(format)) = map.get("format")
                && format.starts_with("uint")
            {
                map.remove("format");
            }
            // A default would hide that the gateway's holds.
            map.remove("default");
            if map.get("minimum").and_then(Value::as_f64) == Some(0.0) {
                map.insert("minimum".to_owned(), json!(0));
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Adds `additions` to the schema at `path`: property names with dots between them, `[]` for a list's items. An empty
/// path is the whole. Says whether there is such a place.
fn apply(schema: &mut Value, path: &str, additions: &Map<String, Value>) -> bool {
    let mut at = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, items) = match part.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (part, false),
        };
        let Some(next) = at.get_mut("properties").and_then(|properties| properties.get_mut(name)) else {
            return false;
        };
        at = next;
        if items {
            let Some(next) = at.get_mut("items") else { return false };
            at = next;
        }
    }
    let Some(there) = at.as_object_mut() else { return false };
    for (key, addition) in additions {
        match (there.get_mut(key), addition) {
            // Rules of the type itself stay.
            (Some(Value::Array(rules)), Value::Array(more)) if key == "x-kubernetes-validations" => {
                rules.extend(more.iter().cloned());
            }
            _ => {
                there.insert(key.clone(), addition.clone());
            }
        }
    }
    true
}

#[cfg(test)]
mod tests;
