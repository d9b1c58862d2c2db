//! The small languages as JSON schemas: what a pattern can say of them. The rest is said by reading them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Cidr, Duration, Port, Rate, ServicePort, Size, Time};

/// A schema without a name of its own: it is written where it is used.
macro_rules! text_schema {
    ($type:ty, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

text_schema!(
    Duration,
    "Duration",
    json_schema!({ "type": "string", "maxLength": 32, "x-kubernetes-validations": [{
        "rule": "self.matches('^([0-9]+(h|m|s|ms))+$')",
        "message": "must be numbers with a unit (h, m, s, ms; a day is 24h), such as 5m, 48h or 1h30m",
    }] })
);

text_schema!(
    Size,
    "Size",
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 0 : self.matches('^[0-9]+(Ki|Mi|Gi|k|K|M|G)?$')",
            "message": "must be a whole number of bytes, or one with Ki, Mi, Gi, k, M or G, such as 50Mi",
        }],
    })
);

text_schema!(
    Rate,
    "Rate",
    json_schema!({ "type": "string", "maxLength": 32, "x-kubernetes-validations": [{
        "rule": "self.matches('^([0-9]+/(h|m|s|([0-9]+(h|m|s|ms))+))?$')",
        "message": "must be a number, a slash and a time, such as 100/h or 30/10m (empty: no limit)",
    }] })
);

text_schema!(
    Cidr,
    "Cidr",
    json_schema!({ "type": "string", "maxLength": 49, "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$" })
);

text_schema!(Time, "Time", json_schema!({ "type": "string", "format": "date-time" }));

text_schema!(
    Port,
    "Port",
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 })
);

text_schema!(
    ServicePort,
    "ServicePort",
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 63,
    })
);
