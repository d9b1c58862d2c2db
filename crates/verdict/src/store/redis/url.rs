//! The forms of a Redis URL.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::options::Credentials;

/// Where the store is: one server, the primary that Sentinels know by a name, or a Cluster.
///
/// `redis://[user:password@]host[:6379][/database]`, `redis+sentinel://host[:26379][,host...]/name[/database]`,
/// `redis+cluster://host[:6379][,host...]`, and the same with `rediss` for TLS. A user name or a password that holds
/// other than letters and digits is percent-encoded. It is never shown again: neither by `Display` nor by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    tls: bool,
    credentials: Credentials,
    servers: Vec<Server>,
    shape: Shape,
    database: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Standalone,
    /// The primary's name for the Sentinels.
    Sentinel(Box<str>),
    Cluster,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Server {
    /// A name or an address, without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
}

/// What is wrong with the URL, and the right form. Repeats nothing that may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    #[error(
        "starts with no scheme that is known; write redis://, redis+sentinel:// or redis+cluster://, with rediss for TLS"
    )]
    Scheme,
    #[error("names no server; write {0}")]
    NoServer(&'static str),
    #[error("server {place}: {what}; write {form}")]
    Server { place: usize, what: &'static str, form: &'static str },
    #[error("names {0} servers; redis:// takes one, redis+sentinel:// and redis+cluster:// take a list")]
    SeveralServers(usize),
    #[error("the user name or the password holds a % that begins no percent-encoding; write %25 for %")]
    Encoding,
    #[error("the user name or the password is not UTF-8 when it is decoded")]
    NotText,
    #[error("nothing stands before the @; write user:password@ or :password@, or leave the @ out")]
    NoCredentials,
    #[error("lacks the primary's name for the Sentinels; write redis+sentinel://host/name")]
    NoName,
    #[error("the primary's name holds other than letters, digits, dots, hyphens and underscores")]
    Name,
    #[error("the database after the / is no number; write redis://host/0")]
    Database,
    #[error("a Cluster has one database only; write nothing after the servers")]
    ClusterDatabase,
    #[error("has more after the database, or a ? or #; options are flags here: --store-timeout and others")]
    Tail,
}

const STANDALONE: &str = "redis://host:6379/0";
const SENTINEL: &str = "redis+sentinel://host:26379,host:26379/name";
const CLUSTER: &str = "redis+cluster://host:6379,host:6379";

// === impl RedisUrl ===

impl RedisUrl {
    pub fn is_cluster(&self) -> bool {
        self.shape == Shape::Cluster
    }

    /// Whether the connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// At least one.
    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn database(&self) -> u32 {
        self.database
    }

    /// The same server's database of that number.
    pub fn with_database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    fn scheme(&self) -> &'static str {
        match (&self.shape, self.tls) {
            (Shape::Standalone, false) => "redis",
            (Shape::Standalone, true) => "rediss",
            (Shape::Sentinel(_), false) => "redis+sentinel",
            (Shape::Sentinel(_), true) => "rediss+sentinel",
            (Shape::Cluster, false) => "redis+cluster",
            (Shape::Cluster, true) => "rediss+cluster",
        }
    }
}

/// What the scheme says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standalone,
    Sentinel,
    Cluster,
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRedisUrl::Scheme)?;
        let (tls, kind) = match scheme {
            "redis" => (false, Kind::Standalone),
            "rediss" => (true, Kind::Standalone),
            "redis+sentinel" => (false, Kind::Sentinel),
            "rediss+sentinel" => (true, Kind::Sentinel),
            "redis+cluster" => (false, Kind::Cluster),
            "rediss+cluster" => (true, Kind::Cluster),
            _ => return Err(InvalidRedisUrl::Scheme),
        };
        // The last @: a password may hold one, no host or name does.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((user_info, rest)) => (Credentials::from_user_info(user_info)?, rest),
            None => (Credentials::default(), rest),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidRedisUrl::Tail);
        }
        let (servers, path) =
            rest.split_once('/').map_or((rest, None), |(servers, path)| (servers, Some(path)));
        let servers = parse_servers(servers, kind)?;
        if kind == Kind::Standalone && servers.len() > 1 {
            return Err(InvalidRedisUrl::SeveralServers(servers.len()));
        }
        let (shape, database) = parse_path(path, kind)?;
        Ok(Self { tls, credentials, servers, shape, database })
    }
}

