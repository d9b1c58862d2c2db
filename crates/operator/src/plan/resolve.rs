//! What the references of routes lead to.

use std::collections::BTreeMap;

use torwart_api::{MailDomain, Manifest, Protocol, ServicePort, ServiceRef};
use torwart_policy::inputs::{Resolutions, ServiceKey, ServiceTarget};

use crate::names::CA_LABEL;
use crate::values::{Cluster, Form, Seen, SeenPort, SeenService, ServiceKind};

/// Where a ConfigMap with authorities is named.
const CA_PATH: &str = "spec.route.tls.caRef";

/// Why a Service is of no use, for people.
enum Unresolved {
    /// It is not there, or not as it is wanted; what it was before holds on.
    Missing(String),
    /// It may not be used.
    Refused(String),
}

/// Everything that an object of the cluster, in its present form, refers to and that is there. `last` may refer to more.
pub(super) fn resolve<'m>(cluster: &'m Cluster, more: impl Iterator<Item = &'m MailDomain>) -> Resolutions {
    let is_external = |service: &SeenService| service.kind == ServiceKind::ExternalName;
    let external = cluster.services.iter().filter(|(_, service)| is_external(service));
    let mut resolutions =
        Resolutions { external: external.map(|(name, _)| name.clone()).collect(), ..Resolutions::default() };
    let present = cluster.objects.values().filter_map(|seen| manifest(seen));
    for domain in present.chain(more) {
        let namespace = namespace(domain);
        for service in domain.spec.route.upstreams.iter().filter_map(|upstream| upstream.service.as_ref()) {
            let key = key(namespace, service, protocol(domain));
            match find_service(cluster, namespace, service, protocol(domain)) {
                Ok(target) => {
                    resolutions.services.insert(key, target);
                }
                Err(Unresolved::Refused(message)) => {
                    resolutions.refused.insert(key, message);
                }
                Err(Unresolved::Missing(_)) => {}
            }
        }
        if let Some(name) = authority(domain)
            && let Some(pem) = cluster.authorities.get(&(namespace.to_owned(), name.to_owned()))
        {
            resolutions.authorities.insert(format!("{namespace}/{name}"), pem.clone());
        }
    }
    resolutions
}

/// Why references of an object lead nowhere, by the field that names them.
pub(super) fn explain(cluster: &Cluster, seen: &Seen) -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    let Some(domain) = manifest(seen) else {
        return reasons;
    };
    let namespace = namespace(domain);
    for (index, upstream) in domain.spec.route.upstreams.iter().enumerate() {
        let Some(service) = &upstream.service else { continue };
        if let Err(Unresolved::Missing(message) | Unresolved::Refused(message)) =
            find_service(cluster, namespace, service, protocol(domain))
        {
            reasons.insert(format!("spec.route.upstreams[{index}].service"), message);
        }
    }
    if let Some(name) = authority(domain)
        && !cluster.authorities.contains_key(&(namespace.to_owned(), name.to_owned()))
    {
        let message = format!(
            "there is no ConfigMap {namespace}/{name} with the label {CA_LABEL}: \"true\" and certificates under \
             ca.crt; others are not read"
        );
        reasons.insert(CA_PATH.to_owned(), message);
    }
    reasons
}

fn find_service(
    cluster: &Cluster,
    namespace: &str,
    service: &ServiceRef,
    protocol: Protocol,
) -> Result<ServiceTarget, Unresolved> {
    let name = &service.name;
    let Some(found) = cluster.services.get(&(namespace.to_owned(), name.clone())) else {
        return Err(Unresolved::Missing(format!("there is no Service {namespace}/{name}")));
    };
    let address = match found.kind {
        ServiceKind::ClusterIp(address) => address,
        ServiceKind::Headless => None,
        ServiceKind::ExternalName => {
            return Err(Unresolved::Refused(format!(
                "the Service {namespace}/{name} is an ExternalName, which may lead anywhere; name that host instead \
                 (host and port)"
            )));
        }
    };
    let usable: Vec<&SeenPort> = found.ports.iter().filter(|port| port.usable).collect();
    let port = choose_port(&usable, service.port.as_ref(), protocol).ok_or_else(|| {
        let ports: Vec<String> = usable.iter().map(|port| shown(port)).collect();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        Unresolved::Missing(match &service.port {
            Some(port) => {
                format!("the Service {namespace}/{name} has no TCP port {port}; its TCP ports: {ports}")
            }
            None => format!(
                "which port of the Service {namespace}/{name} is meant is not known; name one of its TCP ports: {ports}"
            ),
        })
    })?;
    Ok(ServiceTarget { host: format!("{name}.{namespace}.svc"), port, address })
}

/// The one that is named. If none is: the only one, else the one that is called like the protocol, else its own number.
fn choose_port(ports: &[&SeenPort], wanted: Option<&ServicePort>, protocol: Protocol) -> Option<u16> {
    let by_number = |number| ports.iter().find(|port| port.port == number).map(|port| port.port);
    let by_name = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.port);
    match wanted {
        Some(ServicePort::Number(number)) => by_number(number.get()),
        Some(ServicePort::Name(name)) => by_name(name),
        None => {
            let (name, number) = match protocol {
                Protocol::Smtp => ("smtp", 25),
                Protocol::Lmtp => ("lmtp", 24),
            };
            match ports {
                [only] => Some(only.port),
                _ => by_name(name).or_else(|| by_number(number)),
            }
        }
    }
}

fn shown(port: &SeenPort) -> String {
    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
}

fn manifest(seen: &Seen) -> Option<&MailDomain> {
    match &seen.form {
        Form::Read(Manifest::MailDomain(domain)) => Some(domain),
        Form::Read(Manifest::MailGateway(_)) | Form::Malformed { .. } => None,
    }
}

fn namespace(domain: &MailDomain) -> &str {
    domain.metadata.namespace.as_deref().unwrap_or("default")
}

fn protocol(domain: &MailDomain) -> Protocol {
    domain.spec.route.protocol.unwrap_or(Protocol::Smtp)
}

fn authority(domain: &MailDomain) -> Option<&str> {
    let reference = domain.spec.route.tls.as_ref()?.ca_ref.as_ref()?;
    Some(reference.name.as_str()).filter(|name| !name.is_empty())
}

/// As the compiler asks for it.
fn key(namespace: &str, service: &ServiceRef, protocol: Protocol) -> ServiceKey {
    let port = service.port.as_ref().map(ToString::to_string).unwrap_or_default();
    ServiceKey {
        namespace: namespace.to_owned(),
        name: service.name.clone(),
        port,
        lmtp: protocol == Protocol::Lmtp,
    }
}

#[cfg(test)]
mod tests;
