//! `--verdict`: where the verdict is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use torwart_core::Host;

/// One `--verdict`: `http://host:port`, `https://host:port` or `dns://name:port`. All addresses of a name are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictUrl {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS; the client's certificate files must be given.
    Https,
    /// TLS if there are certificate files, else clear text.
    Dns,
}

/// All mistakes of one URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidVerdictUrl {
    url: String,
    mistakes: Vec<String>,
}

/// RFC 1035 section 2.3.4.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

// === impl VerdictUrl ===

impl VerdictUrl {
    /// Whether its channels are encrypted.
    pub fn is_encrypted(&self, has_tls_files: bool) -> bool {
        match self.scheme {
            Scheme::Http => false,
            Scheme::Https => true,
            Scheme::Dns => has_tls_files,
        }
    }
}

impl FromStr for VerdictUrl {
    type Err = InvalidVerdictUrl;

    fn from_str(url: &str) -> Result<Self, InvalidVerdictUrl> {
        let mut mistakes = Vec::new();
        if may_hold_a_secret(url) {
            mistakes.push(
                "it is a scheme, a host and a port and nothing else, as in dns://torwart-verdict:9901: no user, \
                 password, path or query (--verdict-cert and --verdict-key say who the edge is)"
                    .to_owned(),
            );
            return Err(InvalidVerdictUrl { url: "...".to_owned(), mistakes });
        }
        let (scheme, rest) = match url.split_once("://") {
            Some((word, rest)) => (scheme(word, &mut mistakes), rest),
            None => {
                mistakes.push("it begins with http://, https:// or dns://".to_owned());
                (None, url)
            }
        };
        let authority = authority(rest, scheme, &mut mistakes);
        let (host, port) = host_and_port(authority, &mut mistakes);
        match (scheme, host, port) {
            (Some(scheme), Some(host), Some(port)) if mistakes.is_empty() => Ok(Self { scheme, host, port }),
            _ => Err(InvalidVerdictUrl { url: url.to_owned(), mistakes }),
        }
    }
}

impl fmt::Display for VerdictUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

fn scheme(word: &str, mistakes: &mut Vec<String>) -> Option<Scheme> {
    let found = Scheme::ALL.into_iter().find(|scheme| word.eq_ignore_ascii_case(scheme.as_str()));
    if found.is_none() {
        mistakes.push(format!("{word:?} is none of http, https, dns"));
    }
    found
}

/// What stands before a path, of which there may be none but `/`: see [`may_hold_a_secret`].
fn authority<'a>(rest: &'a str, scheme: Option<Scheme>, mistakes: &mut Vec<String>) -> &'a str {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if scheme == Some(Scheme::Dns) && authority.is_empty() && !path.is_empty() {
        mistakes.push("no DNS server can be named: write dns://name:port".to_owned());
    } else if !path.is_empty() {
        mistakes.push(format!("nothing may follow the port, but \"/{path}\" does"));
    }
    authority
}

fn host_and_port(authority: &str, mistakes: &mut Vec<String>) -> (Option<Host>, Option<u16>) {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, after)) => (ipv6(address, mistakes), after.strip_prefix(':')),
            None => {
                mistakes.push("the IPv6 address has no closing bracket".to_owned());
                return (None, None);
            }
        },
        None => match authority.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                mistakes.push("an IPv6 address stands in brackets, as in http://[::1]:9901".to_owned());
                return (None, None);
            }
            Some((host, port)) => (name_or_ipv4(host, mistakes), Some(port)),
            None => (name_or_ipv4(authority, mistakes), None),
        },
    };
    let port = match port.unwrap_or_default() {
        "" => {
            mistakes.push("it has no port, as in dns://torwart-verdict:9901".to_owned());
            None
        }
        digits => {
            let number = digits.parse::<u16>().ok().filter(|port| *port > 0 && !digits.starts_with('+'));
            if number.is_none() {
                mistakes.push(format!("the port {digits:?} is not a number from 1 to 65535"));
            }
            number
        }
    };
    (host, port)
}

fn ipv6(address: &str, mistakes: &mut Vec<String>) -> Option<Host> {
    match address.parse() {
        Ok(ip) => Some(Host::Address(IpAddr::V6(ip))),
        Err(_) => {
            mistakes.push(format!("{address:?} is not an IPv6 address"));
            None
        }
    }
}

