//! SMTP without sockets (RFC 5321): strict, lossless codecs and two state machines over bytes.
//!
//! ```text
//!   client's bytes -> Session::receive -> Event  -> (the driver asks, relays) -> answer -> Session::output
//!                     line, command, address, data, header
//!
//!   upstream's bytes -> Client::receive -> ClientEvent          Client::mail, rcpt, data, body -> Client::output
//!                       reply                                   data
//! ```
//!
//! Nothing here reads a clock, opens a socket or waits: `now` is an argument, waiting for an answer is a state that
//! takes no input. No input panics; every buffer has a bound in [`limits`].
//!
//! Where later extensions go: a keyword is one line in `server/ehlo.rs`, a verb one row in `command.rs`. DATA and BDAT
//! bring a message in the same events: what is behind a driver does not know which it was.

mod address;
mod client;
mod command;
mod data;
#[doc(hidden)]
pub mod fuzz;
mod header;
pub mod limits;
mod line;
mod reply;
mod server;
mod violation;

pub use address::{ForwardPath, InvalidPath, Path, ReversePath};
pub use client::{
    Capabilities, Client, ClientConfig, ClientEvent, ClientFault, Dialect, MailParameters, Stage,
    StartTlsMode,
};
pub use command::{Chunk, Command, MailCommand, Verb};
pub use data::{BareNewline, DataFault, DataReader, DataWriter, Progress};
pub use header::{HeaderEditor, HeaderFault, HeaderScanner, Removals};
pub use limits::Limits;
pub use line::{Line, take_line};
pub use reply::{Reply, ReplyFault, ReplyParser};
pub use server::{CloseReason, CommandCounts, Event, Keyword, Session, SessionConfig, TlsOffer, Transaction};
pub use violation::Violation;
