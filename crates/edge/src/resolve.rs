//! Names of upstreams and of the verdict, by the system's resolver (search list, `/etc/hosts`).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use torwart_core::BoxFuture;

/// From a name to its addresses.
pub trait Resolve: Send + Sync + 'static {
    /// The error says what went wrong. No address at all may be an error or an empty answer.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;
}

/// What a name's answers are used for: whether they may be remembered for as long as their TTL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remember {
    Ttl,
    /// Each question goes out: whoever asks every few seconds wants news.
    Nothing,
}

/// Reads the resolver's configuration once. Without a usable one each question fails and says so.
pub(crate) struct SystemResolver {
    resolver: Result<TokioResolver, String>,
    limit: Duration,
}

// === impl SystemResolver ===

impl SystemResolver {
    /// `limit`: how long one question may take.
    pub(crate) fn new(remember: Remember, limit: Duration) -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            if remember == Remember::Nothing {
                builder.options_mut().cache_size = 0;
            }
            builder.build()
        });
        let resolver = resolver.map_err(|error| error.to_string());
        if let Err(error) = &resolver {
            tracing::warn!(%error, "no usable resolver configuration: hosts given by name cannot be reached");
        }
        Self { resolver, limit }
    }
}

impl Resolve for SystemResolver {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let resolver = self.resolver.as_ref().map_err(String::clone)?;
            let found = tokio::time::timeout(self.limit, resolver.lookup_ip(name))
                .await
                .map_err(|_| "no answer in time".to_owned())?
                .map_err(|error| error.to_string())?;
            let found: Vec<IpAddr> = found.iter().collect();
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

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemResolver").field("usable", &self.resolver.is_ok()).finish()
    }
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
