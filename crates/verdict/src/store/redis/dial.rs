//! One connection to one server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisFuture, TlsCertificates, Value,
    from_redis_value,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use torwart_proto::names::{Remember, SystemNames};

use crate::store::StoreError;

use super::failure::{at_connect, classify};
use super::options::{Credentials, RedisOptions};
use super::url::{RedisUrl, Server};

/// All of a connection: name, TCP, TLS, greeting. One lost SYN (1 s) fits; more, and the next attempt is better.
pub(super) const DIAL_LIMIT: Duration = Duration::from_millis(1500);

/// How many calls may wait to be written. Each waits for its reply as well, and those are bounded elsewhere
/// (`node::MAX_IN_FLIGHT`); so nothing ever waits for room here.
const WRITE_QUEUE: usize = 1024;

/// Of an idle connection: notices within two minutes that the server's machine is gone.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Bytes that are not acknowledged for so long mean that the connection is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// What it takes to connect.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) url: RedisUrl,
    pub(super) options: RedisOptions,
    names: Arc<SystemNames>,
    /// That the server may evict records has been said.
    eviction_told: AtomicBool,
}

/// The servers' names, those that Sentinels and Cluster nodes tell included.
struct Names(Arc<SystemNames>);

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica,
    /// It may not be asked: an access control list without `ROLE`.
    Unknown,
}

/// Read from files just now.
struct Secrets {
    credentials: Credentials,
    certificates: Option<TlsCertificates>,
}

// === impl Access ===

impl Access {
    /// Fails for files that cannot be read or are no good.
    pub(super) fn new(url: RedisUrl, options: &RedisOptions) -> Result<Self, StoreError> {
        let names = Arc::new(SystemNames::new(Remember::Nothing, DIAL_LIMIT));
        let access = Self { url, options: options.clone(), names, eviction_told: AtomicBool::new(false) };
        let credentials = access.options.credentials(&access.url).map(drop);
        let certificates = access.options.certificates(&access.url).map(drop);
        credentials.and(certificates).map_err(|error| StoreError::Unusable(error.into()))?;
        Ok(access)
    }

    fn read_secrets(&self) -> Result<Secrets, StoreError> {
        let credentials = self.options.credentials(&self.url);
        let certificates = self.options.certificates(&self.url);
        Ok(Secrets {
            credentials: credentials.map_err(|error| StoreError::Auth(error.into()))?,
            certificates: certificates.map_err(|error| StoreError::Io(error.into()))?,
        })
    }

    async fn secrets(self: &Arc<Self>) -> Result<Secrets, StoreError> {
        let access = Arc::clone(self);
        tokio::task::spawn_blocking(move || access.read_secrets()).await.map_err(|_| StoreError::Closed)?
    }

    /// A connection to a server that keeps records, is not loading, and answers. `lost` is told when it ends.
    pub(super) async fn connect(
        self: &Arc<Self>,
        server: &Server,
        lost: Arc<Notify>,
    ) -> Result<(MultiplexedConnection, Role), StoreError> {
        let connecting = async {
            let Secrets { credentials, certificates } = self.secrets().await?;
            let mut connection =
                open(server, &self.names, &credentials, certificates.as_ref(), self.url.database(), lost)
                    .await
                    .map_err(|error| at_connect(server, &error))?;
            let (role, evicting) = check(&mut connection, server).await?;
            if let Some(policy) = evicting
                && !self.eviction_told.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(
                    %server,
                    maxmemory_policy = policy,
                    "the greylist store forgets records when its memory is full, and their senders wait once more: \
                     set maxmemory-policy noeviction"
                );
            }
            Ok((connection, role))
        };
        within_limit(server, connecting).await
    }

    /// Asks a Sentinel where the primary is. Sentinels often have no password although the servers have one: it is
    /// shown to one that asks for it.
    pub(super) async fn ask_sentinel(
        self: &Arc<Self>,
        sentinel: &Server,
        name: &str,
    ) -> Result<Server, StoreError> {
        let asking = async {
            let Secrets { credentials, certificates } = self.secrets().await?;
            let nobody = Credentials::default();
            let mut answer = ask(sentinel, &self.names, name, &nobody, certificates.as_ref()).await;
            if let Err(error) = &answer
                && matches!(classify(error), StoreError::Auth(_))
                && credentials.has_password()
            {
                answer = ask(sentinel, &self.names, name, &credentials, certificates.as_ref()).await;
            }
            answer.map_err(|error| at_connect(sentinel, &error))
        };
        let (host, port) = within_limit(sentinel, asking).await?.ok_or_else(|| {
            StoreError::Disconnected(format!("{sentinel}: no Sentinel's primary is called {name}").into())
        })?;
        Ok(Server { host: host.into(), port })
    }
}

// === impl Names ===

impl AsyncDNSResolver for Names {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = self.0.sockets(host, port).await?;
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send + 'a>)
        })
    }
}

async fn within_limit<T>(
    server: &Server,
    connecting: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let limited = timeout(DIAL_LIMIT, Box::pin(connecting)).await;
    limited.unwrap_or_else(|_| {
        let text = format!("{server}: does not answer within {} ms", DIAL_LIMIT.as_millis());
        Err(StoreError::Disconnected(text.into()))
    })
}

