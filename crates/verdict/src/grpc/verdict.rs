//! VerdictService: questions from the wire to the engine, answers back.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status, Streaming};
use torwart_core::{
    ConnectionQuestion, Delivery, RecipientsQuestion, RouteDigest, Unavailable, UnavailableKind, Verdicts,
};
use torwart_proto::channel::not_done;
use torwart_proto::convert::{Malformed, to_message_begin};
use torwart_proto::v1::verdict_service_server::VerdictService;
use torwart_proto::{trace, v1};
use tracing::Instrument as _;

use super::incoming::{Fault, Incoming};
use super::metrics::{CallRefused, GrpcMetrics};
use crate::engine::Engine;

#[derive(Debug)]
pub(super) struct VerdictApi {
    engine: Arc<Engine>,
    metrics: Arc<GrpcMetrics>,
    limits: MessageTimes,
}

/// How long what of a message may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageTimes {
    /// Between two parts.
    pub(super) silence: Duration,
    /// From its end to the answer.
    pub(super) answer: Duration,
}

// === impl VerdictApi ===

impl VerdictApi {
    pub(super) fn new(engine: Arc<Engine>, metrics: Arc<GrpcMetrics>, limits: MessageTimes) -> Self {
        Self { engine, metrics, limits }
    }

    /// What the wire says as a question. Whoever asks badly would be refused everywhere, so this is no "not done".
    fn read<W, Q: TryFrom<W, Error = Malformed>>(&self, wire: W) -> Result<Q, Status> {
        Q::try_from(wire).map_err(|malformed| self.invalid(malformed.to_string()))
    }

    fn invalid(&self, what: String) -> Status {
        self.metrics.call_refused(CallRefused::Invalid);
        Status::invalid_argument(what)
    }

    fn overdue(&self, what: &str) -> Status {
        self.metrics.call_refused(CallRefused::Deadline);
        Status::deadline_exceeded(what)
    }

    fn unavailable(&self, unavailable: &Unavailable) -> Status {
        let detail = unavailable.detail.as_ref();
        match unavailable.kind {
            UnavailableKind::NoPolicy => {
                self.metrics.call_refused(CallRefused::NoPolicy);
                not_done(Status::unavailable(detail))
            }
            UnavailableKind::UnknownRoute => {
                self.metrics.call_refused(CallRefused::UnknownRoute);
                Status::not_found(detail)
            }
            UnavailableKind::Overloaded => {
                self.metrics.call_refused(CallRefused::Overload);
                not_done(Status::resource_exhausted(detail))
            }
            UnavailableKind::Unanswered => Status::unavailable(detail),
        }
    }
}

#[tonic::async_trait]
impl VerdictService for VerdictApi {
    async fn check_connection(
        &self,
        request: Request<v1::CheckConnectionRequest>,
    ) -> Result<Response<v1::CheckConnectionResponse>, Status> {
        let span = trace::remote_child(request.metadata(), "verdict check_connection");
        let question: ConnectionQuestion = self.read(request.into_inner())?;
        match self.engine.check_connection(question).instrument(span).await {
            Ok(answer) => Ok(Response::new((&answer).into())),
            Err(unavailable) => Err(self.unavailable(&unavailable)),
        }
    }

    async fn check_recipients(
        &self,
        request: Request<v1::CheckRecipientsRequest>,
    ) -> Result<Response<v1::CheckRecipientsResponse>, Status> {
        let span = trace::remote_child(request.metadata(), "verdict check_recipients");
        let question: RecipientsQuestion = self.read(request.into_inner())?;
        match self.engine.check_recipients(question).instrument(span).await {
            Ok(answer) => Ok(Response::new((&answer).into())),
            Err(unavailable) => Err(self.unavailable(&unavailable)),
        }
    }

    async fn check_message(
        &self,
        request: Request<Streaming<v1::CheckMessageRequest>>,
    ) -> Result<Response<v1::CheckMessageResponse>, Status> {
        let span = trace::remote_child(request.metadata(), "verdict check_message");
        let mut parts = request.into_inner();
        let first = match tokio::time::timeout(self.limits.silence, parts.message()).await {
            Ok(first) => first?.unwrap_or_default(),
            Err(_) => return Err(self.overdue("the message did not begin in time")),
        };
        let question = to_message_begin(first).map_err(|malformed| self.invalid(malformed.to_string()))?;
        let (body, outcome) = Incoming::new(parts, self.limits.silence);
        let asked = self.engine.check_message(question, Box::new(body)).instrument(span);
        let answer = tokio::select! {
            answer = asked => answer,
            () = outcome.overdue(self.limits.answer) => return Err(self.overdue("the message took too long")),
        };
        match (answer, outcome.fault()) {
            (Ok(answer), _) => Ok(Response::new((&answer).into())),
            (Err(_), Some(Fault::Broken(status))) => Err(status),
            (Err(_), Some(Fault::Malformed(what))) => Err(self.invalid(what)),
            (Err(_), Some(Fault::Silent)) => Err(self.overdue("the message did not go on")),
            (Err(unavailable), None) => Err(self.unavailable(&unavailable)),
        }
    }

    async fn report_outcome(
        &self,
        request: Request<v1::ReportOutcomeRequest>,
    ) -> Result<Response<v1::ReportOutcomeResponse>, Status> {
        let span = trace::remote_child(request.metadata(), "verdict report_outcome");
        let delivery: Delivery = self.read(request.into_inner())?;
        // Without a policy nothing could be learnt from it; another replica can.
        self.engine.policy_in_force().map_err(|unavailable| self.unavailable(&unavailable))?;
        self.engine.report_delivery(delivery).instrument(span).await;
        Ok(Response::new(v1::ReportOutcomeResponse {}))
    }

    async fn get_route(
        &self,
        request: Request<v1::GetRouteRequest>,
    ) -> Result<Response<v1::GetRouteResponse>, Status> {
        let span = trace::remote_child(request.metadata(), "verdict get_route");
        let v1::GetRouteRequest { digest } = request.into_inner();
        let digest = <[u8; 16]>::try_from(digest.as_slice())
            .map_err(|_| self.invalid(format!("digest: has {} bytes instead of 16", digest.len())))?;
        match self.engine.route(RouteDigest(digest)).instrument(span).await {
            Ok(route) => Ok(Response::new(v1::GetRouteResponse { route: Some((&*route).into()) })),
            Err(unavailable) => Err(self.unavailable(&unavailable)),
        }
    }
}
