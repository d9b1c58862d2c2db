//! A primary, its replica, and three Sentinels that watch over them.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::{Certificate, RedisServer, RedisServerBuilder, endpoint, eventually};

use super::{Access, begin, common_config};

/// As every example has it.
const NAME: &str = "mymaster";
const SENTINELS: usize = 3;
/// Milliseconds of silence after which a server counts as lost. Lower, and a busy machine has failovers of its own.
const DOWN_AFTER: u32 = 1000;
/// Milliseconds; the next failover of the same primary is tried after twice that.
const FAILOVER_TIMEOUT: u32 = 3000;

pub struct RedisSentinels {
    primary: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

#[derive(Clone, Debug)]
pub struct RedisSentinelsBuilder {
    server: RedisServerBuilder,
}

impl RedisSentinels {
    /// The primary's name for the Sentinels is `mymaster`.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> RedisSentinelsBuilder {
        RedisSentinelsBuilder { server: RedisServer::builder() }
    }

    /// `redis+sentinel://` with all Sentinels and this name of the primary; never with a password.
    pub fn url(&self, name: &str) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|one| one.address.to_string()).collect();
        format!("{}+sentinel://{}/{name}", self.primary.access.scheme(), addresses.join(","))
    }

    /// The one that was primary at the start.
    pub fn primary(&mut self) -> &mut RedisServer {
        &mut self.primary
    }

    /// The one that was its replica at the start.
    pub fn replica(&mut self) -> &mut RedisServer {
        &mut self.replica
    }

    pub fn sentinels(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// Whom the Sentinels call the primary now: `None` while they disagree or one does not answer.
    pub fn current(&self) -> Option<SocketAddr> {
        let mut found = self.sentinels.iter().map(|sentinel| {
            let text = sentinel.try_cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).text;
            let mut lines = text.lines();
            let address = format!("{}:{}", lines.next()?, lines.next()?);
            address.parse::<SocketAddr>().ok()
        });
        let first = found.next()??;
        found.all(|other| other == Some(first)).then_some(first)
    }

    /// Waits until every Sentinel calls this one the primary.
    #[track_caller]
    pub fn wait_current(&self, address: SocketAddr) {
        eventually("the Sentinels have agreed", || self.current() == Some(address));
    }
}

// === impl RedisSentinelsBuilder ===

impl RedisSentinelsBuilder {
    /// A line of redis.conf of primary and replica.
    pub fn config(mut self, line: &str) -> Self {
        self.server = self.server.config(line);
        self
    }

    /// Of primary and replica; the Sentinels have none.
    pub fn password(mut self, password: &str) -> Self {
        self.server = self.server.password(password);
        self
    }

    /// Everywhere, Sentinels too.
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.server = self.server.tls(certificate);
        self
    }

    #[track_caller]
    pub fn start(self) -> RedisSentinels {
        let primary = self.server.clone().start();
        let replica = self.server.replica_of(&primary).start();
        let sentinels: Vec<RedisServer> = (0..SENTINELS).map(|_| launch(&primary)).collect();
        for sentinel in &sentinels {
            sentinel.wait_ready();
        }
        for sentinel in &sentinels {
            let everyone = format!("status=ok,address={},slaves=1,sentinels={SENTINELS}", primary.address);
            eventually("the Sentinels know each other", || {
                sentinel.cli(&["INFO", "sentinel"]).contains(&everyone)
                    && sentinel.cli(&["SENTINEL", "CKQUORUM", NAME]).starts_with("OK")
            });
        }
        RedisSentinels { primary, replica, sentinels }
    }
}

fn launch(primary: &RedisServer) -> RedisServer {
    let folder = tempfile::tempdir().unwrap();
    let address = endpoint();
    let access = Access { password: None, tls: primary.access.tls.clone() };
    let mut text = common_config(folder.path(), address, &access);
    let quorum = SENTINELS / 2 + 1;
    let (ip, port) = (primary.address.ip(), primary.address.port());
    let _ = writeln!(
        text,
        "sentinel announce-ip {}\nsentinel announce-port {}\n\
         sentinel monitor {NAME} {ip} {port} {quorum}\n\
         sentinel down-after-milliseconds {NAME} {DOWN_AFTER}\n\
         sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT}",
        address.ip(),
        address.port()
    );
    if let Some(password) = &primary.access.password {
        let _ = writeln!(text, "sentinel auth-pass {NAME} {password}");
    }
    begin(folder, address, access, &text, true)
}
