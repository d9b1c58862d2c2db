//! Between the types of `torwart-core` and the wire, each field by name.
//!
//! ```text
//!   edge      &Question --From--> request        response --TryFrom--> Answer
//!   verdict   request --TryFrom--> Question      &Answer --From--> response
//! ```
//!
//! What comes from the wire is checked, so that neither side can break the other. A request that is not as the
//! `.proto` files say is [`Malformed`] as a whole. A response is taken as far as it can be: a verdict that this build
//! can't carry out (an action, or a need, of a newer version; a reply that is none) becomes a 451 for that recipient,
//! and the others stand.

mod answer;
mod delivery;
mod message;
mod parts;
mod question;
mod reply;
mod route;
#[cfg(test)]
mod tests;

pub use self::message::{message_begin, to_message_begin};
pub use self::parts::{LONGEST_TEXT, MOST_RECIPIENTS};

/// A message from the wire that is not as the `.proto` files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Malformed {
    /// Its path in the message, as in `peer.address`.
    pub field: &'static str,
    what: &'static str,
}

// === impl Malformed ===

impl Malformed {
    const fn new(field: &'static str, what: &'static str) -> Self {
        Self { field, what }
    }
}
