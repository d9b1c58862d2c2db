//! `MailDomain.spec.route`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::{Value, json};
use torwart_api::limits::{MAX_AUTHORITY, MAX_UPSTREAMS};
use torwart_api::yaml::CA_LABEL;
use torwart_api::{ClientIdentity, Protocol, ServiceRef, SoftBounce, TlsMode};
use torwart_core as core;

use super::domain::DomainContext;
use super::{Cause, Errors, FieldError, defaults};
use crate::domains::{ascii_name, is_below};
use crate::inputs::{ServiceKey, Tenancy};
use crate::snapshot::{Resolved, digest};

/// A route, and what its references led to.
pub(crate) struct CompiledRoute {
    pub(crate) route: core::Route,
    /// What its references lead to, for the snapshot.
    pub(crate) resolved: Resolved,
    /// References that lead nowhere by now.
    pub(crate) unresolved: Vec<FieldError>,
    /// False if one leads nowhere and never led anywhere.
    pub(crate) usable: bool,
}

/// The references of one object.
struct References<'r> {
    context: &'r DomainContext<'r>,
    namespace: &'r str,
    /// What they led to in the last snapshot.
    last: Option<&'r Resolved>,
    resolved: Resolved,
    unresolved: Vec<FieldError>,
    usable: bool,
}

/// A mail server, found.
struct Target {
    host: core::Host,
    port: u16,
    /// For a Service, its address.
    address: Option<IpAddr>,
}

pub(crate) fn compile(
    context: &DomainContext<'_>,
    namespace: &str,
    last: Option<&Resolved>,
    route: &torwart_api::Route,
    errors: &mut Errors,
) -> CompiledRoute {
    let mut references = References::new(context, namespace, last);
    let protocol = route.protocol.unwrap_or(Protocol::Smtp);
    errors.check_length("spec.route.upstreams", &route.upstreams, MAX_UPSTREAMS);
    if route.upstreams.is_empty() {
        errors.add("spec.route.upstreams", "is empty; name the mail server that this mail goes to");
    }
    let mut upstreams = Vec::with_capacity(route.upstreams.len());
    for (index, upstream) in route.upstreams.iter().enumerate() {
        let at = format!("spec.route.upstreams[{index}]");
        let weight = upstream.weight.unwrap_or(defaults::WEIGHT);
        if !(1..=defaults::MAX_WEIGHT).contains(&weight) {
            errors.add(
                format!("{at}.weight"),
                format!("is {weight}; it must be from 1 to {}", defaults::MAX_WEIGHT),
            );
        }
        let max_connections = upstream.max_connections.unwrap_or(defaults::MAX_CONNECTIONS);
        if !(1..=defaults::MOST_CONNECTIONS).contains(&max_connections) {
            errors.add(
                format!("{at}.maxConnections"),
                format!("is {max_connections}; it must be from 1 to {}", defaults::MOST_CONNECTIONS),
            );
        }
        let Some(Target { host, port, .. }) = find(&mut references, &at, upstream, protocol, errors) else {
            continue;
        };
        upstreams.push(core::Upstream {
            host,
            port,
            priority: upstream.priority.unwrap_or(defaults::PRIORITY),
            weight,
            max_connections,
        });
    }
    let tls = compile_tls(&mut references, route.tls.as_ref(), errors);
    let mut compiled = core::Route {
        digest: core::RouteDigest([0; 16]),
        protocol: match protocol {
            Protocol::Smtp => core::Protocol::Smtp,
            Protocol::Lmtp => core::Protocol::Lmtp,
        },
        upstreams,
        tls,
        client_identity: match route.client_identity.unwrap_or(ClientIdentity::None) {
            ClientIdentity::None => core::ClientIdentity::None,
            ClientIdentity::Xclient => core::ClientIdentity::Xclient,
            ClientIdentity::Xforward => core::ClientIdentity::Xforward,
            ClientIdentity::ProxyV2 => core::ClientIdentity::ProxyV2,
        },
        soft_bounce: match route.soft_bounce.unwrap_or(SoftBounce::UntilFirstDelivery) {
            SoftBounce::UntilFirstDelivery => core::SoftBounce::UntilFirstDelivery,
            SoftBounce::Always => core::SoftBounce::Always,
            SoftBounce::Never => core::SoftBounce::Never,
        },
    };
    compiled.digest = core::RouteDigest(digest(&canonical(&compiled)));
    let References { resolved, unresolved, usable, .. } = references;
    CompiledRoute { route: compiled, resolved, unresolved, usable }
}

