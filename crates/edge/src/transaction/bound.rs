//! What a transaction is bound to since the upstream accepted its first recipient.

use std::time::Instant;

use torwart_core::{DeliveryResult, Mailbox, RouteDigest};

use super::asked::{Asked, Binding};
use crate::reply::Said;
use crate::upstream::{Relay, RelayReply, UpstreamRefusal};

#[derive(Debug)]
pub(super) struct Bound {
    pub(super) binding: Binding,
    pub(super) route: RouteDigest,
    pub(super) relay: RelayState,
    pub(super) accepted: Vec<Mailbox>,
    /// The highest of the accepted recipients' scores.
    pub(super) score: f32,
}

#[derive(Debug)]
pub(super) enum RelayState {
    Open(Relay),
    /// The upstream, or the message, failed: this is what DATA or the dot will hear.
    Lost(Said),
    /// The upstream has had its last word.
    Spent(DeliveryResult),
}

/// Which upstream it was and what it said last, for the log.
#[derive(Debug, Default)]
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
    ) -> Result<(usize, Vec<RelayReply>), Said> {
        let relay = match &mut self.relay {
            RelayState::Open(relay) => relay,
            RelayState::Lost(said) => return Err(said.clone()),
            RelayState::Spent(_) => return Err(Said::no_route()),
        };
        let paths = paths(asked, group);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        match relay.recipients(&paths, deadline).await {
            Ok(replies) => Ok((group.len(), replies)),
            Err(refusal) => {
                let said = word.refused(refusal);
                self.lose(said.clone());
                Err(said)
            }
        }
    }

    /// Lets the upstream go without a dot; the first reason stays.
    pub(super) fn lose(&mut self, said: Said) {
        if !matches!(self.relay, RelayState::Open(_)) {
            return;
        }
        if let RelayState::Open(relay) = std::mem::replace(&mut self.relay, RelayState::Lost(said)) {
            relay.abandon();
        }
    }
}

// === impl UpstreamWord ===

impl UpstreamWord {
    /// Notes the refusal, and gives what the client hears.
    pub(super) fn refused(&mut self, refusal: UpstreamRefusal) -> Said {
        let UpstreamRefusal { reply, reason, upstream, upstream_reply } = refusal;
        self.name = upstream.or_else(|| self.name.take());
        self.reply = upstream_reply;
        Said::new(reply, reason)
    }
}

/// How the upstream is told these recipients.
pub(super) fn paths(asked: &[Asked], group: &[usize]) -> Vec<String> {
    group.iter().filter_map(|&i| asked.get(i)).map(Asked::upstream_path).collect()
}
