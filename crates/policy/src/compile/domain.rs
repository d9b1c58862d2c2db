//! `MailDomain.spec`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use torwart_api::limits::{MAX_DOMAINS, MAX_HOST};
use torwart_api::{
    Checks, GreylistIdentity, Greylisting, Limits, MailDomain, ObjectRef, Scoring, StoreFailure,
};
use torwart_core::{ClassDigest, Route};

use super::gateway::CompiledGateway;
use super::{Errors, FieldError, defaults, lists, merge, route, scores};
use crate::domains::DomainPattern;
use crate::inputs::{Inputs, Tenancy};
use crate::model;
use crate::snapshot::{Resolved, digest, to_value};

/// What a MailDomain is compiled against.
pub(crate) struct DomainContext<'c> {
    pub(crate) inputs: &'c Inputs,
    pub(crate) gateway: &'c CompiledGateway,
}

/// One MailDomain by itself; whether it may have its domains is for the claims to say.
pub(crate) struct CompiledDomain {
    /// Each with its field.
    pub(crate) patterns: Vec<(DomainPattern, String)>,
    pub(crate) domain: model::Domain,
    pub(crate) route: Route,
    /// What its references lead to, for the snapshot; `None` if it has none.
    pub(crate) resolved: Option<Arc<Resolved>>,
    /// References that lead nowhere by now. What they led to before stands for them.
    pub(crate) unresolved: Vec<FieldError>,
}

/// Why a MailDomain is not accepted.
pub(crate) struct Refused {
    pub(crate) errors: Vec<FieldError>,
    /// References that lead nowhere; if there are no errors beside, these are why.
    pub(crate) unresolved: Vec<FieldError>,
    /// False if its namespace lost the permission: then its last form goes too.
    pub(crate) permitted: bool,
}

/// The patterns of `spec.domains` that are valid.
pub(crate) fn patterns(domains: &[String]) -> BTreeSet<DomainPattern> {
    domains.iter().filter_map(|text| DomainPattern::parse(text).ok()).collect()
}

// === impl DomainContext ===

impl DomainContext<'_> {
    pub(crate) fn compile(
        &self,
        object: &ObjectRef,
        manifest: &MailDomain,
    ) -> Result<CompiledDomain, Refused> {
        let mut errors = Errors::default();
        let spec = &manifest.spec;
        let namespace = object.namespace.as_str();
        lists::check_object_name(&manifest.metadata, &mut errors);
        self.check_gateway(manifest, &mut errors);
        let patterns = read_patterns(&spec.domains, &mut errors);
        let refusals = self.gateway.tenants.refuse_domains(&self.inputs.tenancy, namespace, &patterns);
        let permitted = refusals.is_empty();
        refusals.into_iter().for_each(|refusal| errors.push(refusal));

        let greylisting = merge::greylisting(spec.greylisting.as_ref(), &self.gateway.greylisting);
        let checks = merge::checks(spec.checks.as_ref(), &self.gateway.checks);
        let scoring = merge::scoring(spec.scoring.as_ref(), &self.gateway.scoring);
        let limits = merge::limits(spec.limits.as_ref(), &self.gateway.limits);
        if spec.greylisting.is_some() {
            scores::greylisting("spec.greylisting", &greylisting, &mut errors);
        }
        if spec.checks.is_some() && !self.gateway.stand_in {
            let CompiledGateway { dns_lists, uri_lists, .. } = self.gateway;
            scores::checks("spec.checks", &checks, dns_lists, uri_lists, &mut errors);
        }
        if spec.scoring.is_some() {
            scores::scoring("spec.scoring", &scoring, &mut errors);
        }
        if spec.limits.is_some() {
            scores::limits("spec.limits", &limits, &mut errors);
        }
        let last = self.inputs.last.as_ref().and_then(|last| last.resolutions.get(object));
        let route::CompiledRoute { route, resolved, unresolved, usable } =
            route::compile(self, namespace, last.map(|last| &**last), &spec.route, &mut errors);
        let enforcement = lists::enforcement(spec.enforcement);
        let message_policy = if spec.checks.is_none() && spec.scoring.is_none() {
            self.gateway.message_policy
        } else {
            message_policy(&checks, &scoring)
        };
        let domain = model::Domain {
            object: format!("{namespace}/{}", object.name).into(),
            enforcement,
            route: route.digest,
            class: class(&route, enforcement, message_policy),
            greylisting: model_greylisting(&greylisting),
            ranges: lists::ranges("spec.ipRanges", &spec.ip_ranges, &mut errors),
            senders: lists::senders(spec.senders.as_ref(), &mut errors),
            recipients: lists::recipients(spec.recipients.as_ref(), &mut errors),
            dns_lists: lists::dns_lists_check(checks.dns_lists.as_ref()),
            scoring: model_scoring(&scoring),
            message_size: message_size(&limits),
            max_recipients: limits.recipients.unwrap_or_default(),
        };
        let errors = errors.into_inner();
        if errors.is_empty() && usable {
            let resolved = match last.filter(|last| ***last == resolved) {
                Some(last) => Some(last.clone()),
                None => (resolved != Resolved::default()).then(|| Arc::new(resolved)),
            };
            Ok(CompiledDomain { patterns, domain, route, resolved, unresolved })
        } else {
            Err(Refused { errors, unresolved, permitted })
        }
    }

    /// The mail domains that `form` asks for, as far as they can be told and its namespace may have them, whatever else
    /// is wrong with it.
    pub(crate) fn wished(&self, object: &ObjectRef, form: &MailDomain) -> Vec<DomainPattern> {
        let tenancy = &self.inputs.tenancy;
        let ours = form.spec.gateway_ref.as_ref().map_or("default", |reference| &reference.name)
            == self.gateway.manifest.metadata.name;
        if !ours && !matches!(tenancy, Tenancy::Administrator) {
            return Vec::new();
        }
        let mut wished: Vec<(DomainPattern, String)> = Vec::new();
        for text in &form.spec.domains {
            let meant = text.trim().trim_end_matches('.');
            wished.extend(DomainPattern::parse(meant).ok().map(|pattern| (pattern, String::new())));
        }
        wished.retain(|one| {
            let one = std::slice::from_ref(one);
            self.gateway.tenants.refuse_domains(tenancy, &object.namespace, one).is_empty()
        });
        wished.into_iter().map(|(pattern, _)| pattern).collect()
    }

    fn check_gateway(&self, manifest: &MailDomain, errors: &mut Errors) {
        let ours = &self.gateway.manifest.metadata.name;
        let named = manifest.spec.gateway_ref.as_ref().map_or("default", |reference| &reference.name);
        if named != ours && !self.gateway.stand_in {
            let (path, said) = match &manifest.spec.gateway_ref {
                Some(_) => ("spec.gatewayRef.name", "is"),
                None => ("spec.gatewayRef", "is left out, which means"),
            };
            errors.add(path, format!("{said} {named:?}, but the MailGateway is called {ours}"));
        }
    }
}

