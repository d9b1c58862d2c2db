//! Names of upstreams and of the verdict: as the system understands them, less the addresses that are nobody's.

use std::net::IpAddr;
use std::time::Duration;

use torwart_core::BoxFuture;
pub(crate) use torwart_proto::names::Remember;
pub use torwart_proto::names::Resolve;
use torwart_proto::names::SystemNames;

/// The system's names, as [`SystemNames`] reads them.
#[derive(Debug)]
pub(crate) struct SystemResolver {
    names: SystemNames,
}

// === impl SystemResolver ===

impl SystemResolver {
    /// `limit`: how long one question may take.
    pub(crate) fn new(remember: Remember, limit: Duration) -> Self {
        Self { names: SystemNames::new(remember, limit) }
    }
}

impl Resolve for SystemResolver {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let found = self.names.addresses(name).await?;
            let usable: Vec<IpAddr> = found.iter().copied().filter(is_a_host).collect();
            match found.first() {
                Some(first) if usable.is_empty() => {
                    Err(format!("leads to {first}, which is no host's address"))
                }
                _ => Ok(usable),
            }
        })
    }
}

/// Whatever a name says: metadata services, not mail servers, have link-local addresses, and nobody has these others.
fn is_a_host(ip: &IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_the_addresses_of_nobody_are_no_hosts() {
        for (ip, wanted) in [
            ("192.0.2.1", true),
            ("127.0.0.1", true),
            ("2001:db8::1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(is_a_host(&ip.parse().unwrap()), wanted, "{ip}");
        }
    }
}
