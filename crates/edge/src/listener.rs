//! Accepting connections, and turning away those that are too many.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::connection;
use crate::edge::Shared;
use crate::log::{Record, SessionRecord};
use crate::metrics::SessionOutcome;

/// Connections that the kernel completes while we are busy; it cuts this down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// DESIGN's keepalive: a peer that vanished without a word is noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After a failed accept, mostly for want of file descriptors: the first rest, doubled up to the longest.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Whether connections may come by way of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Peers in `Settings::proxy_protocol_from` bring a PROXY header.
    Balanced,
    /// Nobody does.
    Direct,
}

/// Listens; with port 0 the address returned has the real one. Options that accepted sockets inherit are set here
/// once, so that accepting costs no further system call.
pub(crate) fn bind(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    set_stream_options(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    Ok((listener.local_addr()?, listener))
}

fn set_stream_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Accepts until the order to stop; then the listener is closed.
pub(crate) async fn accept_all(listener: TcpListener, door: Door, shared: Arc<Shared>) {
    let stop = shared.orders.stop_accepting.clone();
    let mut rest = FIRST_REST;
    loop {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok((stream, address)) => {
                rest = FIRST_REST;
                admit(stream, address, door, &shared);
            }
            Err(error) if is_the_client_s(&error) => {}
            Err(error) => {
                shared.metrics.accept_failures.inc();
                tracing::warn!(%error, "a connection could not be accepted");
                if stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                    return;
                }
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }
}

/// The connection was gone before it could be accepted: nothing to wait for.
fn is_the_client_s(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

fn admit(stream: TcpStream, address: SocketAddr, door: Door, shared: &Arc<Shared>) {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let proxied = door == Door::Balanced && shared.is_proxy(address);
    let Some(total) = shared.permits.total() else { return turn_away(stream, address, shared) };
    let network = if proxied { None } else { shared.permits.network(address.ip()) };
    if network.is_none() && !proxied {
        return turn_away(stream, address, shared);
    }
    let session = connection::serve(Arc::clone(shared), stream, address, (total, network));
    shared.tasks.spawn(session);
}

fn turn_away(stream: TcpStream, address: SocketAddr, shared: &Arc<Shared>) {
    shared.farewells.too_many(stream, &shared.tasks);
    shared.metrics.session(SessionOutcome::ConnectionLimit);
    let record = SessionRecord {
        id: shared.new_id(),
        time: SystemTime::now(),
        client: address,
        early_talker: false,
        outcome: SessionOutcome::ConnectionLimit,
        duration_ms: 0,
        trace_id: None,
    };
    shared.log.try_write(Record::Session(record));
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn an_accepted_socket_has_the_listener_s_options() {
        let (address, listener) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert!(!SockRef::from(&client).keepalive().unwrap(), "the client's own is as it was");
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let (address, _listener) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_connection_that_was_gone_is_no_reason_to_rest() {
        assert!(is_the_client_s(&io::ErrorKind::ConnectionAborted.into()));
        assert!(!is_the_client_s(&io::Error::from_raw_os_error(24)), "EMFILE");
    }
}
