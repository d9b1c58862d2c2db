//! Domain's value, else gateway's, else built-in: field by field.

use serde_json::{Map, Value};
use torwart_api::{Checks, GreylistPrefix, Greylisting, Limits, Scoring};

use crate::snapshot::to_value;

pub(crate) fn greylisting(own: Option<&Greylisting>, from: &Greylisting) -> Greylisting {
    let Some(own) = own else {
        return from.clone();
    };
    let Greylisting {
        mode,
        delay,
        retry_window,
        pass_ttl,
        auto_pass_after,
        prefix,
        identity,
        exempt_recipients,
        on_store_failure,
    } = own;
    let own_prefix = prefix.clone().unwrap_or_default();
    let from_prefix = from.prefix.clone().unwrap_or_default();
    Greylisting {
        mode: mode.or(from.mode),
        delay: delay.or(from.delay),
        retry_window: retry_window.or(from.retry_window),
        pass_ttl: pass_ttl.or(from.pass_ttl),
        auto_pass_after: auto_pass_after.or(from.auto_pass_after),
        prefix: Some(GreylistPrefix {
            ipv4: own_prefix.ipv4.or(from_prefix.ipv4),
            ipv6: own_prefix.ipv6.or(from_prefix.ipv6),
        }),
        identity: identity.or(from.identity),
        exempt_recipients: exempt_recipients.clone().or_else(|| from.exempt_recipients.clone()),
        on_store_failure: on_store_failure.or(from.on_store_failure),
    }
}

pub(crate) fn scoring(own: Option<&Scoring>, from: &Scoring) -> Scoring {
    let Scoring { tag_at, greylist_at, reject_at } = own.cloned().unwrap_or_default();
    Scoring {
        tag_at: tag_at.or(from.tag_at),
        greylist_at: greylist_at.or(from.greylist_at),
        reject_at: reject_at.or(from.reject_at),
    }
}

pub(crate) fn limits(own: Option<&Limits>, from: &Limits) -> Limits {
    let Limits { message_size, recipients, rate_per_network, rate_per_identity, unknown_recipients } =
        own.cloned().unwrap_or_default();
    Limits {
        message_size: message_size.or(from.message_size),
        recipients: recipients.or(from.recipients),
        rate_per_network: rate_per_network.or(from.rate_per_network),
        rate_per_identity: rate_per_identity.or(from.rate_per_identity),
        unknown_recipients: unknown_recipients.or(from.unknown_recipients),
    }
}

/// Works on the JSON form, so that a check added to the API is inherited without a line here.
pub(crate) fn checks(own: Option<&Checks>, from: &Checks) -> Checks {
    let Some(own) = own else {
        return from.clone();
    };
    // Both sides were written by the same types, and filling adds only what they wrote.
    serde_json::from_value(fill(to_value(own), to_value(from))).unwrap_or_else(|_| own.clone())
}

/// Fills what `value` leaves out; lists are replaced as a whole.
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
    use torwart_api::{Duration, SpfCheck};

    #[test]
    fn a_field_is_inherited_unless_it_is_given() {
        let own = Greylisting {
            delay: Some(Duration::from_secs(60)),
            prefix: Some(GreylistPrefix { ipv4: Some(32), ipv6: None }),
            exempt_recipients: Some(vec![]),
            ..Greylisting::default()
        };
        let merged = greylisting(Some(&own), &crate::compile::defaults::greylisting());
        assert_eq!(merged.delay, own.delay);
        assert_eq!(merged.prefix, Some(GreylistPrefix { ipv4: Some(32), ipv6: Some(64) }));
        assert_eq!(merged.exempt_recipients, Some(vec![]));
        assert_eq!(merged.retry_window, Some(Duration::from_secs(48 * 3600)));
    }

    #[test]
    fn a_check_is_inherited_field_by_field() {
        let own = Checks {
            spf: Some(SpfCheck { fail_score: Some(9.0), ..SpfCheck::default() }),
            ..Checks::default()
        };
        let built_in = crate::compile::defaults::checks();
        let merged = checks(Some(&own), &built_in);
        let spf = SpfCheck { fail_score: Some(9.0), ..built_in.spf.clone().unwrap() };
        assert_eq!(merged, Checks { spf: Some(spf), ..built_in });
    }
}
