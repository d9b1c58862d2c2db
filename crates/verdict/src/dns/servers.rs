//! Who is asked.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::public::public_resolver;

/// Recursive name servers, the first first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServers(Vec<SocketAddr>);

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// RFC 1035 section 4.2.
const DNS_PORT: u16 = 53;

// === impl NameServers ===

impl NameServers {
    /// `given`, or else the system's.
    ///
    /// # Errors
    /// If `/etc/resolv.conf` is of no use.
    pub fn choose(given: &[SocketAddr]) -> Result<Self, String> {
        if given.is_empty() { Self::of_the_system() } else { Ok(Self(given.to_vec())) }
    }

    /// Those of `/etc/resolv.conf`, without its search list.
    ///
    /// # Errors
    /// If it can't be read or names none.
    pub fn of_the_system() -> Result<Self, String> {
        let text = std::fs::read(RESOLV_CONF).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        Self::from_resolv_conf(&text).map_err(|error| format!("{RESOLV_CONF}: {error}"))
    }

    fn from_resolv_conf(text: &[u8]) -> Result<Self, String> {
        let (config, _) = parse_resolv_conf(text).map_err(|error| error.to_string())?;
        let mut servers: Vec<SocketAddr> = Vec::new();
        for server in &config.name_servers {
            let address = SocketAddr::new(server.ip, DNS_PORT);
            if !servers.contains(&address) {
                servers.push(address);
            }
        }
        if servers.is_empty() { Err("it names no name server".to_owned()) } else { Ok(Self(servers)) }
    }

    /// As a flag names one: an address, or an address with a port.
    ///
    /// # Errors
    /// If `text` is neither.
    pub fn parse_one(text: &str) -> Result<SocketAddr, String> {
        let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        text.parse()
            .or_else(|_| alone())
            .map_err(|_| "is no address of a server, as in 192.0.2.53 or 192.0.2.53:53".to_owned())
    }

    /// A line for each that anybody may use: what is wrong with asking it.
    pub fn public(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|server| {
            let ip = server.ip();
            let operator = public_resolver(ip)?;
            Some(format!(
                "{ip} is a resolver of {operator} that anybody may use: DNS lists refuse its questions; ask one of your own"
            ))
        })
    }

    pub(super) fn config(&self) -> ResolverConfig {
        let servers = self.0.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|connection| connection.port = address.port());
            server
        });
        ResolverConfig::from_parts(None, Vec::new(), servers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_servers_are_taken_without_its_search_list() {
        let text = b"search a.example b.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\noptions ndots:5\n";
        let servers = NameServers::from_resolv_conf(text).unwrap();
        assert_eq!(servers.0, ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        let config = servers.config();
        assert!(config.domain().is_none() && config.search().is_empty());
    }

    #[test]
    fn a_file_without_servers_is_of_no_use() {
        for text in ["", "search a.example\n", "# nameserver 192.0.2.1\n"] {
            assert!(NameServers::from_resolv_conf(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_that_lists_refuse_are_named() {
        let told = |servers: &[&str]| -> Vec<String> {
            let servers: Vec<_> = servers.iter().map(|text| NameServers::parse_one(text).unwrap()).collect();
            NameServers::choose(&servers).unwrap().public().collect()
        };
        assert!(told(&["192.0.2.53", "127.0.0.1"]).is_empty());
        let told = told(&["192.0.2.53", "8.8.8.8:5353", "2620:fe::fe"]);
        assert!(told.len() == 2 && told[0].contains("8.8.8.8 is a resolver of Google"), "{told:?}");
    }

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        for (text, wanted) in [
            ("192.0.2.53", Some("192.0.2.53:53")),
            ("192.0.2.53:5353", Some("192.0.2.53:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:5353", Some("[2001:db8::1]:5353")),
            ("dns.example", None),
            ("", None),
        ] {
            let read = NameServers::parse_one(text).ok().map(|address| address.to_string());
            assert_eq!(read.as_deref(), wanted, "{text}");
        }
    }
}
