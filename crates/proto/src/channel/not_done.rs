//! May the same be asked again elsewhere? Only if the server surely did not act: a first try that is counted twice
//! would shorten nobody's greylisting, but an outcome that is counted twice would give trust away.

use std::error::Error;

use tonic::metadata::MetadataValue;
use tonic::{ConnectError, Status};

/// The trailer with which a server says that it did nothing.
pub const NOT_DONE: &str = "torwart-not-done";

/// Marks `status`: nothing was done, another replica may be asked the same.
#[must_use]
pub fn not_done(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_DONE, MetadataValue::from_static("1"));
    status
}

/// True if the server surely did nothing: it said so ([`NOT_DONE`]), there was no connection on which it spoke, the
/// request never left, or HTTP/2 says that it was not processed (RFC 9113 sections 6.8 and 8.7: GOAWAY,
/// REFUSED_STREAM).
///
/// False for all else, also for a connection that broke while the call was under way.
pub fn is_not_done(status: &Status) -> bool {
    if status.metadata().get(NOT_DONE).is_some_and(|value| value.as_bytes() == b"1") {
        return true;
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        // hyper cancels only what it has not given to the connection yet.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // h2 gives a GOAWAY from the other side only to streams beyond the last that it names.
            return error.is_remote()
                && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        cause = error.source();
    }
    false
}
