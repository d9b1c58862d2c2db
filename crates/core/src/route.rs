//! Where accepted mail goes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// How a transaction reaches its mail server. Everything the edge needs to know of a MailDomain's `route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub digest: RouteDigest,
    pub protocol: Protocol,
    /// Never empty.
    pub upstreams: Vec<Upstream>,
    pub tls: UpstreamTls,
    pub client_identity: ClientIdentity,
    pub soft_bounce: SoftBounce,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub host: Host,
    pub port: u16,
    /// The lowest is tried first.
    pub priority: u32,
    /// The share among upstreams of one priority.
    pub weight: u32,
    /// Connections that one process may hold open to it.
    pub max_connections: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Resolved by the system's resolver, search list and all.
    Name(Arc<str>),
    Address(IpAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    pub mode: TlsMode,
    /// TLS from the first byte, without STARTTLS.
    pub implicit: bool,
    /// The name that the certificate must carry; `None` is the host's own.
    pub server_name: Option<Arc<str>>,
    /// PEM certificates that are trusted instead of the public ones.
    pub ca: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Smtp,
    Lmtp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    Disabled,
    /// Takes any certificate, falls back to clear text.
    Opportunistic,
    /// Chain and name are checked; otherwise 451 4.7.5.
    Required,
}

/// How the upstream learns who the client was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientIdentity {
    None,
    Xclient,
    Xforward,
    ProxyV2,
}

/// Which of the upstream's 5xx become 450.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoftBounce {
    UntilFirstDelivery,
    Always,
    Never,
}

/// The first half of the SHA-256 of a route's canonical form. Equal routes have equal digests in every process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteDigest(pub [u8; 16]);

/// The first half of the SHA-256 of a delivery class's canonical form: route and message-stage policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassDigest(pub [u8; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDigest;

// === impl Host ===

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Address(IpAddr::V4(ip)) => write!(f, "{ip}"),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

// === impl RouteDigest, ClassDigest ===

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for RouteDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for RouteDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for ClassDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for ClassDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for RouteDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        if text.len() != 32 || !text.is_ascii() {
            return Err(InvalidDigest);
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| InvalidDigest)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is 32 hexadecimal digits")
    }
}

impl std::error::Error for InvalidDigest {}
