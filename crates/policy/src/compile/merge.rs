//! Domain's value, else gateway's, else built-in: field by field.

use serde_json::{Map, Value};

use crate::snapshot::to_value;

/// Fills what `value` leaves out from `from`; mappings are filled field by field, lists are replaced as a whole.
///
/// It works on the JSON form, so that a field added to the API is inherited without a line here.
pub(crate) fn inherit<T>(value: Option<&T>, from: &T) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned + Clone,
{
    let Some(value) = value else {
        return from.clone();
    };
    let merged = fill(to_value(value), to_value(from));
    // Both sides were written by T, and filling adds only what T wrote.
    serde_json::from_value(merged).unwrap_or_else(|_| value.clone())
}

fn fill(value: Value, from: Value) -> Value {
    match (value, from) {
        (Value::Object(value), Value::Object(from)) => Value::Object(fill_map(value, from)),
        (Value::Null, from) => from,
        (value, _) => value,
    }
}

fn fill_map(mut value: Map<String, Value>, from: Map<String, Value>) -> Map<String, Value> {
    for (key, inherited) in from {
        let filled = match value.remove(&key) {
            Some(own) => fill(own, inherited),
            None => inherited,
        };
        value.insert(key, filled);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use torwart_api::{Duration, GreylistPrefix, Greylisting};

    #[test]
    fn a_field_is_inherited_unless_it_is_given() {
        let own = Greylisting {
            delay: Some(Duration::from_secs(60)),
            prefix: Some(GreylistPrefix { ipv4: Some(32), ipv6: None }),
            exempt_recipients: Some(vec![]),
            ..Greylisting::default()
        };
        let merged = inherit(Some(&own), &crate::compile::defaults::greylisting());
        assert_eq!(merged.delay, own.delay);
        assert_eq!(merged.prefix, Some(GreylistPrefix { ipv4: Some(32), ipv6: Some(64) }));
        assert_eq!(merged.exempt_recipients, Some(vec![]));
        assert_eq!(merged.retry_window, Some(Duration::from_secs(48 * 3600)));
    }
}
