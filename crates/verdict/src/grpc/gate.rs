//! What every call goes through: room for it, and a time limit.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use torwart_proto::channel::not_done;
use torwart_proto::v1::status_service_server::StatusServiceServer;
use torwart_proto::v1::verdict_service_server::VerdictServiceServer;
use tower::Service as _;

use super::metrics::{CallRefused, GrpcMetrics};
use super::status::StatusApi;
use super::verdict::VerdictApi;

/// Hands calls to their services.
///
/// A call of VerdictService needs one of a fixed number of places, taken before its message is read; without one it is
/// refused, marked as not done. Health, status and reflection are answered however much there is to do, a few at a time
/// for each connection: theirs may be streams without end.
/// A message has places and a time limit of its own: it lasts as long as its sender takes to bring it.
/// A call's time limit is its client's (`grpc-timeout`), or the server's if that is shorter or there is none. It counts
/// from the call's header, so that a message that never ends is given up too. The streams of health and reflection have
/// none but their connection's age.
#[derive(Clone)]
pub(super) struct Gate {
    verdict: VerdictServiceServer<VerdictApi>,
    others: Routes,
    places: Arc<Semaphore>,
    /// Of this connection.
    other_places: Arc<Semaphore>,
    message_places: Arc<Semaphore>,
    rooms: Rooms,
    metrics: Arc<GrpcMetrics>,
}

/// How many there may be at once, and how long each may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    pub(super) max_calls: usize,
    pub(super) call_limit: Duration,
    pub(super) max_messages: usize,
    pub(super) message_limit: Duration,
}

/// An answer that is under way keeps its place until all of it is told.
struct Placed {
    body: Body,
    _place: OwnedSemaphorePermit,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Calls of other services that one connection may have under way. A balancer watches two or three names; a person asks
/// for one thing at a time.
const OTHER_CALLS: usize = 32;

/// The path's end of the call that brings a message.
const CHECK_MESSAGE: &str = "/CheckMessage";

/// Digits of a `grpc-timeout` (the gRPC over HTTP/2 protocol, "TimeoutValue").
const TIMEOUT_DIGITS: usize = 8;

// === impl Gate ===

impl Gate {
    pub(super) fn new(
        verdict: VerdictServiceServer<VerdictApi>,
        others: Routes,
        rooms: Rooms,
        metrics: Arc<GrpcMetrics>,
    ) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let (places, message_places) = (places(rooms.max_calls), places(rooms.max_messages));
        let other_places = Arc::new(Semaphore::new(OTHER_CALLS));
        Self { verdict, others, places, other_places, message_places, rooms, metrics }
    }

    /// The same with room of its own for other services.
    pub(super) fn for_connection(&self) -> Self {
        Self { other_places: Arc::new(Semaphore::new(OTHER_CALLS)), ..self.clone() }
    }

    fn refused(&self) -> Answer {
        self.metrics.call_refused(CallRefused::Overload);
        let refusal = not_done(Status::resource_exhausted("too many calls are under way"));
        Box::pin(std::future::ready(Ok(refusal.into_http())))
    }

    fn ask_verdict(&self, request: Request<Incoming>) -> Answer {
        let (places, limit) = if request.uri().path().ends_with(CHECK_MESSAGE) {
            (&self.message_places, asked_limit(request.headers(), self.rooms.message_limit))
        } else {
            (&self.places, self.limit(request.headers()))
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return self.refused();
        };
        let metrics = Arc::clone(&self.metrics);
        let call = self.verdict.clone().call(request);
        Box::pin(async move {
            let _place = place;
            within(limit, call, &metrics).await
        })
    }

    fn ask_other(&self, request: Request<Incoming>) -> Answer {
        let Ok(place) = Arc::clone(&self.other_places).try_acquire_owned() else {
            return self.refused();
        };
        let limit = is_of::<StatusServiceServer<StatusApi>>(&request).then(|| self.limit(request.headers()));
        let metrics = Arc::clone(&self.metrics);
        let call = self.others.clone().call(request);
        Box::pin(async move {
            let answer = match limit {
                Some(limit) => within(limit, call, &metrics).await,
                None => call.await,
            };
            answer.map(|answer| answer.map(|body| Body::new(Placed { body, _place: place })))
        })
    }

    fn limit(&self, headers: &HeaderMap) -> Duration {
        asked_limit(headers, self.rooms.call_limit)
    }
}

impl hyper::service::Service<Request<Incoming>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        if is_of::<VerdictServiceServer<VerdictApi>>(&request) {
            self.ask_verdict(request)
        } else {
            self.ask_other(request)
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("places", &self.places.available_permits()).finish_non_exhaustive()
    }
}

// === impl Placed ===

impl HttpBody for Placed {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn within(
    limit: Duration,
    call: impl Future<Output = Result<Response<Body>, Infallible>>,
    metrics: &GrpcMetrics,
) -> Result<Response<Body>, Infallible> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        metrics.call_refused(CallRefused::Deadline);
        Ok(Status::deadline_exceeded("the call's time is over").into_http())
    })
}

fn is_of<S: NamedService>(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    path.strip_prefix('/')
        .and_then(|path| path.strip_prefix(S::NAME))
        .is_some_and(|rest| rest.starts_with('/'))
}

fn asked_limit(headers: &HeaderMap, most: Duration) -> Duration {
    timeout_of(headers).map_or(most, |asked| asked.min(most))
}

/// What `grpc-timeout` says; `None` if it is missing or can't be read.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_read_in_every_unit_and_nothing_else_is_one() {
        let second = Duration::from_secs(1);
        for (text, expected) in [
            ("2H", Some(7200 * second)),
            ("3M", Some(180 * second)),
            ("5S", Some(5 * second)),
            ("250m", Some(second / 4)),
            ("500000u", Some(second / 2)),
            ("1000000n", Some(second / 1000)),
            ("0S", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(3600 * 99_999_999))),
            ("100000000S", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("5 S", None),
            ("5\u{e9}", None),
        ] {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                http::HeaderValue::from_str(text).unwrap(),
            )]);
            assert_eq!(timeout_of(&headers), expected, "{text:?}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }
}
