//! Addresses that no other test uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Where a server of this test listens.
pub type Endpoint = SocketAddr;

/// Below the kernel's range for outgoing connections, so that none of those can sit on it.
const FIRST_PORT: u16 = 10_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);

/// This process's own loopback address, made from its id (at most 22 bits): 127.64.0.0 and up.
pub fn address() -> IpAddr {
    let id = std::process::id() & 0x3f_ffff;
    let [_, high, middle, low] = id.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 64 | high, middle, low))
}

/// A fresh address and port: unique among the test processes and within this one.
pub fn endpoint() -> Endpoint {
    SocketAddr::new(address(), NEXT_PORT.fetch_add(1, Ordering::Relaxed))
}

/// The `n`th loopback address that a client may come from; each is in a /24 of its own.
pub fn client_address(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 1 + high % 63, low, 1))
}

/// Waits until something accepts connections there, for servers that do not say so.
#[track_caller]
pub fn wait_listening(endpoint: Endpoint) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&endpoint, PATIENCE).is_err() {
        assert!(Instant::now() < end, "nothing listens at {endpoint}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
