//! Auto-pass: a client that has delivered good mail from several senders is greylisted no more.

use super::{Params, Time};

/// How many different senders are remembered per client and mail domain; a larger `autoPassAfter` means this.
/// Postgrey asks for 5.
pub const MAX_COUNTED_SENDERS: u32 = 32;

/// At most one sender is counted an hour (as in postgrey): one burst of a compromised host earns one.
pub const COUNT_INTERVAL: u32 = 3600;

/// The good deliveries of one client identity to one mail domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Short keyed hashes of the senders that were counted, each once.
    pub senders: Vec<u32>,
    pub last_counted: Time,
    pub last_delivered: Time,
    /// From then on a store may forget the counter.
    pub expires: Time,
}

// === impl Counter ===

impl Counter {
    /// Whether this client's mail passes without greylisting.
    pub fn passes(&self, now: Time, params: &Params) -> bool {
        params.auto_pass_after > 0
            && self.senders.len() >= params.auto_pass_after as usize
            && now.saturating_sub(self.last_delivered) < params.pass_ttl
    }

    /// The counter after a good delivery from `sender`.
    pub fn delivered(mut self, sender: u32, now: Time, params: &Params) -> Self {
        if now.saturating_sub(self.last_delivered) >= params.pass_ttl {
            self.senders.clear();
        }
        let due = self.senders.is_empty() || now.saturating_sub(self.last_counted) >= COUNT_INTERVAL;
        let room = self.senders.len() < MAX_COUNTED_SENDERS as usize;
        if due && room && !self.senders.contains(&sender) {
            self.senders.push(sender);
            self.last_counted = now;
        }
        // A clock that was set back must not stop the counting until it is reached again.
        self.last_counted = self.last_counted.min(now);
        self.last_delivered = now;
        self.expires = now.saturating_add(params.pass_ttl);
        self
    }

    /// Whether a store must treat it as absent.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires <= now
    }
}
