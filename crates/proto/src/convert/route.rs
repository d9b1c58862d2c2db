//! Where accepted mail goes.

use std::net::IpAddr;

use torwart_core as core;

use super::Malformed;
use crate::v1;

/// Octets of a name in text form (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;

impl From<&core::Route> for v1::Route {
    fn from(route: &core::Route) -> Self {
        let core::Route { digest, protocol, upstreams, tls, client_identity, soft_bounce } = route;
        let protocol = match protocol {
            core::Protocol::Smtp => v1::Protocol::Smtp,
            core::Protocol::Lmtp => v1::Protocol::Lmtp,
        };
        let client_identity = match client_identity {
            core::ClientIdentity::None => v1::ClientIdentity::None,
            core::ClientIdentity::Xclient => v1::ClientIdentity::Xclient,
            core::ClientIdentity::Xforward => v1::ClientIdentity::Xforward,
            core::ClientIdentity::ProxyV2 => v1::ClientIdentity::ProxyV2,
        };
        let soft_bounce = match soft_bounce {
            core::SoftBounce::UntilFirstDelivery => v1::SoftBounce::UntilFirstDelivery,
            core::SoftBounce::Always => v1::SoftBounce::Always,
            core::SoftBounce::Never => v1::SoftBounce::Never,
        };
        Self {
            digest: digest.0.to_vec(),
            protocol: protocol.into(),
            upstreams: upstreams.iter().map(upstream).collect(),
            tls: Some(tls_of(tls)),
            client_identity: client_identity.into(),
            soft_bounce: soft_bounce.into(),
        }
    }
}

impl TryFrom<v1::Route> for core::Route {
    type Error = Malformed;

    fn try_from(route: v1::Route) -> Result<Self, Malformed> {
        let v1::Route { digest, protocol, upstreams, tls, client_identity, soft_bounce } = route;
        let protocol = match v1::Protocol::try_from(protocol) {
            Ok(v1::Protocol::Smtp) => core::Protocol::Smtp,
            Ok(v1::Protocol::Lmtp) => core::Protocol::Lmtp,
            Ok(v1::Protocol::Unspecified) | Err(_) => return Err(unknown("protocol")),
        };
        let client_identity = match v1::ClientIdentity::try_from(client_identity) {
            Ok(v1::ClientIdentity::None) => core::ClientIdentity::None,
            Ok(v1::ClientIdentity::Xclient) => core::ClientIdentity::Xclient,
            Ok(v1::ClientIdentity::Xforward) => core::ClientIdentity::Xforward,
            Ok(v1::ClientIdentity::ProxyV2) => core::ClientIdentity::ProxyV2,
            Ok(v1::ClientIdentity::Unspecified) | Err(_) => return Err(unknown("client_identity")),
        };
        let soft_bounce = match v1::SoftBounce::try_from(soft_bounce) {
            Ok(v1::SoftBounce::UntilFirstDelivery) => core::SoftBounce::UntilFirstDelivery,
            Ok(v1::SoftBounce::Never) => core::SoftBounce::Never,
            // Nobody's mail bounces because of what this build does not know.
            Ok(v1::SoftBounce::Always | v1::SoftBounce::Unspecified) | Err(_) => core::SoftBounce::Always,
        };
        if upstreams.is_empty() {
            return Err(Malformed::new("upstreams", "there is none"));
        }
        Ok(Self {
            digest: to_digest(&digest, "digest")?,
            protocol,
            upstreams: upstreams.into_iter().map(to_upstream).collect::<Result<_, _>>()?,
            tls: to_tls(tls.ok_or(Malformed::new("tls", "it is missing"))?)?,
            client_identity,
            soft_bounce,
        })
    }
}

pub(super) fn to_digest(bytes: &[u8], field: &'static str) -> Result<core::RouteDigest, Malformed> {
    to_16(bytes, field).map(core::RouteDigest)
}

pub(super) fn to_class(bytes: &[u8], field: &'static str) -> Result<core::ClassDigest, Malformed> {
    to_16(bytes, field).map(core::ClassDigest)
}

fn to_16(bytes: &[u8], field: &'static str) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed::new(field, "a digest has 16 bytes"))
}

fn unknown(field: &'static str) -> Malformed {
    Malformed::new(field, "this build does not know the value")
}

fn upstream(upstream: &core::Upstream) -> v1::Upstream {
    let core::Upstream { host, port, priority, weight, max_connections } = upstream;
    v1::Upstream {
        host: match host {
            core::Host::Name(name) => name.as_ref().to_owned(),
            core::Host::Address(ip) => ip.to_string(),
        },
        port: (*port).into(),
        priority: *priority,
        weight: *weight,
        max_connections: *max_connections,
    }
}

fn to_upstream(upstream: v1::Upstream) -> Result<core::Upstream, Malformed> {
    let v1::Upstream { host, port, priority, weight, max_connections } = upstream;
    let host = match host.parse::<IpAddr>() {
        Ok(ip) => core::Host::Address(ip),
        Err(_) if is_name(&host) => core::Host::Name(host.into()),
        Err(_) => return Err(Malformed::new("upstreams.host", "it is neither a name nor an address")),
    };
    let port = u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or(Malformed::new("upstreams.port", "it is not from 1 to 65535"))?;
    if weight == 0 {
        return Err(Malformed::new("upstreams.weight", "it is 0"));
    }
    if max_connections == 0 {
        return Err(Malformed::new("upstreams.max_connections", "it is 0"));
    }
    Ok(core::Upstream { host, port, priority, weight, max_connections })
}

fn tls_of(tls: &core::UpstreamTls) -> v1::UpstreamTls {
    let core::UpstreamTls { mode, implicit, server_name, ca } = tls;
    let mode = match mode {
        core::TlsMode::Disabled => v1::TlsMode::Disabled,
        core::TlsMode::Opportunistic => v1::TlsMode::Opportunistic,
        core::TlsMode::Required => v1::TlsMode::Required,
    };
    v1::UpstreamTls {
        mode: mode.into(),
        implicit: *implicit,
        server_name: super::parts::text(server_name.as_ref()),
        ca_pem: super::parts::text(ca.as_ref()),
    }
}

fn to_tls(tls: v1::UpstreamTls) -> Result<core::UpstreamTls, Malformed> {
    let v1::UpstreamTls { mode, implicit, server_name, ca_pem } = tls;
    let mode = match v1::TlsMode::try_from(mode) {
        Ok(v1::TlsMode::Disabled) => core::TlsMode::Disabled,
        Ok(v1::TlsMode::Opportunistic) => core::TlsMode::Opportunistic,
        Ok(v1::TlsMode::Required) => core::TlsMode::Required,
        Ok(v1::TlsMode::Unspecified) | Err(_) => return Err(unknown("tls.mode")),
    };
    if server_name.as_ref().is_some_and(|name| !is_name(name)) {
        return Err(Malformed::new("tls.server_name", "it is no name"));
    }
    Ok(core::UpstreamTls {
        mode,
        implicit,
        server_name: server_name.map(Into::into),
        ca: ca_pem.map(Into::into),
    })
}

/// Enough for what is looked up and written to logs; the resolver has its own word.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(|c| c.is_ascii_graphic())
}