fn read_patterns(domains: &[String], errors: &mut Errors) -> Vec<(DomainPattern, String)> {
    errors.check_length("spec.domains", domains, MAX_DOMAINS);
    if domains.is_empty() {
        errors.add("spec.domains", "is empty; name at least one mail domain");
    }
    let mut seen = BTreeSet::new();
    let mut patterns = Vec::with_capacity(domains.len());
    for (index, text) in domains.iter().enumerate() {
        let path = format!("spec.domains[{index}]");
        errors.check_text(&path, text, MAX_HOST);
        match DomainPattern::parse(text) {
            Ok(pattern) if !seen.insert(pattern.clone()) => {
                errors.add(path, format!("is {text}, which is in the list already"));
            }
            Ok(pattern) => patterns.push((pattern, path)),
            Err(error) => errors.add(path, format!("is {text:?}; it {error}")),
        }
    }
    patterns
}

/// The digest of what a message is judged by.
pub(crate) fn message_policy(checks: &Checks, scoring: &Scoring) -> [u8; 16] {
    let message_checks = Checks {
        uri_lists: checks.uri_lists.clone(),
        dkim: checks.dkim.clone(),
        dmarc: checks.dmarc.clone(),
        arc: checks.arc.clone(),
        ..Checks::default()
    };
    digest(&json!([to_value(&message_checks), to_value(scoring)]))
}

/// Recipients whose mail takes the same way and is judged alike as a message can share a transaction.
fn class(route: &Route, enforcement: model::Enforcement, message_policy: [u8; 16]) -> ClassDigest {
    ClassDigest(digest(&json!([route.digest.to_string(), format!("{enforcement:?}"), message_policy])))
}

fn model_greylisting(value: &Greylisting) -> model::Greylisting {
    let prefix = value.prefix.clone().unwrap_or_default();
    model::Greylisting {
        mode: value.mode.map_or(model::GreylistMode::Suspicious, lists::greylist_mode),
        delay: value.delay.unwrap_or_default().get(),
        retry_window: value.retry_window.unwrap_or_default().get(),
        pass_ttl: value.pass_ttl.unwrap_or_default().get(),
        auto_pass_after: value.auto_pass_after.unwrap_or_default(),
        prefix_ipv4: prefix.ipv4.unwrap_or(*defaults::PREFIX_IPV4.end()),
        prefix_ipv6: prefix.ipv6.unwrap_or(*defaults::PREFIX_IPV6.end()),
        pool_identity: value.identity == Some(GreylistIdentity::Pool),
        exempt_recipients: value
            .exempt_recipients
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|local| local.to_lowercase().into_boxed_str())
            .collect(),
        accept_on_store_failure: value.on_store_failure != Some(StoreFailure::Defer),
    }
}

fn model_scoring(value: &Scoring) -> model::Scoring {
    model::Scoring {
        tag_at: scores::narrow(value.tag_at.unwrap_or_default()),
        greylist_at: scores::narrow(value.greylist_at.unwrap_or_default()),
        reject_at: scores::narrow(value.reject_at.unwrap_or_default()),
    }
}

fn message_size(limits: &Limits) -> u64 {
    limits.message_size.unwrap_or(defaults::MAX_MESSAGE_SIZE).get()
}
