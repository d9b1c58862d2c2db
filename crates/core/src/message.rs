//! The message itself: asked about while it arrives.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::{Action, CheckResult, Envelope, Id, Mailbox, Monitored, Peer, Reason, Reply, Revision};

/// Asked only where an answer about its recipients said so, and never twice.
#[derive(Clone, Debug)]
pub struct MessageQuestion {
    pub peer: Arc<Peer>,
    pub transaction: Id,
    pub envelope: Arc<Envelope>,
    /// The recipients that were accepted.
    pub recipients: Vec<Mailbox>,
    /// What the checks said at RCPT.
    pub checks: Vec<CheckResult>,
}

/// A piece of the message as it arrived: dots taken out, CRLF at every line's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPart {
    /// At most [`BodyPart::LONGEST_CHUNK`] bytes.
    Chunk(Vec<u8>),
    /// The message is whole, and has so many bytes: more than came if only its beginning was sent.
    End { size: u64 },
}

/// Where the message comes from, piece by piece.
pub trait MessageBody: Send + 'static {
    /// The next piece. `None` without an [`BodyPart::End`] before: there will be no whole message, and no answer is
    /// waited for. Not to be called again after either.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<BodyPart>>;
}

/// What holds for a message.
#[derive(Clone, Debug)]
pub struct MessageAnswer {
    /// With `Accept` it goes upstream. Otherwise there is a `reply`: the answer to the final dot.
    pub action: Action,
    pub reply: Option<Reply>,
    pub reason: Reason,
    /// In Monitor: what would have been.
    pub monitored: Option<Monitored>,
    /// All checks' scores, those at RCPT included.
    pub score: f32,
    /// What the message checks said.
    pub checks: Vec<CheckResult>,
    /// Header fields to be put on top, in this order, each without its final CRLF. Lines after the first begin with a
    /// blank or a tab; all of it is ASCII.
    pub add_fields: Vec<Arc<str>>,
    /// Names of fields to be taken out, with an ending `*` for all that begin so. Case does not count.
    pub remove_fields: Vec<Arc<str>>,
    /// Authentication-Results fields with this authserv-id are taken out (RFC 8601 section 5).
    pub remove_authserv_id: Option<Arc<str>>,
    pub revision: Revision,
}

// === impl BodyPart ===

impl BodyPart {
    /// Large enough that a message is few pieces, small enough that a few of them in flight are nothing.
    pub const LONGEST_CHUNK: usize = 64 * 1024;
}

// === impl MessageBody ===

/// A message that is there already.
impl MessageBody for std::vec::IntoIter<BodyPart> {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<BodyPart>> {
        Poll::Ready(self.next())
    }
}
