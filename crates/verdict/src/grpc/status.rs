//! StatusService: what the process knows of itself, in wire form.

use std::sync::Arc;

use tonic::{Request, Response};
use torwart_policy::publish::FORMATS_READ;
use torwart_proto::v1;
use torwart_proto::v1::status_service_server::StatusService;

use crate::engine::{Engine, OutcomesPage, PolicyStatus, Status, UpstreamOutcomes};

/// Answers from the engine's own table. This build asks no list, so it tells of none.
#[derive(Debug)]
pub(super) struct StatusApi {
    engine: Arc<Engine>,
}

/// The most entries of a page, and their number if none is asked for (status.proto). An entry has 600 bytes at most.
const LONGEST_PAGE: u32 = 1000;

// === impl StatusApi ===

impl StatusApi {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl StatusService for StatusApi {
    /// Answered before the first policy too.
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, tonic::Status> {
        Ok(Response::new(status(self.engine.status())))
    }

    async fn list_upstream_outcomes(
        &self,
        request: Request<v1::ListUpstreamOutcomesRequest>,
    ) -> Result<Response<v1::ListUpstreamOutcomesResponse>, tonic::Status> {
        let v1::ListUpstreamOutcomesRequest { page_size, page_token } = request.into_inner();
        let size = match page_size {
            0 => LONGEST_PAGE,
            size => size.min(LONGEST_PAGE),
        };
        Ok(Response::new(page(self.engine.upstream_outcomes(&page_token, size as usize))))
    }
}

fn status(status: Status) -> v1::GetStatusResponse {
    let Status { started_at, policy, suspects, last_suspect } = status;
    v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        policy: Some(policy_status(policy)),
        formats_read: FORMATS_READ.to_vec(),
        lists: Vec::new(),
        suspects: Some(v1::SuspectStatus { count: suspects, last_seen: last_suspect.unwrap_or(0) }),
        own_addresses_listed: Vec::new(),
    }
}

fn policy_status(policy: Option<PolicyStatus>) -> v1::PolicyStatus {
    match policy {
        None => v1::PolicyStatus { revision: String::new(), sequence: 0, loaded_at: 0 },
        Some(PolicyStatus { revision, sequence, loaded_at }) => {
            v1::PolicyStatus { revision: revision.0.as_ref().to_owned(), sequence, loaded_at }
        }
    }
}

fn page(page: OutcomesPage) -> v1::ListUpstreamOutcomesResponse {
    let OutcomesPage { outcomes, next_after } = page;
    v1::ListUpstreamOutcomesResponse {
        outcomes: outcomes.into_iter().map(outcomes_of_one).collect(),
        next_page_token: next_after.as_deref().unwrap_or_default().to_owned(),
    }
}

fn outcomes_of_one(outcomes: UpstreamOutcomes) -> v1::UpstreamOutcomes {
    let UpstreamOutcomes {
        object,
        reachable,
        since,
        last_reported,
        last_upstream,
        last_reply,
        delivered,
        deferred,
        rejected,
        unreachable,
        unknown,
    } = outcomes;
    v1::UpstreamOutcomes {
        object: object.as_ref().to_owned(),
        reachable,
        since,
        last_reported,
        last_upstream: last_upstream.as_deref().unwrap_or_default().to_owned(),
        last_reply: last_reply.as_deref().unwrap_or_default().to_owned(),
        delivered,
        deferred,
        rejected,
        unreachable,
        unknown,
    }
}
