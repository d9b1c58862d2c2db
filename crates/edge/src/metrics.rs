//! What is counted, with every child looked up once.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use torwart_smtp::Verb;

/// How a session ended: the label of `torwart_smtp_sessions_total` and the `outcome` of its log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOutcome {
    /// The client said QUIT.
    Quit,
    /// It closed without having sent a byte.
    Probe,
    /// It went away without QUIT.
    ClientGone,
    /// It was silent for too long, did not take our replies, or was connected for too long.
    Timeout,
    /// The policy refused its address at the banner.
    Refused,
    /// There were enough connections already, in all or from its network.
    ConnectionLimit,
    /// It made too many errors or asked too much of one session.
    Violation,
    /// The TLS handshake failed.
    TlsFailed,
    /// It sent commands together with STARTTLS, to be taken for encrypted.
    TlsInjection,
    /// It should have sent a PROXY header, and did not send a good one in time.
    ProxyFault,
    /// The process went down.
    Shutdown,
}

/// How a message ended: the label of `torwart_messages_total`. Only transactions that came to DATA count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageOutcome {
    Delivered,
    /// Our last word was a 4xx.
    Deferred,
    /// Our last word was a 5xx.
    Rejected,
    /// The upstream's reply to the dot was lost.
    Unknown,
    /// The client went away before its dot.
    ClientGone,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    sessions: [IntCounter; SessionOutcome::ALL.len()],
    messages: [IntCounter; MessageOutcome::ALL.len()],
    /// By verb, then by class.
    commands: Vec<IntCounter>,
    pub(crate) connections: IntGauge,
    certificate_not_after: IntGaugeVec,
    pub(crate) message_bytes: IntCounter,
    pub(crate) outcome_unknown: IntCounter,
    pub(crate) accept_failures: IntCounter,
}

/// The first digit of a reply.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

// === impl SessionOutcome ===

impl SessionOutcome {
    pub(crate) const ALL: [Self; 11] = [
        Self::Quit,
        Self::Probe,
        Self::ClientGone,
        Self::Timeout,
        Self::Refused,
        Self::ConnectionLimit,
        Self::Violation,
        Self::TlsFailed,
        Self::TlsInjection,
        Self::ProxyFault,
        Self::Shutdown,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Probe => "probe",
            Self::ClientGone => "client_gone",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::ConnectionLimit => "connection_limit",
            Self::Violation => "violation",
            Self::TlsFailed => "tls_failed",
            Self::TlsInjection => "tls_injection",
            Self::ProxyFault => "proxy_fault",
            Self::Shutdown => "shutdown",
        }
    }
}

// === impl MessageOutcome ===

impl MessageOutcome {
    pub(crate) const ALL: [Self; 5] =
        [Self::Delivered, Self::Deferred, Self::Rejected, Self::Unknown, Self::ClientGone];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::ClientGone => "client_gone",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything. An error means that a name was registered twice.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let sessions = vec("torwart_smtp_sessions_total", "SMTP sessions, by how they ended.", &["outcome"])?;
        let messages = vec(
            "torwart_messages_total",
            "Transactions that came to DATA, by how they ended.",
            &["outcome"],
        )?;
        let commands = vec(
            "torwart_smtp_commands_total",
            "SMTP commands, by verb and class of the reply.",
            &["verb", "class"],
        )?;
        let connections = IntGauge::new("torwart_smtp_connections", "SMTP clients connected now.")?;
        registry.register(Box::new(connections.clone()))?;
        let certificate_not_after = IntGaugeVec::new(
            Opts::new(
                "torwart_tls_certificate_not_after_seconds",
                "When each STARTTLS certificate expires, in seconds since 1970, by its place among the --tls-cert.",
            ),
            &["certificate"],
        )?;
        registry.register(Box::new(certificate_not_after.clone()))?;
        Ok(Self {
            sessions: SessionOutcome::ALL.map(|outcome| sessions.with_label_values(&[outcome.as_str()])),
            messages: MessageOutcome::ALL.map(|outcome| messages.with_label_values(&[outcome.as_str()])),
            commands: Verb::ALL
                .iter()
                .flat_map(|verb| CLASSES.map(|class| commands.with_label_values(&[verb.as_str(), class])))
                .collect(),
            connections,
            certificate_not_after,
            message_bytes: counter("torwart_message_bytes_total", "Bytes of messages that were delivered.")?,
            outcome_unknown: counter(
                "torwart_outcome_unknown_total",
                "Messages whose final reply from the upstream was lost: a double delivery is possible.",
            )?,
            accept_failures: counter(
                "torwart_smtp_accept_failures_total",
                "Connections that could not be accepted, for want of file descriptors as a rule.",
            )?,
        })
    }

    pub(crate) fn session(&self, outcome: SessionOutcome) {
        if let Some(counter) = self.sessions.get(outcome as usize) {
            counter.inc();
        }
    }

    /// `class` is the reply's first digit.
    pub(crate) fn commands(&self, verb: Verb, class: u8, count: u8) {
        let place = (verb as usize * CLASSES.len())
            .checked_add(usize::from(class))
            .and_then(|place| place.checked_sub(2));
        if let Some(counter) = place.and_then(|place| self.commands.get(place)) {
            counter.inc_by(u64::from(count));
        }
    }

    /// In seconds since 1970, in the order of the flags.
    pub(crate) fn certificates_not_after(&self, seconds: &[u64]) {
        for (place, seconds) in seconds.iter().enumerate() {
            let gauge = self.certificate_not_after.with_label_values(&[place.to_string().as_str()]);
            gauge.set(i64::try_from(*seconds).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn message(&self, outcome: MessageOutcome) {
        if let Some(counter) = self.messages.get(outcome as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_finds_its_own_counter() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        for outcome in SessionOutcome::ALL {
            metrics.session(outcome);
        }
        for outcome in MessageOutcome::ALL {
            metrics.message(outcome);
        }
        assert!(metrics.sessions.iter().chain(&metrics.messages).all(|counter| counter.get() == 1));
    }

    #[test]
    fn a_command_is_counted_by_its_verb_and_its_class() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.commands(Verb::Rcpt, 4, 2);
        metrics.commands(Verb::Unknown, 5, 1);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains(r#"torwart_smtp_commands_total{class="4xx",verb="rcpt"} 2"#), "{text}");
        assert!(text.contains(r#"torwart_smtp_commands_total{class="5xx",verb="unknown"} 1"#), "{text}");
    }

    #[test]
    fn a_second_set_in_one_registry_is_an_error() {
        let registry = Registry::new();
        assert!(Metrics::new(&registry).is_ok());
        assert!(Metrics::new(&registry).is_err());
    }
}
