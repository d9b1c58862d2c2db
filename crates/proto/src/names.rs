//! From a host's name to its addresses, for every connection that this process opens.
//!
//! The C library's `getaddrinfo` is not asked: it blocks a thread for as long as it likes, and in a statically linked
//! binary it is only there as long as no module of the machine is needed. The rules are the same: numbers are
//! addresses, then `/etc/hosts`, then DNS by `/etc/resolv.conf` with its search list, `ndots`, time limits and tries.
//! `/etc/nsswitch.conf` is not read. Both files are read once, when a [`SystemNames`] is made.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver, config::ResolveHosts};
use torwart_core::BoxFuture;

/// From a name to its addresses.
pub trait Resolve: Send + Sync + 'static {
    /// The error says what went wrong. No address at all may be an error or an empty answer.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;
}

/// What a name's answers are used for: whether they may be remembered for as long as their TTL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    Ttl,
    /// Each question goes out: whoever asks every few seconds, or because a connection broke, wants news.
    Nothing,
}

/// Names as this machine, or this pod, understands them. Without a usable `/etc/resolv.conf` the names that need DNS
/// fail and say so; `/etc/hosts`, `localhost` and numbers go on working.
pub struct SystemNames {
    hosts: Hosts,
    resolver: Result<TokioResolver, String>,
    limit: Duration,
}

/// What the machine says of itself; an error is for people.
struct Files {
    hosts: Result<Vec<u8>, String>,
    resolv_conf: Result<Vec<u8>, String>,
    /// Where the name servers listen.
    port: u16,
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// RFC 1035, section 4.2. `resolv.conf` can name no other.
const DNS_PORT: u16 = 53;
/// As the C library: more dots are never waited for.
const MOST_NDOTS: usize = 15;

// === impl SystemNames ===

impl SystemNames {
    /// `limit`: how long one name may take, its whole search list included.
    pub fn new(remember: Remember, limit: Duration) -> Self {
        let read = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
        // An image of one file has no /etc/hosts of its own, and needs none.
        let hosts = if std::fs::exists(HOSTS).unwrap_or(true) { read(HOSTS) } else { Ok(Vec::new()) };
        Self::from_files(Files { hosts, resolv_conf: read(RESOLV_CONF), port: DNS_PORT }, remember, limit)
    }

    fn from_files(files: Files, remember: Remember, limit: Duration) -> Self {
        let mut hosts = Hosts::default();
        let read = files.hosts.and_then(|text| {
            hosts.read_hosts_conf(text.as_slice()).map_err(|error| format!("{HOSTS}: {error}"))
        });
        if let Err(error) = read {
            tracing::warn!(%error, "names in /etc/hosts are not known");
        }
        let resolver = files.resolv_conf.and_then(|text| {
            resolver(&text, files.port, remember).map_err(|error| format!("{RESOLV_CONF}: {error}"))
        });
        if let Err(error) = &resolver {
            tracing::warn!(%error, "no usable resolver configuration: hosts given by name cannot be reached");
        }
        Self { hosts, resolver, limit }
    }

    /// As [`Resolve::addresses`], never empty, and with the port: what a `TcpStream` connects to.
    ///
    /// # Errors
    /// Names `host`, and says what went wrong.
    pub async fn sockets(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let found = self.addresses(host).await;
        let found = match found {
            Ok(found) if found.is_empty() => Err("no address".to_owned()),
            found => found,
        };
        let found = found.map_err(|why| std::io::Error::other(format!("{host}: {why}")))?;
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Without asking anybody. Who stands in the file is not looked for in DNS, not even for the other kind of
    /// address.
    fn known(&self, name: &str) -> Option<Vec<IpAddr>> {
        let parsed = Name::from_utf8(name).ok()?;
        let mut found = Vec::new();
        for kind in [RecordType::AAAA, RecordType::A] {
            let records = self.hosts.lookup_static_host(&Query::query(parsed.clone(), kind));
            found.extend(
                records.iter().flat_map(|lookup| lookup.answers()).filter_map(|it| it.data.ip_addr()),
            );
        }
        if found.is_empty() && parsed.is_localhost() {
            // RFC 6761, section 6.3.
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        (!found.is_empty()).then_some(found)
    }
}

impl Resolve for SystemNames {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            // With ndots above 3 the resolver would ask for 192.0.2.1.example.org first.
            if let Ok(ip) = name.parse() {
                return Ok(vec![ip]);
            }
            if let Some(known) = self.known(name) {
                return Ok(known);
            }
            let resolver = self.resolver.as_ref().map_err(String::clone)?;
            let found = tokio::time::timeout(self.limit, resolver.lookup_ip(name))
                .await
                .map_err(|_| "no answer in time".to_owned())?
                .map_err(|error| error.to_string())?;
            Ok(found.iter().collect())
        })
    }
}

impl fmt::Debug for SystemNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemNames").field("usable", &self.resolver.is_ok()).finish_non_exhaustive()
    }
}

fn resolver(resolv_conf: &[u8], port: u16, remember: Remember) -> Result<TokioResolver, NetError> {
    let (mut config, mut options) = parse_resolv_conf(resolv_conf)?;
    // The domain of the machine's own name is searched only if the file names nothing (resolv.conf(5)).
    if !config.search.is_empty() {
        config.domain = None;
    }
    for connection in config.name_servers.iter_mut().flat_map(|server| &mut server.connections) {
        connection.port = port;
    }
    options.ndots = options.ndots.min(MOST_NDOTS);
    // We look there ourselves, before the search list is gone through.
    options.use_hosts_file = ResolveHosts::Never;
    if remember == Remember::Nothing {
        options.cache_size = 0;
    }
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}
