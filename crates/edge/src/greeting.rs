//! Whether a connection is greeted: the verdict's word before the banner, and how long it may be reused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use torwart_core::{
    ConnectionAnswer, ConnectionQuestion, Keyword, ListenerTls, Peer, Reason, RecipientsAnswer, Reply,
    Verdicts,
};
use torwart_proto::trace::fail;
use tracing::{Instrument, Span};

use crate::trace;

/// What the banner says.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) refuse: Option<(Reply, Reason)>,
    pub(crate) tls: ListenerTls,
    /// How long a client that speaks too early is waited for.
    pub(crate) delay: Duration,
    pub(crate) hidden: Vec<Keyword>,
}

/// Remembers the answer that holds for every connection, for as long as the verdict says so.
#[derive(Debug, Default)]
pub(crate) struct Greetings {
    same_for_all: ArcSwapOption<(Instant, ConnectionAnswer)>,
}

/// How long the verdict may take before the banner is 220 anyway: a lost verdict is told at RCPT.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer for all connections is asked for again after this long, so that a new policy is live within 2 s even
/// where no RCPT brings news of it.
const FRESH: Duration = Duration::from_secs(1);

// === impl Greetings ===

impl Greetings {
    /// `session` is the session's span.
    pub(crate) async fn greet(
        &self,
        verdicts: &dyn Verdicts,
        peer: &Arc<Peer>,
        now: Instant,
        session: &Span,
    ) -> Greeting {
        if let Some(known) = &*self.same_for_all.load()
            && now.saturating_duration_since(known.0) < FRESH
        {
            return Greeting::from(&known.1);
        }
        let question = ConnectionQuestion { peer: Arc::clone(peer) };
        let span = trace::question(session, "connection");
        let asked = tokio::time::timeout(PATIENCE, verdicts.check_connection(question));
        match asked.instrument(span.clone()).await {
            Ok(Ok(answer)) => {
                let greeting = Greeting::from(&answer);
                if !answer.ask_connections {
                    self.same_for_all.store(Some(Arc::new((now, answer))));
                }
                greeting
            }
            Ok(Err(_)) | Err(_) => {
                fail(&span, "no verdict");
                Greeting { refuse: None, tls: ListenerTls::Offer, delay: Duration::ZERO, hidden: Vec::new() }
            }
        }
    }

    /// An answer at RCPT may bring news: connections need asking again, or there is another revision.
    pub(crate) fn learn(&self, answer: &RecipientsAnswer) {
        let known = self.same_for_all.load();
        let stale =
            known.as_ref().is_some_and(|known| answer.ask_connections || known.1.revision != answer.revision);
        if stale {
            self.same_for_all.store(None);
        }
    }
}

// === impl Greeting ===

impl From<&ConnectionAnswer> for Greeting {
    fn from(answer: &ConnectionAnswer) -> Self {
        let ConnectionAnswer { refuse, tls, greet_delay, hidden, revision: _, ask_connections: _ } = answer;
        Self { refuse: refuse.clone(), tls: *tls, delay: *greet_delay, hidden: hidden.clone() }
    }
}
