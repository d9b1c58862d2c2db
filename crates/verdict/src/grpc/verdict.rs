//! VerdictService: questions from the wire to the engine, answers back.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use torwart_core::{
    ConnectionQuestion, Delivery, RecipientsQuestion, RouteDigest, Unavailable, UnavailableKind, Verdicts,
};
use torwart_proto::channel::not_done;
use torwart_proto::convert::Malformed;
use torwart_proto::v1::verdict_service_server::VerdictService;
use torwart_proto::{trace, v1};
use tracing::Instrument as _;

use super::metrics::{CallRefused, GrpcMetrics};
use crate::engine::Engine;

#[derive(Debug)]
pub(super) struct VerdictApi {
    engine: Arc<Engine>,
    metrics: Arc<GrpcMetrics>,
}

// === impl VerdictApi ===

impl VerdictApi {
    pub(super) fn new(engine: Arc<Engine>, metrics: Arc<GrpcMetrics>) -> Self {
        Self { engine, metrics }
    }

    /// What the wire says as a question. Whoever asks badly would be refused everywhere, so this is no "not done".
    fn read<W, Q: TryFrom<W, Error = Malformed>>(&self, wire: W) -> Result<Q, Status> {
        Q::try_from(wire).map_err(|malformed| self.invalid(malformed.to_string()))
    }

    fn invalid(&self, what: String) -> Status {
        self.metrics.call_refused(CallRefused::Invalid);
        Status::invalid_argument(what)
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

    /// No answer of this build says `hold_message`, so no edge has a reason to ask.
    async fn check_message(
        &self,
        _: Request<Streaming<v1::CheckMessageRequest>>,
    ) -> Result<Response<v1::CheckMessageResponse>, Status> {
        self.metrics.call_refused(CallRefused::Unimplemented);
        Err(Status::unimplemented("this verdict checks no messages: no answer of it says hold_message"))
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
