//! Single values, as flags hold them. An error goes behind the value: `"25" is not an address and port`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// RFC 1035 section 2.3.4, in its written form.
const LONGEST_NAME: usize = 253;

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address and port, as in 127.0.0.1:2525 or [::]:25".to_owned())
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    single
        .or_else(|_| text.parse())
        .map_err(|_| "is not a network, as in 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

pub(super) fn host_name(text: &str) -> Result<Arc<str>, String> {
    if is_host_name(text) {
        Ok(Arc::from(text))
    } else {
        Err("is not a host name, as in mx.example.net".to_owned())
    }
}

pub(crate) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= LONGEST_NAME && text.split('.').all(is_label)
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    text.parse::<torwart_api::Size>().map(torwart_api::Size::get).map_err(|error| error.to_string())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<torwart_api::Duration>().map(torwart_api::Duration::get).map_err(|error| error.to_string())
}

/// A part of a whole.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("is not a number from 0 to 1".to_owned()),
    }
}

/// Whether two listeners would want the same port of the same address. Port 0 takes a free one.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        // `[::]` takes IPv4 as well.
        (IpAddr::V6(v6), IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(v6)) => v6.is_unspecified(),
    };
    same_address && a.port() == b.port() && a.port() != 0
}
