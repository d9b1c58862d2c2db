//! Reading objects.

use serde_json::Value;

/// `metadata.name`.
#[track_caller]
pub fn manifest_name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// A condition of an object, if it is about the object's present generation: status, reason, message.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let generation = &object["metadata"]["generation"];
    if &found["observedGeneration"] != generation || &object["status"]["observedGeneration"] != generation {
        return None;
    }
    Some((found["status"].as_str()?, found["reason"].as_str()?, found["message"].as_str()?))
}
