use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network (`192.0.2.0/24`, `2001:db8::/32`) or a single address (`192.0.2.1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCidr {
    #[error("is no network; write it as 192.0.2.0/24 or 2001:db8::/32, or a single address")]
    Form,
    #[error("has a prefix length that is no number from 0 to {0}")]
    Length(u8),
    #[error("has bits set behind its prefix; the network is {0}")]
    HostBits(IpNet),
}

// === impl Cidr ===

impl Cidr {
    pub const fn get(self) -> IpNet {
        self.0
    }
}

impl From<IpNet> for Cidr {
    /// Bits behind the prefix are cut off.
    fn from(net: IpNet) -> Self {
        Self(net.trunc())
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidCidr::Form)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(InvalidCidr::Length(longest));
            }
            Some(digits) => digits.parse().map_err(|_| InvalidCidr::Length(longest))?,
        };
        let net = IpNet::new(address, length).map_err(|_| InvalidCidr::Length(longest))?;
        if net.trunc() != net {
            return Err(InvalidCidr::HostBits(net.trunc()));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::deserialize_text(deserializer)
    }
}
