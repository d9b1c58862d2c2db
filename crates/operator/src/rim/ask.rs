//! Asks verdict pods what they run and how upstreams answer (StatusService), each by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use tonic::transport::Channel;
use torwart_proto::channel::{ChannelSettings, connect};
use torwart_proto::tls::ClientTls;
use torwart_proto::v1;
use torwart_proto::v1::status_service_client::StatusServiceClient;

use super::objects::SeenPod;
use crate::values::{PodReport, Pods};

/// For one pod's status, and for all its outcomes.
const LIMIT: Duration = Duration::from_secs(3);

/// Pods that are asked at one time.
const AT_ONCE: usize = 32;

/// Pages of 1,000 MailDomains each, of one pod.
const MOST_PAGES: usize = 100;

/// Keeps a connection to each pod.
pub(super) struct Asker {
    tls: Option<Arc<ClientTls>>,
    channels: BTreeMap<SocketAddr, Channel>,
    /// The last answers, by pod: outcomes are asked for less often than the rest.
    last: Answers,
}

type Answers = BTreeMap<String, Result<Arc<PodReport>, String>>;

/// Whether nothing is new. An answer that says what the one before said is that one.
pub(super) fn is_same(a: &Answers, b: &Answers) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|((a_name, a), (b_name, b))| {
            a_name == b_name
                && match (a, b) {
                    (Ok(a), Ok(b)) => Arc::ptr_eq(a, b),
                    (Err(a), Err(b)) => a == b,
                    _ => false,
                }
        })
}

// === impl Asker ===

impl Asker {
    pub(super) fn new(tls: Option<Arc<ClientTls>>) -> Self {
        Self { tls, channels: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// Asks all of them, side by side; for `outcomes` only if that is said. `now` is in Unix seconds.
    pub(super) async fn ask(&mut self, pods: BTreeMap<String, SeenPod>, outcomes: bool, now: i64) -> Pods {
        let addresses = pods.values().filter_map(|pod| pod.address.clone().ok()).map(SocketAddr::from);
        let addresses: Vec<SocketAddr> = addresses.collect();
        self.channels.retain(|address, _| addresses.contains(address));
        let mut asked = Vec::with_capacity(pods.len());
        for (name, pod) in pods {
            let channel = pod.address.map(|address| self.channel(SocketAddr::from(address)));
            let known = self.last.get(&name).and_then(|last| last.clone().ok());
            asked.push((name, channel, known));
        }
        let ready: BTreeMap<_, _> = stream::iter(asked)
            .map(|(name, channel, known)| async {
                let report = match channel {
                    Ok(channel) => ask(channel, known, outcomes).await,
                    Err(why) => Err(why),
                };
                (name, report)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        self.last.clone_from(&ready);
        Pods { ready, asked_at: now }
    }

    fn channel(&mut self, address: SocketAddr) -> Channel {
        let tls = &self.tls;
        let new = || connect(address, tls.clone(), &ChannelSettings::default());
        self.channels.entry(address).or_insert_with(new).clone()
    }
}

/// `known` is the answer before, whose outcomes are good enough unless those are `wanted` too.
async fn ask(
    channel: Channel,
    known: Option<Arc<PodReport>>,
    wanted: bool,
) -> Result<Arc<PodReport>, String> {
    let mut client = StatusServiceClient::new(channel);
    let status = match timeout(LIMIT, client.get_status(v1::GetStatusRequest {})).await {
        Ok(Ok(status)) => status.into_inner(),
        Ok(Err(status)) => return Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => return Err(format!("no answer within {} s", LIMIT.as_secs())),
    };
    let before = known.as_ref().map(|known| known.outcomes.clone());
    let outcomes = match before {
        Some(before) if !wanted => before,
        // A pod that says what it runs is well, however long its list is.
        before => match timeout(LIMIT, outcomes(&mut client)).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) | Err(_) => before.unwrap_or_default(),
        },
    };
    Ok(match known {
        Some(known) if known.status == status && known.outcomes == outcomes => known,
        _ => Arc::new(PodReport { status, outcomes }),
    })
}

async fn outcomes(
    client: &mut StatusServiceClient<Channel>,
) -> Result<BTreeMap<String, v1::UpstreamOutcomes>, tonic::Status> {
    let mut outcomes = BTreeMap::new();
    let mut page_token = String::new();
    for _ in 0..MOST_PAGES {
        let request = v1::ListUpstreamOutcomesRequest { page_size: 0, page_token };
        let page = client.list_upstream_outcomes(request).await?.into_inner();
        outcomes.extend(page.outcomes.into_iter().map(|entry| (entry.object.clone(), entry)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(outcomes)
}