fn parse_servers(text: &str, kind: Kind) -> Result<Vec<Server>, InvalidRedisUrl> {
    let (form, port) = match kind {
        Kind::Standalone => (STANDALONE, 6379),
        Kind::Sentinel => (SENTINEL, 26379),
        Kind::Cluster => (CLUSTER, 6379),
    };
    if text.is_empty() {
        return Err(InvalidRedisUrl::NoServer(form));
    }
    let servers = text.split(',').zip(1..).map(|(text, place)| {
        Server::parse(text, port).map_err(|what| InvalidRedisUrl::Server { place, what, form })
    });
    servers.collect()
}

fn parse_path(path: Option<&str>, kind: Kind) -> Result<(Shape, u32), InvalidRedisUrl> {
    let path = path.unwrap_or_default();
    match kind {
        Kind::Standalone => Ok((Shape::Standalone, parse_database(path)?)),
        Kind::Cluster if path.is_empty() => Ok((Shape::Cluster, 0)),
        Kind::Cluster => Err(InvalidRedisUrl::ClusterDatabase),
        Kind::Sentinel => {
            let (name, database) = path.split_once('/').unwrap_or((path, ""));
            if name.is_empty() {
                return Err(InvalidRedisUrl::NoName);
            }
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
                return Err(InvalidRedisUrl::Name);
            }
            Ok((Shape::Sentinel(name.into()), parse_database(database)?))
        }
    }
}

fn parse_database(text: &str) -> Result<u32, InvalidRedisUrl> {
    match text {
        "" => Ok(0),
        text if text.contains('/') => Err(InvalidRedisUrl::Tail),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| InvalidRedisUrl::Database)
        }
        _ => Err(InvalidRedisUrl::Database),
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        if self.credentials != Credentials::default() {
            f.write_str("***@")?;
        }
        for (place, server) in self.servers.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{server}")?;
        }
        if let Shape::Sentinel(name) = &self.shape {
            write!(f, "/{name}")?;
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

// === impl Credentials ===

impl Credentials {
    fn from_user_info(text: &str) -> Result<Self, InvalidRedisUrl> {
        if text.is_empty() || text == ":" {
            return Err(InvalidRedisUrl::NoCredentials);
        }
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (text, None),
        };
        let some = |text: &str| {
            let text = decode(text)?;
            Ok((!text.is_empty()).then_some(text))
        };
        Ok(Self { username: some(user)?, password: password.map_or(Ok(None), some)? })
    }
}

/// Percent-decoding (RFC 3986, 2.1).
fn decode(text: &str) -> Result<String, InvalidRedisUrl> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(InvalidRedisUrl::Encoding)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidRedisUrl::Encoding);
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| InvalidRedisUrl::Encoding)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| InvalidRedisUrl::NotText)
}

// === impl Server ===

