//! The question and its answer.
//!
//! The edge asks, the verdict answers; both speak in these types, whether they share a process or a gRPC
//! channel lies between them. Nothing here does I/O, reads a clock or knows a wire format.
//!
//! ```text
//!   edge                                   verdict
//!     ConnectionQuestion  ------------->     ConnectionAnswer    banner
//!     RecipientsQuestion  ------------->     RecipientsAnswer    each batch of RCPT
//!     MessageQuestion     ------------->     MessageAnswer       while the message arrives
//!     Delivery            ------------->     (nothing)           after the upstream's last word
//!     RouteDigest         ------------->     Route               fetched once
//! ```

mod answer;
mod delivery;
mod id;
mod message;
mod question;
mod reason;
mod route;
mod verdicts;

pub use answer::{
    Action, CheckOutcome, CheckResult, ConnectionAnswer, Greylist, Keyword, ListenerTls, Monitored,
    RecipientVerdict, RecipientsAnswer, Reply, Revision,
};
pub use delivery::{Delivery, DeliveryResult};
pub use id::{Id, IdSource, InvalidId};
pub use message::{BodyPart, MessageAnswer, MessageBody, MessageQuestion};
pub use question::{ConnectionQuestion, Envelope, Mailbox, Peer, RecipientsQuestion, TlsFacts, canonical_ip};
pub use reason::Reason;
pub use route::{
    ClassDigest, ClientIdentity, Host, InvalidDigest, Protocol, Route, RouteDigest, SoftBounce, TlsMode,
    Upstream, UpstreamTls,
};
pub use verdicts::{BoxFuture, Unavailable, UnavailableKind, Verdicts};
