//! Before the session: the PROXY header, the network's share of connections, and the verdict's word on the banner.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use torwart_core::{ListenerTls, Peer, Reply};
use torwart_smtp::{Session, TlsOffer};
use tracing::Span;

use super::{Connection, now, session_record};
use crate::edge::Shared;
use crate::metrics::SessionOutcome;
use crate::permits::NetworkPermit;
use crate::proxy::{self, Decoded, Source};
use crate::reply;
use crate::stream::Stream;
use crate::trace;

/// The connection with its banner ready to be written; `None` when it ended before, which is logged and counted here.
pub(super) async fn open<S>(
    shared: Arc<Shared>,
    stream: S,
    address: SocketAddr,
    network: Option<NetworkPermit>,
) -> Option<Connection<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let started = now();
    let span = shared.sampling.session();
    let mut stream = Stream::Plain(stream);
    let mut input = Vec::new();
    let (address, network) = match network {
        Some(permit) => (address, permit),
        None => match behind_proxy(&shared, &mut stream, &mut input, address).await {
            Ok(client) => client,
            Err((address, outcome)) => {
                tracing::debug!(%address, outcome = outcome.as_str(), "connection ended before its session");
                shared.metrics.session(outcome);
                let id = shared.new_id();
                trace::end_session(&span, id, None, outcome);
                let record = session_record(id, address, started, outcome, &span);
                shared.log.write(record).await;
                return None;
            }
        },
    };
    let peer = Arc::new(Peer { session: shared.new_id(), address, helo: None, tls: None });
    let session = greet(&shared, &peer, started, &span).await;
    let received = !input.is_empty();
    Some(Connection {
        shared,
        stream,
        session,
        input,
        transaction: None,
        peer,
        started,
        span,
        had_transaction: false,
        received,
        ending: false,
        _network: network,
    })
}

async fn greet(shared: &Shared, peer: &Arc<Peer>, started: Instant, span: &Span) -> Session {
    let greeting = shared.greetings.greet(&*shared.verdicts, peer, started, span).await;
    let mut session = Session::new(shared.config.load_full(), now());
    match (greeting.refuse, greeting.tls) {
        (Some((refusal, _)), _) => session.refuse_connection(&reply::to_smtp(&refusal, peer.session)),
        (None, ListenerTls::Require) if shared.tls.is_none() => {
            // 530 would bounce mail for a certificate that we lack
            tracing::error!(client = %peer.address, "the policy requires TLS of this client, and there is no certificate");
            let reply = Reply::new(421, (4, 3, 5), "TLS is required and not available right now");
            session.refuse_connection(&reply::to_smtp(&reply, peer.session));
        }
        (None, ListenerTls::Require) => session.greet(TlsOffer::Required),
        (None, ListenerTls::Offer) if shared.tls.is_some() => session.greet(TlsOffer::Offered),
        (None, ListenerTls::Offer | ListenerTls::Hide) => session.greet(TlsOffer::Unavailable),
    }
    session
}

/// Reads the PROXY header. What follows it stays in `input`.
async fn behind_proxy<S>(
    shared: &Arc<Shared>,
    stream: &mut Stream<S>,
    input: &mut Vec<u8>,
    proxy: SocketAddr,
) -> Result<(SocketAddr, NetworkPermit), (SocketAddr, SessionOutcome)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let source = match tokio::time::timeout(proxy::DEADLINE, read_header(stream, input)).await {
        Ok(Ok(source)) => source,
        Ok(Err(outcome)) => return Err((proxy, outcome)),
        Err(_) => return Err((proxy, SessionOutcome::ProxyFault)),
    };
    let address = match source {
        Source::Client(address) => address,
        Source::Itself => proxy,
    };
    match shared.permits.network(address.ip()) {
        Some(permit) => Ok((address, permit)),
        None => {
            shared.farewells.too_many(std::mem::replace(stream, Stream::Gone), &shared.tasks);
            Err((address, SessionOutcome::ConnectionLimit))
        }
    }
}

async fn read_header<S>(stream: &mut Stream<S>, input: &mut Vec<u8>) -> Result<Source, SessionOutcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match stream.read_command(input).await {
            Ok(0) if input.is_empty() => return Err(SessionOutcome::Probe),
            Ok(0) | Err(_) => return Err(SessionOutcome::ProxyFault),
            Ok(_) => {}
        }
        match proxy::decode(input) {
            Ok(Decoded::Incomplete) => {}
            Ok(Decoded::Complete { length, source }) => {
                input.drain(..length);
                return Ok(source);
            }
            Err(fault) => {
                tracing::debug!(%fault, "no session");
                return Err(SessionOutcome::ProxyFault);
            }
        }
    }
}
