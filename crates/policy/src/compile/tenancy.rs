//! What a namespace may claim and reach.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use torwart_api::limits::{MAX_SELECTOR_TERMS, MAX_TENANT_ENTRIES, MAX_TENANTS};
use torwart_api::{LabelSelector, LabelSelectorOperator, Tenant};
use torwart_core::Host;

use super::{Cause, Errors, FieldError};
use crate::domains::{DomainPattern, is_below};
use crate::inputs::{Inputs, Tenancy};
use crate::ranges::canonical_net;

/// `MailGateway.spec.tenants`, checked.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    entries: Vec<Entry>,
    gateway: String,
}

#[derive(Debug)]
struct Entry {
    namespaces: BTreeSet<String>,
    selector: Option<LabelSelector>,
    domains: Vec<Grant>,
    hosts: Vec<Grant>,
    cidrs: Vec<IpNet>,
}

#[derive(Debug)]
enum Grant {
    /// `*`
    All,
    Names(DomainPattern),
}

// === impl Tenants ===

impl Tenants {
    pub(crate) fn read(tenants: &[Tenant], errors: &mut Errors) -> Self {
        errors.check_length("spec.tenants", tenants, MAX_TENANTS);
        let mut entries = Vec::with_capacity(tenants.len());
        for (index, tenant) in tenants.iter().enumerate() {
            let at = format!("spec.tenants[{index}]");
            if tenant.namespaces.is_empty() && tenant.namespace_selector.is_none() {
                errors.add(&at, "is for no namespace; give namespaces or namespaceSelector");
            }
            if tenant.domains.is_empty() {
                errors.add(
                    format!("{at}.domains"),
                    "is empty, so nothing may be claimed; name domains, or \"*\" for all",
                );
            }
            errors.check_length(&format!("{at}.namespaces"), &tenant.namespaces, MAX_TENANT_ENTRIES);
            if let Some(selector) = &tenant.namespace_selector {
                check_selector(&at, selector, errors);
            }
            let upstreams = tenant.upstreams.clone().unwrap_or_default();
            errors.check_length(&format!("{at}.upstreams.cidrs"), &upstreams.cidrs, MAX_TENANT_ENTRIES);
            entries.push(Entry {
                namespaces: tenant.namespaces.iter().cloned().collect(),
                selector: tenant.namespace_selector.clone(),
                domains: read_grants(&format!("{at}.domains"), &tenant.domains, errors),
                hosts: read_grants(&format!("{at}.upstreams.hosts"), &upstreams.hosts, errors),
                cidrs: upstreams.cidrs.iter().map(|cidr| canonical_net(cidr.get())).collect(),
            });
        }
        Self { entries, gateway: String::new() }
    }

    pub(crate) fn of_gateway(self, name: &str) -> Self {
        Self { gateway: name.to_owned(), ..self }
    }

    /// What of `domains` a namespace may not claim.
    pub(crate) fn refuse_domains(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        domains: &[(DomainPattern, String)],
    ) -> Vec<FieldError> {
        let Some(labels) = tenant_labels(tenancy, namespace) else {
            return Vec::new();
        };
        let entries: Vec<&Entry> =
            self.entries.iter().filter(|entry| entry.is_for(namespace, labels)).collect();
        if entries.is_empty() {
            let gateway = &self.gateway;
            let message =
                format!("the namespace {namespace} has no entry in spec.tenants of MailGateway {gateway}");
            return vec![FieldError {
                cause: Cause::NamespaceNotPermitted,
                ..FieldError::new("metadata.namespace", message)
            }];
        }
        domains
            .iter()
            .filter(|(pattern, _)| {
                !entries.iter().any(|entry| entry.domains.iter().any(|g| g.covers(pattern)))
            })
            .map(|(pattern, path)| FieldError {
                path: path.clone(),
                cause: Cause::DomainNotPermitted,
                message: format!(
                    "is {pattern}, which the namespace {namespace} is not granted in spec.tenants"
                ),
            })
            .collect()
    }