/// Everything that makes one route another one. The order of upstreams of one priority is part of it.
fn canonical(route: &core::Route) -> Value {
    let core::Route { digest: _, protocol, upstreams, tls, client_identity, soft_bounce } = route;
    let upstreams: Vec<Value> = upstreams
        .iter()
        .map(|core::Upstream { host, port, priority, weight, max_connections }| {
            json!([host.to_string(), port, priority, weight, max_connections])
        })
        .collect();
    let core::UpstreamTls { mode, implicit, server_name, ca } = tls;
    json!({
        "protocol": format!("{protocol:?}"),
        "upstreams": upstreams,
        "tls": [format!("{mode:?}"), implicit, server_name.as_deref(), ca.as_deref()],
        "clientIdentity": format!("{client_identity:?}"),
        "softBounce": format!("{soft_bounce:?}"),
    })
}

fn find(
    references: &mut References<'_>,
    at: &str,
    upstream: &torwart_api::Upstream,
    protocol: Protocol,
    errors: &mut Errors,
) -> Option<Target> {
    let default_port = match protocol {
        Protocol::Smtp => defaults::SMTP_PORT,
        Protocol::Lmtp => defaults::LMTP_PORT,
    };
    let target = match (&upstream.host, &upstream.service) {
        (Some(_), Some(_)) => {
            errors.add(at, "has both host and service; give one of them");
            return None;
        }
        (None, None) => {
            errors.add(at, "names no mail server; give host");
            return None;
        }
        (Some(host), None) => Target {
            host: read_host(host).map_err(|message| errors.add(format!("{at}.host"), message)).ok()?,
            port: upstream.port.map_or(default_port, torwart_api::Port::get),
            address: None,
        },
        (None, Some(service)) => {
            if upstream.port.is_some() {
                errors.add(format!("{at}.port"), "goes with host; a service has its own port field");
            }
            references.resolve_service(at, service, protocol, errors)?
        }
    };
    let References { context, namespace, .. } = *references;
    let refusal = match (&target.host, target.address) {
        (core::Host::Address(ip), _) => refuse_address(context, *ip, target.port),
        (core::Host::Name(_), Some(ip)) => refuse_address(context, ip, target.port),
        (core::Host::Name(name), None) => refuse_name(context, name, target.port),
    };
    if let Some(message) = refusal {
        errors.add(format!("{at}.{}", if upstream.host.is_some() { "host" } else { "service" }), message);
    }
    // A Service of the object's own namespace may always be reached.
    if upstream.host.is_some()
        && let Some(message) =
            context.gateway.tenants.refuse_upstream(context.inputs, namespace, &target.host)
    {
        errors.push(FieldError {
            cause: Cause::UpstreamNotPermitted,
            ..FieldError::new(format!("{at}.host"), message)
        });
    }
    Some(target)
}

fn read_host(text: &str) -> Result<core::Host, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(core::Host::Address(ip.to_canonical()));
    }
    if text.starts_with('[') {
        return Err(format!("is {text:?}; write the address without brackets"));
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(format!("is {text:?}; write host: {name} and port: {port}"));
    }
    if text.parse::<ipnet::IpNet>().is_ok() {
        return Err(format!("is {text:?}, which is a network; name one host"));
    }
    match ascii_name(text) {
        Ok(name) => Ok(core::Host::Name(name.into())),
        Err(error) => Err(format!("is {text:?}; it {error}")),
    }
}

/// Addresses that no upstream can have, whoever asks.
fn refuse_address(context: &DomainContext<'_>, ip: IpAddr, port: u16) -> Option<String> {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local {
        return Some(format!("is {ip}, a link-local address: metadata services are there, no mail servers"));
    }
    if ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Some(format!("is {ip}, which is the address of no host"));
    }
    let ours = context.inputs.listeners.iter().any(|listener| {
        listener.port() == port
            && (listener.ip().to_canonical() == ip || (listener.ip().is_unspecified() && ip.is_loopback()))
    });
    ours.then(|| {
        format!("is {ip} with port {port}, where this gateway itself listens: mail would go in circles")
    })
}

/// RFC 6761 section 6.3: `localhost` and the names below it are the loopback address, whatever a resolver says.
fn refuse_name(context: &DomainContext<'_>, name: &str, port: u16) -> Option<String> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let local = name == "localhost" || is_below(name, "localhost");
    local.then(|| loopback.into_iter().find_map(|ip| refuse_address(context, ip, port))).flatten()
}

