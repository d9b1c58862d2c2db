//! The SMTP edge: sockets, TLS and the PROXY protocol towards clients, the relay towards upstreams.
//!
//! It drives [`torwart_smtp::Session`], which decides what is said, and asks a [`torwart_core::Verdicts`], which
//! decides what is accepted. It holds no policy of its own.
//!
//! ```text
//!   listener -> permits -> proxy -> connection -> transaction -> upstream
//!                                       |              |
//!                                   smtp::Session   Verdicts
//!                                       |              |
//!                                      tls          mail log
//! ```

mod connection;
mod drain;
mod edge;
mod farewell;
mod greeting;
mod listener;
mod log;
mod message_id;
mod metrics;
mod permits;
pub mod proxy;
mod received;
mod reply;
mod reports;
mod resolve;
mod scatter;
mod settings;
mod spool;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod trace;
mod transaction;
pub mod upstream;
mod verdict_client;

pub use drain::DrainState;
pub use edge::{BindError, Edge};
pub use log::{LogAddresses, LogFormat, MailLog, MailLogError, MailLogOptions, MailLogWriter};
pub use resolve::Resolve;
pub use settings::{CertificateFiles, Settings};
pub use spool::SpoolSettings;
pub use tls::{CertificateError, check_certificates};
pub use torwart_smtp::{BareNewline, Limits};
pub use transaction::{Foretold, Moment, foretell_message, foretell_recipients, foretell_session};
pub use upstream::UpstreamSettings;
pub use verdict_client::{
    ClientError, ClientSettings, InvalidVerdictUrl, RECIPIENTS_BUDGET, Scheme, VerdictClient, VerdictUrl,
};
