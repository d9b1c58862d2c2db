use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A TCP port, from 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// A port of a Kubernetes Service: its number or its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServicePort {
    Number(Port),
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no port; write a number from 1 to 65535")]
pub struct InvalidPort;

// === impl Port ===

impl Port {
    pub const fn new(port: u16) -> Option<Self> {
        match NonZeroU16::new(port) {
            Some(port) => Some(Self(port)),
            None => None,
        }
    }

    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        text.parse().map(Self).map_err(|_| InvalidPort)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.get())
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1 to 65535")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Port, E> {
                u16::try_from(number).ok().and_then(Port::new).ok_or_else(|| E::custom(InvalidPort))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Port, E> {
                Err(E::custom(InvalidPort))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

// === impl ServicePort ===

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(port) => fmt::Display::fmt(port, f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for ServicePort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(port) => port.serialize(serializer),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for ServicePort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl Visitor<'_> for NumberOrName {
            type Value = ServicePort;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1 to 65535 or the name of a port")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<ServicePort, E> {
                let port = u16::try_from(number).ok().and_then(Port::new);
                port.map(ServicePort::Number).ok_or_else(|| E::custom(InvalidPort))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<ServicePort, E> {
                Err(E::custom(InvalidPort))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<ServicePort, E> {
                Ok(ServicePort::Name(name.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrName)
    }
}
