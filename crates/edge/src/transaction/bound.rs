//! What a transaction is bound to since the upstream accepted its first recipient.

use std::sync::Arc;
use std::time::Instant;

use torwart_core::{DeliveryResult, Mailbox, Route};

use super::asked::{Asked, Binding};
use super::held::Means;
use crate::reply::Said;
use crate::upstream::{Kept, MailFacts, Relay, RelayReply, UpstreamRefusal, Upstreams};

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) binding: Binding,
    pub(super) route: Arc<Route>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) relay: RelayState,
    pub(super) accepted: Vec<Mailbox>,
    /// The same as the upstream knows them.
    pub(super) paths: Vec<String>,
    /// The highest of the accepted recipients' scores.
    pub(super) score: f32,
    /// One of the accepted recipients' messages is held.
    pub(super) hold: bool,
    pub(super) means: Means,
}

#[derive(Debug)]
pub(super) enum RelayState {
    Open(Relay),
    /// The message is held; a task keeps the upstream.
    Kept(Kept),
    /// Given up for others while the client was silent; to be begun again when it goes on.
    Yielded,
    /// The upstream, or the message, failed.
    Lost(Loss),
    /// The dot is on its way, and nobody knows yet.
    Finishing,
    /// The upstream said 250 to the dot.
    Delivered,
}

/// Why there is no relay.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// What RCPT, DATA or the dot will hear.
    pub(super) said: Said,
    /// What is reported of it; `None` where it was not the upstream's doing.
    pub(super) result: Option<DeliveryResult>,
}

/// Which upstream it was and what it said last, for the log and the report.
#[derive(Clone, Debug, Default)]
pub(super) struct UpstreamWord {
    pub(super) name: Option<String>,
    pub(super) reply: Option<String>,
}

// === impl Bound ===

impl Bound {
    /// How many of the group were brought, and what the upstream said to each.
    pub(super) async fn more_recipients(
        &mut self,
        asked: &[Asked],
        group: &[usize],
        deadline: Instant,
        word: &mut UpstreamWord,
    ) -> Result<(usize, Vec<RelayReply>), Loss> {
        let relay = match &mut self.relay {
            RelayState::Open(relay) => relay,
            RelayState::Lost(loss) => return Err(loss.clone()),
            RelayState::Kept(_) | RelayState::Yielded | RelayState::Finishing | RelayState::Delivered => {
                return Err(Said::no_route().into());
            }
        };
        let paths = paths(asked, group);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        match relay.recipients(&paths, deadline).await {
            Ok(replies) => Ok((group.len(), replies)),
            Err(refusal) => {
                let loss = word.refused(refusal);
                self.lose(loss.clone());
                Err(loss)
            }
        }
    }

    /// Leaves the connection to others for as long as the client is silent.
    pub(super) fn yield_upstream(&mut self) {
        if !matches!(self.relay, RelayState::Open(_)) {
            return;
        }
        if let RelayState::Open(relay) = std::mem::replace(&mut self.relay, RelayState::Yielded) {
            relay.abandon();
        }
    }

    /// Brings a transaction that gave way back to where it was. If that fails, it is lost.
    pub(super) async fn begin_again(&mut self, mail: &MailFacts, deadline: Instant, word: &mut UpstreamWord) {
        if !matches!(self.relay, RelayState::Yielded) {
            return;
        }
        let paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        let begun = Box::pin(self.upstreams.begin_again(&self.route, mail, &paths, deadline)).await;
        self.relay = match begun {
            Ok(relay) => {
                word.name = Some(relay.upstream().to_owned());
                RelayState::Open(relay)
            }
            Err(refusal) => RelayState::Lost(word.refused(refusal)),
        };
    }

    /// Lets the upstream go without a dot; the first reason stays.
    pub(super) fn lose(&mut self, loss: impl Into<Loss>) {
        if !matches!(self.relay, RelayState::Open(_) | RelayState::Kept(_) | RelayState::Yielded) {
            return;
        }
        match std::mem::replace(&mut self.relay, RelayState::Lost(loss.into())) {
            RelayState::Open(relay) => relay.abandon(),
            RelayState::Kept(kept) => kept.abandon(),
            RelayState::Yielded | RelayState::Lost(_) | RelayState::Finishing | RelayState::Delivered => {}
        }
    }
}

// === impl UpstreamWord ===

impl UpstreamWord {
    /// Notes the refusal, and gives what the client hears.
    pub(super) fn refused(&mut self, refusal: UpstreamRefusal) -> Loss {
        let UpstreamRefusal { reply, reason, upstream, upstream_reply, result } = refusal;
        self.name = upstream.or_else(|| self.name.take());
        self.reply = upstream_reply;
        Loss { said: Said::new(reply, reason), result }
    }
}

// === impl Loss ===

impl From<Said> for Loss {
    /// Ours or the client's doing.
    fn from(said: Said) -> Self {
        Self { said, result: None }
    }
}

/// How the upstream is told these recipients.
pub(super) fn paths(asked: &[Asked], group: &[usize]) -> Vec<String> {
    group.iter().filter_map(|&i| asked.get(i)).map(Asked::upstream_path).collect()
}
