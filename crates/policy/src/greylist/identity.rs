//! Who the client is taken for: the second field of the triplet.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Greylisting;

/// One answer to "who is this client?". A client may have several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The domain whose SPF record passes for the client, and for few others.
    Spf(Box<str>),
    /// The registrable domain of a confirmed, non-generic PTR, within the client's network.
    ReverseDns(Box<str>, IpNet),
    /// The registrable domain of HELO: unproved, and good enough for the null sender only.
    Helo(Box<str>),
    /// The client's network.
    Network(IpNet),
}

/// Under which names a client is looked up and written, the best first.
///
/// `verified` is what DNS has shown of it; `helo` is asked for the null sender only, whose mail comes from
/// any server of the domain that it returns to.
pub fn identities(
    client: IpAddr,
    helo: Option<&str>,
    null_sender: bool,
    verified: &[Identity],
    greylisting: &Greylisting,
) -> Vec<Identity> {
    if null_sender && let Some(domain) = helo.and_then(registrable_domain) {
        return vec![Identity::Helo(domain)];
    }
    let network = Identity::Network(network(client, greylisting));
    if verified.is_empty() || null_sender || !greylisting.pool_identity {
        return vec![network];
    }
    let mut all = verified.to_vec();
    all.push(network);
    all
}

/// The network that a client's address counts for.
pub(crate) fn network(client: IpAddr, greylisting: &Greylisting) -> IpNet {
    let client = client.to_canonical();
    let (length, most) = match client {
        IpAddr::V4(_) => (greylisting.prefix_ipv4, 32),
        IpAddr::V6(_) => (greylisting.prefix_ipv6, 128),
    };
    let net = IpNet::new(client, length.min(most)).unwrap_or_else(|_| IpNet::from(client));
    net.trunc()
}

/// `mx1.example.co.uk` is `example.co.uk`. An address, a bare label and a public suffix are nobody.
fn registrable_domain(helo: &str) -> Option<Box<str>> {
    let name = helo.strip_suffix('.').unwrap_or(helo);
    if !name.contains('.') || name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return None;
    }
    psl::domain_str(&name.to_ascii_lowercase()).map(Into::into)
}

// === impl Identity ===

impl Identity {
    /// Whether DNS has shown that the client is who it says it is.
    pub fn is_verified(&self) -> bool {
        match self {
            Self::Spf(_) | Self::ReverseDns(..) => true,
            Self::Helo(_) | Self::Network(_) => false,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spf(domain) => write!(f, "spf:{domain}"),
            Self::ReverseDns(domain, net) => write!(f, "rdns:{domain}/{net}"),
            Self::Helo(domain) => write!(f, "helo:{domain}"),
            Self::Network(net) => write!(f, "network:{net}"),
        }
    }
}