fn name_or_ipv4(host: &str, mistakes: &mut Vec<String>) -> Option<Host> {
    if host.is_empty() {
        mistakes.push("it has no host".to_owned());
        return None;
    }
    if let Ok(ip) = host.parse() {
        return Some(Host::Address(IpAddr::V4(ip)));
    }
    let relative = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // the last label of a name is never a number: what looks like an address and is none is a slip
    let is_number =
        relative.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if relative.len() > LONGEST_NAME || is_number || !relative.split('.').all(is_label) {
        mistakes.push(format!("{host:?} is neither a host name nor an IP address"));
        return None;
    }
    Some(Host::Name(Arc::from(host)))
}

/// Whether it has what surrounds a password or a token, however mistyped: then none of it is shown.
fn may_hold_a_secret(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.strip_suffix('/').unwrap_or(rest);
    // `dns:///name` names a DNS server in other programs, and holds nothing
    let path = path.strip_prefix('/').unwrap_or(path);
    path.contains(['@', '?', '#', '%', '/'])
}

// === impl Scheme ===

impl Scheme {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Dns];

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Dns => "dns",
        }
    }
}

// === impl InvalidVerdictUrl ===

impl fmt::Display for InvalidVerdictUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.url, self.mistakes.join("; "))
    }
}

impl std::error::Error for InvalidVerdictUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_are_read_and_shown() {
        let table = [
            ("http://127.0.0.1:9901", Scheme::Http, "http://127.0.0.1:9901"),
            ("https://verdict.example.:443/", Scheme::Https, "https://verdict.example.:443"),
            ("DNS://torwart-verdict:9901", Scheme::Dns, "dns://torwart-verdict:9901"),
            ("http://[2001:db8::1]:1", Scheme::Http, "http://[2001:db8::1]:1"),
            (
                "dns://_grpc.verdict.torwart-system.svc:65535",
                Scheme::Dns,
                "dns://_grpc.verdict.torwart-system.svc:65535",
            ),
        ];
        for (text, scheme, shown) in table {
            let url: VerdictUrl = text.parse().unwrap();
            assert_eq!((url.scheme, url.to_string()), (scheme, shown.to_owned()));
        }
    }

    #[test]
    fn each_mistake_is_said() {
        let table: [(&str, &[&str]); 13] = [
            ("torwart-verdict:9901", &["begins with http://, https:// or dns://"]),
            ("grpc://a:1", &["\"grpc\" is none of http, https, dns"]),
            ("http://a", &["no port"]),
            ("http://a:", &["no port"]),
            ("http://:9901", &["no host"]),
            ("http://a:0", &["not a number from 1 to 65535"]),
            ("http://a:+1", &["not a number from 1 to 65535"]),
            ("http://::1:9901", &["stands in brackets"]),
            ("http://[::1:9901", &["no closing bracket"]),
            ("http://[127.0.0.1]:9901", &["not an IPv6 address"]),
            ("dns:///verdict:9901", &["no DNS server can be named", "no host", "no port"]),
            ("http://10.0.0.256:1", &["neither a host name nor an IP address"]),
            ("ftp://-a-:70000", &["ftp", "\"-a-\"", "70000"]),
        ];
        for (text, said) in table {
            let error = text.parse::<VerdictUrl>().unwrap_err().to_string();
            for part in said {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn nothing_is_shown_of_what_may_hold_a_password() {
        for text in [
            "http://user:gehe/im2@verdict:9901",
            "http://user:geheim#x@verdict:9901",
            "http://user:gehe?im2@verdict:9901",
            "user:geheim@verdict:9901",
            "https://verdict:9901/?token=geheim",
            "https://verdict:9901/geheim",
            "dns://user:geheim%40verdict:9901",
        ] {
            let error = text.parse::<VerdictUrl>().unwrap_err().to_string();
            assert!(!error.contains("geh") && !error.contains("im2") && !error.contains("user:"), "{error}");
            assert!(error.contains("a scheme, a host and a port and nothing else"), "{error}");
        }
    }

    #[test]
    fn the_scheme_says_whether_the_channel_is_encrypted() {
        for (text, without_files, with_files) in
            [("http://a:1", false, false), ("https://a:1", true, true), ("dns://a:1", false, true)]
        {
            let url: VerdictUrl = text.parse().unwrap();
            assert_eq!((url.is_encrypted(false), url.is_encrypted(true)), (without_files, with_files));
        }
    }
}
