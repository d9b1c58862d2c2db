//! Before the session: the PROXY header, the network's share of connections, and the verdict's word on the banner.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use torwart_core::{Keyword, ListenerTls, Peer, Reply};
use torwart_smtp::{Session, TlsOffer};

use super::{Connection, now, session_record};
use crate::edge::Shared;
use crate::greeting::Greeting;
use crate::metrics::SessionOutcome;
use crate::permits::NetworkPermit;
use crate::proxy::{self, Decoded, Source};
use crate::reply;
use crate::stream::Stream;
use crate::trace;

/// However long the verdict says: clients wait 5 min for the banner (RFC 5321 section 4.5.3.2.1), and some less.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

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
                let record = session_record(id, address, false, started, outcome, &span);
                shared.log.write(record).await;
                return None;
            }
        },
    };
    let session = shared.new_id();
    // what came along with the PROXY header came before our banner as well
    let early_talker = !input.is_empty();
    let mut peer = Arc::new(Peer { session, address, helo: None, tls: None, early_talker });
    let greeting = shared.greetings.greet(&*shared.verdicts, &peer, started, &span).await;
    if greeting.refuse.is_none() && speaks_early(&shared, &mut stream, &mut input, greeting.delay).await {
        Arc::make_mut(&mut peer).early_talker = true;
    }
    let session = greet(&shared, &peer, greeting);
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

/// Whether the client speaks before it is greeted (RFC 5321 section 4.3.1): within `delay`, or has done so already.
/// What it said waits in `input`.
async fn speaks_early<S>(
    shared: &Shared,
    stream: &mut Stream<S>,
    input: &mut Vec<u8>,
    delay: Duration,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reading = pin!(stream.read_command(input));
    // without a delay only what is there already counts
    let at_once = poll_fn(|context| match reading.as_mut().poll(context) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending => Poll::Ready(None),
    });
    let read = match at_once.await {
        None if !delay.is_zero() => {
            let waiting = tokio::time::timeout(delay.min(LONGEST_DELAY), reading);
            shared.orders.end_idle.run_until_cancelled(waiting).await.and_then(Result::ok)
        }
        read => read,
    };
    // an end or an error is there for the session to find
    matches!(read, Some(Ok(1..)))
}

fn greet(shared: &Shared, peer: &Peer, greeting: Greeting) -> Session {
    let mut session = Session::new(shared.config.load_full(), now());
    greeting.hidden.iter().for_each(|keyword| session.hide(to_smtp(*keyword)));
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

fn to_smtp(keyword: Keyword) -> torwart_smtp::Keyword {
    match keyword {
        Keyword::Pipelining => torwart_smtp::Keyword::Pipelining,
        Keyword::Size => torwart_smtp::Keyword::Size,
        Keyword::EightBitMime => torwart_smtp::Keyword::EightBitMime,
        Keyword::EnhancedStatusCodes => torwart_smtp::Keyword::EnhancedStatusCodes,
        Keyword::SmtpUtf8 => torwart_smtp::Keyword::SmtpUtf8,
        Keyword::Chunking => torwart_smtp::Keyword::Chunking,
    }
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