impl Server {
    fn parse(text: &str, default_port: u16) -> Result<Self, &'static str> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("a [ without its ]")?;
                host.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address between [ and ]")?;
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err("more after the ] than a port"),
                }
            }
            None if text.matches(':').count() > 1 => return Err("an IPv6 address stands in [ and ]"),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err("there is no host");
        }
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
        if !is_name {
            return Err("the host holds other than letters, digits, dots and hyphens");
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err("the port is no number from 1 to 65535"),
            },
        };
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_written_again_without_its_password() {
        let table = [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://redis.mail.svc:7000/3", "redis://redis.mail.svc:7000/3"),
            ("rediss://[2001:db8::1]", "rediss://[2001:db8::1]:6379"),
            ("rediss://[::1]:7/", "rediss://[::1]:7"),
            ("redis://user:pass@10.0.0.1", "redis://***@10.0.0.1:6379"),
            ("redis://:pass@host/1", "redis://***@host:6379/1"),
            ("redis://user@host", "redis://***@host:6379"),
            ("redis+sentinel://a,b:7/mymaster", "redis+sentinel://a:26379,b:7/mymaster"),
            ("rediss+sentinel://:p@a/my_master-1.x/2", "rediss+sentinel://***@a:26379/my_master-1.x/2"),
            ("redis+cluster://a,b,[::1]:7", "redis+cluster://a:6379,b:6379,[::1]:7"),
            ("rediss+cluster://u:p@a/", "rediss+cluster://***@a:6379"),
        ];
        for (text, written) in table {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(format!("{url:?}"), format!("RedisUrl({written})"));
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        let table = [
            ("redis://a%40b:c%3a%25@h", Some("a@b"), Some("c:%")),
            ("redis://:p@ss/word?#@h", None, Some("p@ss/word?#")),
            ("redis://u:p:q@h", Some("u"), Some("p:q")),
            ("redis://u:@h", Some("u"), None),
            ("redis://u@h", Some("u"), None),
        ];
        for (text, username, password) in table {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.credentials().username.as_deref(), username, "{text}");
            assert_eq!(url.credentials().password.as_deref(), password, "{text}");
            assert_eq!(url.servers(), [Server { host: "h".into(), port: 6379 }], "{text}");
        }
    }

    #[test]
    fn every_mistake_is_said() {
        let table = [
            ("redis:host", "no scheme"),
            ("valkey://host", "no scheme"),
            ("redis+sentinels://host/x", "no scheme"),
            ("redis://", "names no server; write redis://host:6379/0"),
            ("redis:///1", "names no server"),
            ("redis+cluster://", "names no server; write redis+cluster://"),
            ("redis+sentinel:///name", "names no server; write redis+sentinel://"),
            ("redis+cluster://a,,b", "server 2: there is no host"),
            ("redis+cluster://a,b:x", "server 2: the port is no number from 1 to 65535"),
            ("redis://host:0", "server 1: the port"),
            ("redis://host:65536", "server 1: the port"),
            ("redis://host:", "server 1: the port"),
            ("redis://:6379", "server 1: there is no host"),
            ("redis://::1", "server 1: an IPv6 address stands in [ and ]"),
            ("redis://[::1", "server 1: a [ without its ]"),
            ("redis://[host]", "server 1: no IPv6 address"),
            ("redis://[::1]6379", "server 1: more after the ]"),
            ("redis://ho st", "server 1: the host holds other than"),
            ("redis://a,b", "names 2 servers"),
            ("redis://host/one", "the database after the / is no number"),
            ("redis://host/+1", "the database after the / is no number"),
            ("redis://host/99999999999", "the database after the / is no number"),
            ("redis://host/1/2", "has more after the database"),
            ("redis://host/1?timeout=1", "has more after the database"),
            ("redis://host#1", "has more after the database"),
            ("redis+sentinel://host", "lacks the primary's name"),
            ("redis+sentinel://host//1", "lacks the primary's name"),
            ("redis+sentinel://host/my master", "the primary's name holds other than"),
            ("redis+sentinel://host/m/x", "the database after the / is no number"),
            ("redis+cluster://host/1", "a Cluster has one database only"),
            ("redis://@host", "nothing stands before the @"),
            ("redis://:@host", "nothing stands before the @"),
            ("redis://:100%@host", "begins no percent-encoding"),
            ("redis://:%+1@host", "begins no percent-encoding"),
            ("redis://:%ff@host", "is not UTF-8"),
        ];
        for (text, what) in table {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_mistake_and_no_form_repeats_a_password(password in "[a-z%:/?#,]{12}", rest in "[a-z:/,?\\[\\]]{0,12}") {
            for scheme in ["redis", "rediss+sentinel", "redis+cluster"] {
                let said = match format!("{scheme}://u:{password}@{rest}").parse::<RedisUrl>() {
                    Ok(url) => format!("{url} {url:?}"),
                    Err(error) => format!("{error} {error:?}"),
                };
                prop_assert!(!said.contains(&password), "{said}");
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(redis)?s?(\\+sentinel|\\+cluster)?(://)?.{0,40}") {
            let _read_or_not = text.parse::<RedisUrl>();
        }

        #[test]
        fn every_password_survives_its_encoding(password in "\\PC{1,20}") {
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let url: RedisUrl = format!("redis://:{encoded}@h").parse().unwrap();
            prop_assert_eq!(url.credentials().password.as_deref(), Some(password.as_str()));
        }
    }
}
