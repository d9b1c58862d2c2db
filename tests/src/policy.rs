//! Manifests for a test, in the form that a user writes.

use std::fmt::Write;
use std::net::SocketAddr;

/// One MailGateway and one MailDomain. What is not set keeps its default.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    pub domains: Vec<String>,
    pub upstreams: Vec<SocketAddr>,
    /// The body of `greylisting`, in flow style, as in `{mode: Off}`.
    pub greylisting: String,
    /// Further lines of the gateway's `spec`, two spaces deep.
    pub gateway: String,
    /// Further lines of the domain's `spec`, two spaces deep.
    pub domain: String,
    /// Further lines of `route`, four spaces deep.
    pub route: String,
    /// Whole documents that follow.
    pub more: String,
}

impl PolicyFile {
    pub const HOSTNAME: &str = "mx.example.net";

    /// `example.org` goes to `upstream`, without greylisting.
    pub fn to(upstream: SocketAddr) -> Self {
        Self {
            domains: vec!["example.org".to_owned()],
            upstreams: vec![upstream],
            greylisting: "{mode: Off}".to_owned(),
            gateway: String::new(),
            domain: String::new(),
            route: String::new(),
            more: String::new(),
        }
    }

    pub fn greylisting(mut self, body: &str) -> Self {
        body.clone_into(&mut self.greylisting);
        self
    }

    pub fn domains(mut self, domains: &[&str]) -> Self {
        self.domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        self
    }

    /// A line of `route`, as in `softBounce: Never`.
    pub fn route(mut self, line: &str) -> Self {
        let _ = writeln!(self.route, "    {line}");
        self
    }

    /// A line of the domain's `spec`.
    pub fn domain(mut self, line: &str) -> Self {
        let _ = writeln!(self.domain, "  {line}");
        self
    }

    /// A line of the gateway's `spec`.
    pub fn gateway(mut self, line: &str) -> Self {
        let _ = writeln!(self.gateway, "  {line}");
        self
    }

    pub fn upstream(mut self, upstream: SocketAddr) -> Self {
        self.upstreams.push(upstream);
        self
    }

    /// Another MailDomain, without greylisting, for a mail server of its own.
    pub fn also(mut self, domain: &str, upstream: SocketAddr) -> Self {
        let name = domain.replace('.', "-");
        let (host, port) = (upstream.ip(), upstream.port());
        let _ = write!(
            self.more,
            "---\n\
             apiVersion: torwart.dev/v1alpha1\n\
             kind: MailDomain\n\
             metadata: {{name: {name}, namespace: mail}}\n\
             spec:\n\
             \x20 gatewayRef: {{name: default}}\n\
             \x20 domains: [{domain}]\n\
             \x20 greylisting: {{mode: Off}}\n\
             \x20 route: {{upstreams: [{{host: \"{host}\", port: {port}}}]}}\n"
        );
        self
    }

    pub fn text(&self) -> String {
        let hostname = Self::HOSTNAME;
        let domains = self.domains.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let mut upstreams = String::new();
        for (priority, upstream) in self.upstreams.iter().enumerate() {
            let (host, port) = (upstream.ip(), upstream.port());
            let _ = writeln!(
                upstreams,
                "      - {{host: \"{host}\", port: {port}, priority: {priority}, maxConnections: 50}}"
            );
        }
        let Self { greylisting, gateway, domain, route, more, .. } = self;
        format!(
            "apiVersion: torwart.dev/v1alpha1\n\
             kind: MailGateway\n\
             metadata: {{name: default}}\n\
             spec:\n\
             \x20 hostname: {hostname}\n\
             \x20 postmaster: postmaster@example.org\n\
             {gateway}\
             ---\n\
             apiVersion: torwart.dev/v1alpha1\n\
             kind: MailDomain\n\
             metadata: {{name: example-org, namespace: mail}}\n\
             spec:\n\
             \x20 gatewayRef: {{name: default}}\n\
             \x20 domains: [{domains}]\n\
             \x20 greylisting: {greylisting}\n\
             {domain}\
             \x20 route:\n\
             {route}\
             \x20   upstreams:\n\
             {upstreams}\
             {more}"
        )
    }
}