    /// Why a namespace may not send mail to `host`.
    pub(crate) fn refuse_upstream(&self, inputs: &Inputs, namespace: &str, host: &Host) -> Option<String> {
        let labels = tenant_labels(&inputs.tenancy, namespace)?;
        if let Host::Name(name) = host
            && let Some(service) = own_service(name, namespace)
            && inputs.resolutions.external.contains(&(namespace.to_owned(), service.to_owned()))
        {
            return Some(format!(
                "is {host}, an ExternalName Service, which may lead anywhere; name the host itself"
            ));
        }
        let mut entries = self.entries.iter().filter(|entry| entry.is_for(namespace, labels));
        let granted = match host {
            Host::Address(ip) if ip.is_loopback() => false,
            Host::Name(name) if &**name == "localhost" || is_below(name, "localhost") => false,
            Host::Address(ip) => entries.any(|entry| entry.cidrs.iter().any(|net| net.contains(ip))),
            Host::Name(name) => {
                own_service(name, namespace).is_some()
                    || entries.any(|entry| entry.hosts.iter().any(|grant| grant.covers_host(name)))
            }
        };
        (!granted).then(|| {
            format!("is {host}, which the namespace {namespace} is not granted in spec.tenants; its own Services need none")
        })
    }
}

/// The Service of `NAME.NAMESPACE.svc`, with the usual cluster domain or without one.
fn own_service<'n>(name: &'n str, namespace: &str) -> Option<&'n str> {
    let name = name.strip_suffix(".cluster.local").unwrap_or(name);
    name.strip_suffix(".svc")
        .and_then(|name| name.strip_suffix(namespace))
        .and_then(|name| name.strip_suffix('.'))
        .filter(|service| !service.is_empty() && !service.contains('.'))
}

/// The labels of a namespace that is not the administrator's.
fn tenant_labels<'t>(tenancy: &'t Tenancy, namespace: &str) -> Option<Option<&'t BTreeMap<String, String>>> {
    match tenancy {
        Tenancy::Administrator | Tenancy::Published => None,
        Tenancy::Cluster { operator_namespace, .. } if operator_namespace == namespace => None,
        Tenancy::Cluster { namespaces, .. } => Some(namespaces.get(namespace)),
    }
}

fn read_grants(path: &str, texts: &[String], errors: &mut Errors) -> Vec<Grant> {
    errors.check_length(path, texts, MAX_TENANT_ENTRIES);
    let mut grants = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.as_str() {
            "*" => grants.push(Grant::All),
            _ => match DomainPattern::parse_any(text) {
                Ok(pattern) => grants.push(Grant::Names(pattern)),
                Err(error) => errors.add(format!("{path}[{index}]"), format!("is {text:?}; it {error}")),
            },
        }
    }
    grants
}

fn check_selector(at: &str, selector: &LabelSelector, errors: &mut Errors) {
    let at_selector = format!("{at}.namespaceSelector");
    let labels: Vec<&String> = selector.match_labels.keys().collect();
    errors.check_length(&format!("{at_selector}.matchLabels"), &labels, MAX_SELECTOR_TERMS);
    errors.check_length(
        &format!("{at_selector}.matchExpressions"),
        &selector.match_expressions,
        MAX_SELECTOR_TERMS,
    );
    for (index, expression) in selector.match_expressions.iter().enumerate() {
        let path = format!("{at}.namespaceSelector.matchExpressions[{index}].values");
        match (expression.operator, expression.values.is_empty()) {
            (LabelSelectorOperator::In | LabelSelectorOperator::NotIn, true) => {
                errors.add(path, "is empty; In and NotIn need values");
            }
            (LabelSelectorOperator::Exists | LabelSelectorOperator::DoesNotExist, false) => {
                errors.add(path, "must be empty; Exists and DoesNotExist have no values");
            }
            _ => {}
        }
    }
}

// === impl Entry ===

impl Entry {
    fn is_for(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        (self.namespaces.is_empty() || self.namespaces.contains(namespace))
            && self
                .selector
                .as_ref()
                .is_none_or(|selector| labels.is_some_and(|labels| selects(selector, labels)))
    }
}

/// Kubernetes' meaning: every condition must hold, and none is everything.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match expression.operator {
                LabelSelectorOperator::In => value.is_some_and(|value| expression.values.contains(value)),
                LabelSelectorOperator::NotIn => value.is_none_or(|value| !expression.values.contains(value)),
                LabelSelectorOperator::Exists => value.is_some(),
                LabelSelectorOperator::DoesNotExist => value.is_none(),
            }
        })
}

// === impl Grant ===

impl Grant {
    fn covers(&self, pattern: &DomainPattern) -> bool {
        match self {
            Self::All => true,
            Self::Names(granted) => granted.covers(pattern),
        }
    }

    fn covers_host(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(granted) if granted.is_wildcard() => is_below(name, granted.name()),
            Self::Names(granted) => name == granted.name(),
        }
    }
}