async fn ask(
    sentinel: &Server,
    names: &Arc<SystemNames>,
    name: &str,
    credentials: &Credentials,
    certificates: Option<&TlsCertificates>,
) -> Result<Option<(String, u16)>, RedisError> {
    let mut connection = open(sentinel, names, credentials, certificates, 0, Arc::default()).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    Ok(from_redis_value(connection.send_packed_command(&command).await?.extract_error()?)?)
}

/// Connects and greets.
async fn open(
    server: &Server,
    names: &Arc<SystemNames>,
    credentials: &Credentials,
    certificates: Option<&TlsCertificates>,
    database: u32,
    lost: Arc<Notify>,
) -> Result<MultiplexedConnection, RedisError> {
    let host = server.host.to_string();
    let address = match certificates {
        None => ConnectionAddr::Tcp(host, server.port),
        Some(_) => ConnectionAddr::TcpTls { host, port: server.port, insecure: false, tls_params: None },
    };
    let mut greeting = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(i64::from(database));
    if let Some(password) = &credentials.password {
        greeting = greeting.set_password(password);
        if let Some(username) = &credentials.username {
            greeting = greeting.set_username(username);
        }
    }
    let keepalive =
        redis::io::tcp::socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 6);
    let tcp =
        TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(UNACKNOWLEDGED);
    let info: ConnectionInfo =
        address.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(greeting);
    let client = match certificates {
        None => Client::open(info)?,
        Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
    };
    // The time limits are the callers'.
    let config = AsyncConnectionConfig::new()
        .set_dns_resolver(Names(Arc::clone(names)))
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WRITE_QUEUE)
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                lost.notify_one();
            }
            Ok::<(), ()>(())
        });
    Box::pin(client.get_multiplexed_async_connection_with_config(&config)).await
}

/// What the server says of itself, if it answers and is not loading; and how it evicts, if it does.
async fn check(
    connection: &mut MultiplexedConnection,
    server: &Server,
) -> Result<(Role, Option<String>), StoreError> {
    let mut questions = redis::pipe();
    questions.cmd("PING").cmd("ROLE").cmd("INFO").arg("memory").cmd("CLIENT").arg("SETNAME").arg("torwart");
    let answers = connection.send_packed_commands(&questions, 0, questions.len());
    let mut answers = answers.await.map_err(|error| at_connect(server, &error))?.into_iter();
    let ping = answers.next().unwrap_or_default().extract_error();
    let role = answers.next().unwrap_or_default().extract_error();
    let memory = answers.next().unwrap_or_default().extract_error();
    ping.map_err(|error| at_connect(server, &error))?;
    let evicting = memory.ok().and_then(|text| evicting_policy(&text));
    match role {
        Ok(role) => Ok((role_of(&role), evicting)),
        Err(error) => match classify(&error) {
            StoreError::Auth(_) | StoreError::Unusable(_) => Ok((Role::Unknown, evicting)),
            _ => Err(at_connect(server, &error)),
        },
    }
}

fn role_of(answer: &Value) -> Role {
    let Value::Array(parts) = answer else { return Role::Unknown };
    match parts.first().map(text_of).as_deref() {
        Some("master") => Role::Primary,
        Some("slave") => Role::Replica,
        _ => Role::Unknown,
    }
}

fn text_of(value: &Value) -> String {
    from_redis_value(value.clone()).unwrap_or_default()
}

/// The policy, if there is a limit of memory and the policy is to forget.
fn evicting_policy(info: &Value) -> Option<String> {
    let text = text_of(info);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let limit: u64 = field("maxmemory")?.trim().parse().ok()?;
    let policy = field("maxmemory_policy")?.trim();
    (limit > 0 && policy != "noeviction").then(|| policy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_policy_that_can_evict_is_told() {
        let table = [
            ("maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n", Some("allkeys-lru")),
            ("maxmemory:1000\r\nmaxmemory_policy:volatile-ttl\r\n", Some("volatile-ttl")),
            ("maxmemory:1000\r\nmaxmemory_policy:noeviction\r\n", None),
            ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", None),
            ("# Memory\r\nused_memory:7\r\n", None),
            ("", None),
        ];
        for (text, policy) in table {
            let info = Value::BulkString(text.into());
            assert_eq!(evicting_policy(&info).as_deref(), policy, "{text}");
        }
    }

    #[test]
    fn a_role_is_the_first_word() {
        let mk = |word: &str| Value::Array(vec![Value::BulkString(word.into()), Value::Int(1)]);
        assert_eq!(role_of(&mk("master")), Role::Primary);
        assert_eq!(role_of(&mk("slave")), Role::Replica);
        assert_eq!(role_of(&mk("sentinel")), Role::Unknown);
        assert_eq!(role_of(&Value::Nil), Role::Unknown);
    }

    #[tokio::test]
    async fn a_server_is_found_by_its_name_as_the_system_knows_it_and_an_error_names_it() {
        let names = Names(Arc::new(SystemNames::new(Remember::Nothing, DIAL_LIMIT)));
        let found: Vec<SocketAddr> = names.resolve("localhost", 6379).await.unwrap().collect();
        assert!(found.contains(&SocketAddr::from(([127, 0, 0, 1], 6379))), "{found:?}");
        let Err(error) = names.resolve("a..b", 6379).await else { panic!("no such name can be") };
        assert!(error.to_string().contains("a..b: "), "{error}");
    }
}