fn compile_tls(
    references: &mut References<'_>,
    tls: Option<&torwart_api::UpstreamTls>,
    errors: &mut Errors,
) -> core::UpstreamTls {
    let tls = tls.cloned().unwrap_or_default();
    let mode = tls.mode.unwrap_or(TlsMode::Opportunistic);
    let implicit = tls.implicit.unwrap_or(false);
    if implicit && mode == TlsMode::Disabled {
        errors.add(
            "spec.route.tls.implicit",
            "is true, but tls.mode is Disabled; set mode to Opportunistic or Required",
        );
    }
    let server_name = tls.server_name.as_deref().filter(|name| !name.is_empty()).and_then(|name| {
        let checked = ascii_name(name);
        checked
            .map_err(|error| errors.add("spec.route.tls.serverName", format!("is {name:?}; it {error}")))
            .ok()
    });
    let ca = tls.ca_ref.filter(|reference| !reference.name.is_empty());
    let ca = ca.and_then(|reference| references.resolve_authority(&reference.name));
    core::UpstreamTls {
        mode: match mode {
            TlsMode::Disabled => core::TlsMode::Disabled,
            TlsMode::Opportunistic => core::TlsMode::Opportunistic,
            TlsMode::Required => core::TlsMode::Required,
        },
        implicit,
        server_name: server_name.map(Into::into),
        ca,
    }
}

// === impl References ===

impl<'r> References<'r> {
    fn new(context: &'r DomainContext<'r>, namespace: &'r str, last: Option<&'r Resolved>) -> Self {
        Self { context, namespace, last, resolved: Resolved::default(), unresolved: Vec::new(), usable: true }
    }

    fn resolve_service(
        &mut self,
        at: &str,
        service: &ServiceRef,
        protocol: Protocol,
        errors: &mut Errors,
    ) -> Option<Target> {
        let inputs = self.context.inputs;
        let path = format!("{at}.service");
        if matches!(inputs.tenancy, Tenancy::Administrator) {
            let message =
                "needs the operator, which knows the Services of a cluster; in a file give host and port";
            errors.add(path, message);
            return None;
        }
        let port = service.port.as_ref().map(ToString::to_string).unwrap_or_default();
        let lmtp = protocol == Protocol::Lmtp;
        let short = match (port.as_str(), lmtp) {
            ("", true) => format!("{}/lmtp", service.name),
            ("", false) => format!("{}/smtp", service.name),
            (port, _) => format!("{}:{port}", service.name),
        };
        let key = ServiceKey { namespace: self.namespace.to_owned(), name: service.name.clone(), port, lmtp };
        let before = self.last.and_then(|last| last.services.get(&short));
        let found = match (inputs.resolutions.services.get(&key), inputs.resolutions.refused.get(&key)) {
            (Some(found), _) => Some(found),
            (None, Some(refusal)) => {
                // It leads somewhere, only not where it led before.
                self.miss(Cause::ServiceNotFound, path.clone(), refusal.clone(), false);
                None
            }
            (None, None) => {
                let port =
                    if key.port.is_empty() { String::new() } else { format!(" with a port {}", key.port) };
                let message = format!("there is no Service {}/{}{port}", self.namespace, service.name);
                self.miss(Cause::ServiceNotFound, path.clone(), message, before.is_some());
                before
            }
        }?;
        let host = read_host(&found.host).map_err(|message| errors.add(path, message)).ok()?;
        self.resolved.services.insert(short, found.clone());
        Some(Target { host, port: found.port, address: found.address })
    }

    fn resolve_authority(&mut self, name: &str) -> Option<Arc<str>> {
        let inputs = self.context.inputs;
        let path = "spec.route.tls.caRef";
        let key = format!("{}/{name}", self.namespace);
        let before = self.last.and_then(|last| last.authorities.get(name));
        let present = inputs.resolutions.authorities.get(&key);
        let pem: Arc<str> = match present {
            // What stands in one ConfigMap is published with each object that names it.
            Some(pem) if pem.len() > MAX_AUTHORITY => {
                let message = format!(
                    "the ca.crt of ConfigMap {key} has {} bytes; there can be {MAX_AUTHORITY}",
                    pem.len()
                );
                self.miss(Cause::AuthorityNotFound, path.to_owned(), message, before.is_some());
                before?.clone()
            }
            Some(pem) => match before.filter(|before| ***before == **pem) {
                Some(before) => before.clone(),
                None => pem.as_str().into(),
            },
            None => {
                let message = match inputs.tenancy {
                    Tenancy::Administrator => format!(
                        "there is no ConfigMap {key} with the label {CA_LABEL}: \"true\" and certificates under ca.crt \
                         in these files"
                    ),
                    Tenancy::Cluster { .. } | Tenancy::Published => {
                        format!("there is no ConfigMap {key} with a ca.crt in it")
                    }
                };
                self.miss(Cause::AuthorityNotFound, path.to_owned(), message, before.is_some());
                before?.clone()
            }
        };
        self.resolved.authorities.insert(name.to_owned(), pem.clone());
        Some(pem)
    }

    /// Notes a reference that leads nowhere. In a published snapshot all lead where they led.
    fn miss(&mut self, cause: Cause, path: String, message: String, holds_on: bool) {
        self.usable &= holds_on;
        if !(holds_on && matches!(self.context.inputs.tenancy, Tenancy::Published)) {
            self.unresolved.push(FieldError { path, message, cause });
        }
    }
}
