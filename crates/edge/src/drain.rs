//! How the process goes down without losing mail.
//!
//! ```text
//!   Serving --shutdown--> Delay --drain_delay--> Draining --all sessions ended--> Stopped
//!                         accepts               listeners closed
//! ```

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What [`crate::Edge::drain_state`] shows, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainState {
    /// Connections are accepted.
    Serving,
    /// Told to stop, but connections are still accepted for `--drain-delay`: a load balancer that has not noticed
    /// yet still sends some. `/readyz` stays 200.
    Delay,
    /// The listeners are closed. Sessions between transactions hear 421, the others may finish.
    Draining,
    /// No session is left.
    Stopped,
}

/// The orders that reach every session.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrainOrders {
    /// Close the listeners.
    pub(crate) stop_accepting: CancellationToken,
    /// Say 421 between transactions.
    pub(crate) end_idle: CancellationToken,
    /// End every session whose dot has not gone upstream.
    pub(crate) end_all: CancellationToken,
}

/// What a session whose dot has gone upstream may still take: the 8 minutes that the upstream has for its reply, and
/// time to pass it on.
pub(crate) const LAST_REPLY: Duration = Duration::from_secs(9 * 60);

// === impl DrainState ===

impl DrainState {
    /// What `/readyz` says.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Serving | Self::Delay)
    }
}
