//! The command line as it is written: every value a string, so that `config` can report every mistake in it
//! at once. A new subcommand is one variant of [`Command`], one struct of flags, and one arm in `main`.
//!
//! Every flag can be given as `TORWART_` and its name in capitals instead (`--smtp-listen` as
//! `TORWART_SMTP_LISTEN`). Flags that take several values are repeated, or take them separated by commas.

mod parse;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::parse::parse;

/// An anti-spam gateway that stands in front of the mail servers you already have.
#[derive(Debug, Parser)]
#[command(name = "torwart", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole gateway in one process: takes mail, greylists, passes it on
    Run(Box<RunArgs>),
    /// Takes mail and passes it on; asks `torwart verdict` what to do with it
    Edge(Box<EdgeCommandArgs>),
    /// Answers the questions of `torwart edge` by policy, and remembers senders
    Verdict(Box<VerdictCommandArgs>),
    /// Turns MailGateway and MailDomain objects of a Kubernetes cluster into the policy of `torwart verdict`
    Operator(Box<OperatorArgs>),
    /// Reports every mistake in policy files; exit status 1 if there are any
    Check(CheckArgs),
    /// Tells what a mail would hear, and why: the same code as live, without sockets
    Explain(Box<ExplainArgs>),
    /// Prints the CustomResourceDefinitions of MailGateway and MailDomain
    Crd,
    /// Makes the Secrets that an installation in a Kubernetes cluster needs, or deletes them; the chart's Jobs run it
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Asks a running gateway whether it takes mail, and shows what it says; exit status 1 if it does not
    Probe(ProbeArgs),
    /// Plays the whole story with a built-in mail server and senders; needs nothing else
    Demo,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    /// Where greylisting remembers senders: `memory` (a restart forgets), `redb:PATH` (a file of its own), or Redis or
    /// Valkey (see `torwart help verdict`)
    #[arg(long, env = "TORWART_STORE", default_value = "memory")]
    pub(crate) store: Vec<String>,

    #[command(flatten)]
    pub(crate) edge: EdgeArgs,

    #[command(flatten)]
    pub(crate) admin: EdgeAdminArgs,

    #[command(flatten)]
    pub(crate) drain: DrainArgs,

    #[command(flatten)]
    pub(crate) store_flags: StoreArgs,

    #[command(flatten)]
    pub(crate) messages: MessageArgs,

    #[command(flatten)]
    pub(crate) dns: DnsArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct EdgeCommandArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    #[command(flatten)]
    pub(crate) edge: EdgeArgs,

    #[command(flatten)]
    pub(crate) admin: EdgeAdminArgs,

    #[command(flatten)]
    pub(crate) drain: DrainArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct VerdictCommandArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    /// Where greylisting remembers senders: `memory` or `redb:PATH` for a single process; for several
    /// `redis://HOST[:6379][/DB]`, `redis+sentinel://HOST[:26379],.../NAME[/DB]` or `redis+cluster://HOST[:6379],...`
    /// (`rediss` for TLS)
    #[arg(long, env = "TORWART_STORE")]
    pub(crate) store: Vec<String>,

    #[command(flatten)]
    pub(crate) grpc: GrpcArgs,

    #[command(flatten)]
    pub(crate) drain: DrainArgs,

    #[command(flatten)]
    pub(crate) store_flags: StoreArgs,

    #[command(flatten)]
    pub(crate) messages: MessageArgs,

    #[command(flatten)]
    pub(crate) dns: DnsArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct OperatorArgs {
    /// The operator's own namespace: its Lease, the published policy and the verdict pods are there, and objects in it
    /// are the administrator's. Without it the pod's, or torwart-system outside of a pod
    #[arg(long, value_name = "NS", env = "TORWART_NAMESPACE")]
    pub(crate) namespace: Vec<String>,

    /// The MailGateway to serve, and with it the MailDomains that name it
    #[arg(long, value_name = "NAME", env = "TORWART_GATEWAY", default_value = "default")]
    pub(crate) gateway: Vec<String>,

    /// The labels of verdict pods, which are asked at their container port named `grpc`
    #[arg(long, value_name = "LABELS", env = "TORWART_VERDICT_SELECTOR", default_value = VERDICT_SELECTOR)]
    pub(crate) verdict_selector: Vec<String>,

    #[command(flatten)]
    pub(crate) tls: AskTlsArgs,

    #[command(flatten)]
    pub(crate) admin: OperatorAdminArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Creates what is missing and renews certificates that have less than half a year left; keeps everything else
    Ensure(SecretsEnsureArgs),
    /// Deletes what `ensure` made, and the published policy and the Lease of the MailGateway's operator
    Delete(SecretsDeleteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct SecretsArgs {
    /// The installation's namespace. Without it the pod's, or torwart-system outside of a pod
    #[arg(long, value_name = "NS", env = "TORWART_NAMESPACE")]
    pub(crate) namespace: Vec<String>,

    /// What the names of its Secrets begin with, as in PREFIX-ca, PREFIX-edge-tls, PREFIX-store-key
    #[arg(long, value_name = "PREFIX", env = "TORWART_PREFIX", default_value = "torwart")]
    pub(crate) prefix: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SecretsEnsureArgs {
    #[command(flatten)]
    pub(crate) secrets: SecretsArgs,

    /// A name of the verdict's Service, for its certificate beside torwart-verdict; repeatable. Without it no certificate
    /// is made
    #[arg(long, value_name = "NAME", env = "TORWART_VERDICT_NAME", value_delimiter = ',')]
    pub(crate) verdict_name: Vec<String>,

    /// Leaves PREFIX-store-key to you
    #[arg(long, env = "TORWART_NO_STORE_KEY")]
    pub(crate) no_store_key: bool,

    /// Makes PREFIX-redis-auth too, the password of a Redis of one's own
    #[arg(long, env = "TORWART_REDIS")]
    pub(crate) redis: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SecretsDeleteArgs {
    #[command(flatten)]
    pub(crate) secrets: SecretsArgs,

    /// The MailGateway whose published policy goes
    #[arg(long, value_name = "NAME", env = "TORWART_GATEWAY", default_value = "default")]
    pub(crate) gateway: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Where it listens: HOST:PORT
    #[arg(long, value_name = "ADDR", env = "TORWART_SMTP", required = true, value_delimiter = ',')]
    pub(crate) smtp: Vec<String>,
}

/// As the chart and the manifests label them.
const VERDICT_SELECTOR: &str = "app.kubernetes.io/name=torwart,app.kubernetes.io/component=verdict";

#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    /// Policy files, or directories of *.yaml and *.yml files; watched while running. For `torwart verdict` also
    /// `kube:NAMESPACE/GATEWAY`: what the operator in that namespace publishes for that MailGateway
    #[arg(long, value_name = "PATH", env = "TORWART_POLICY", num_args = 1.., value_delimiter = ',')]
    pub(crate) policy: Vec<PathBuf>,

    /// A file of this process that keeps what was accepted for its next start: mail domains that have just left the
    /// policy, the last good form of what is broken; of a cluster's policy all, for a start without its API server. With
    /// `--store redb:PATH` and policy files it is `PATH.policy.json`
    #[arg(long, value_name = "FILE", env = "TORWART_POLICY_STATE")]
    pub(crate) policy_state: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Verdict")]
pub(crate) struct AskArgs {
    /// Where `torwart verdict` is: `http://HOST:PORT`, `https://HOST:PORT`, or `dns://NAME:PORT` (encrypted if
    /// --verdict-ca is given); repeatable. All addresses of a name are used, and looked up again every few seconds
    #[arg(long, value_name = "URL", env = "TORWART_VERDICT", num_args = 1.., value_delimiter = ',')]
    pub(crate) verdict: Vec<String>,

    #[command(flatten)]
    pub(crate) tls: AskTlsArgs,
}

/// Of whoever asks a verdict.
#[derive(Args, Debug)]
#[command(next_help_heading = "Verdict")]
pub(crate) struct AskTlsArgs {
    /// The authorities (PEM) that sign the verdict's certificate; without it, those that browsers trust. Read again when
    /// it changes, as the other two
    #[arg(long, value_name = "FILE", env = "TORWART_VERDICT_CA")]
    pub(crate) verdict_ca: Vec<PathBuf>,

    /// The certificate chain (PEM) that is shown to the verdict
    #[arg(long, value_name = "FILE", env = "TORWART_VERDICT_CERT")]
    pub(crate) verdict_cert: Vec<PathBuf>,

    /// The private key (PEM) of --verdict-cert
    #[arg(long, value_name = "FILE", env = "TORWART_VERDICT_KEY")]
    pub(crate) verdict_key: Vec<PathBuf>,

    /// The name that must be in the verdict's certificate
    #[arg(long, value_name = "NAME", env = "TORWART_VERDICT_SERVER_NAME", default_value = "torwart-verdict")]
    pub(crate) verdict_server_name: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Mail")]
pub(crate) struct EdgeArgs {
    /// Where to take mail; repeatable
    #[arg(long, value_name = "ADDR", env = "TORWART_SMTP_LISTEN", default_value = "127.0.0.1:2525")]
    #[arg(value_delimiter = ',')]
    pub(crate) smtp_listen: Vec<String>,

    /// Where to take mail from senders that never come by way of a load balancer: no PROXY header is asked for there,
    /// whatever --proxy-protocol-from says; repeatable
    #[arg(long, value_name = "ADDR", env = "TORWART_SMTP_LISTEN_DIRECT", value_delimiter = ',')]
    pub(crate) smtp_listen_direct: Vec<String>,

    /// The gateway's own name, in the banner and in Received; without it the MailGateway's (`run`) or the machine's
    /// (`edge`)
    #[arg(long, value_name = "NAME", env = "TORWART_HOSTNAME")]
    pub(crate) hostname: Vec<String>,

    /// A certificate chain (PEM) for STARTTLS; repeatable, each with its --tls-key; read again when it changes
    #[arg(long, value_name = "FILE", env = "TORWART_TLS_CERT", value_delimiter = ',')]
    pub(crate) tls_cert: Vec<PathBuf>,

    /// The private key (PEM) of the --tls-cert in the same place
    #[arg(long, value_name = "FILE", env = "TORWART_TLS_KEY", value_delimiter = ',')]
    pub(crate) tls_key: Vec<PathBuf>,

    /// Peers in these networks must send a PROXY header (v1 or v2) at --smtp-listen, others must not
    #[arg(long, value_name = "CIDR", env = "TORWART_PROXY_PROTOCOL_FROM", value_delimiter = ',')]
    pub(crate) proxy_protocol_from: Vec<String>,

    /// What to do with a message that holds a bare CR, a bare LF or NUL: `reject` it, or `normalize` it (a bare LF
    /// becomes CRLF, a bare CR or NUL a blank)
    #[arg(long, value_name = "WHAT", env = "TORWART_BARE_NEWLINE", default_value = "reject")]
    pub(crate) bare_newline: Vec<String>,

    /// The largest message that is taken from anyone, announced by SIZE
    #[arg(long, value_name = "SIZE", env = "TORWART_MAX_MESSAGE_SIZE", default_value = "50Mi")]
    pub(crate) max_message_size: Vec<String>,

    /// Connections at one time; more hear 421. Lowered where the limit of open files (ulimit -n) has no room for them
    #[arg(long, value_name = "N", env = "TORWART_MAX_CONNECTIONS", default_value = "20000")]
    pub(crate) max_connections: Vec<String>,

    /// Connections at one time from one client network (/24 of IPv4, /64 of IPv6); more hear 421
    #[arg(long, value_name = "N", env = "TORWART_MAX_CONNECTIONS_PER_NETWORK", default_value = "100")]
    pub(crate) max_connections_per_network: Vec<String>,

    /// Where messages wait that are checked before they go on: files without a name, gone with the process. Without it
    /// the system's folder for temporary files
    #[arg(long, value_name = "DIR", env = "TORWART_SPOOL_DIR")]
    pub(crate) spool_dir: Vec<PathBuf>,

    /// How much of one such message stays in memory
    #[arg(long, value_name = "SIZE", env = "TORWART_SPOOL_MEMORY", default_value = "256Ki")]
    pub(crate) spool_memory: Vec<String>,

    /// How much all of them may take, in memory and files; more hear 452
    #[arg(long, value_name = "SIZE", env = "TORWART_SPOOL_MAX", default_value = "2Gi")]
    pub(crate) spool_max: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Process")]
pub(crate) struct EdgeAdminArgs {
    /// Where to serve /metrics, /healthz, /readyz and /policy
    #[arg(long, value_name = "ADDR", env = "TORWART_ADMIN_LISTEN", default_value = "127.0.0.1:9900")]
    pub(crate) admin_listen: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Process")]
pub(crate) struct OperatorAdminArgs {
    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDR", env = "TORWART_ADMIN_LISTEN", default_value = "127.0.0.1:9903")]
    pub(crate) admin_listen: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Process")]
pub(crate) struct DrainArgs {
    /// How long connections are still accepted after SIGTERM, while load balancers take note
    #[arg(long, value_name = "TIME", env = "TORWART_DRAIN_DELAY", default_value = "5s")]
    pub(crate) drain_delay: Vec<String>,

    /// How long what is under way may go on after that
    #[arg(long, value_name = "TIME", env = "TORWART_DRAIN_TIMEOUT", default_value = "60s")]
    pub(crate) drain_timeout: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Service")]
pub(crate) struct GrpcArgs {
    /// Where to answer `torwart edge`
    #[arg(long, value_name = "ADDR", env = "TORWART_GRPC_LISTEN", default_value = "127.0.0.1:9901")]
    pub(crate) grpc_listen: Vec<String>,

    /// The certificate chain (PEM) of this service; without it, nothing is encrypted. Read again when it changes, as the
    /// other two
    #[arg(long, value_name = "FILE", env = "TORWART_GRPC_CERT")]
    pub(crate) grpc_cert: Vec<PathBuf>,

    /// The private key (PEM) of --grpc-cert
    #[arg(long, value_name = "FILE", env = "TORWART_GRPC_KEY")]
    pub(crate) grpc_key: Vec<PathBuf>,

    /// The authorities (PEM) that sign the certificates which clients must show; without it they need none
    #[arg(long, value_name = "FILE", env = "TORWART_GRPC_CLIENT_CA")]
    pub(crate) grpc_client_ca: Vec<PathBuf>,

    /// Only clients whose certificate has one of these DNS names may ask
    #[arg(long, value_name = "NAME", env = "TORWART_GRPC_CLIENT_NAME", value_delimiter = ',')]
    pub(crate) grpc_client_name: Vec<String>,

    /// Where to serve /metrics, /healthz, /readyz and /policy
    #[arg(long, value_name = "ADDR", env = "TORWART_ADMIN_LISTEN", default_value = "127.0.0.1:9902")]
    pub(crate) admin_listen: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    /// A file with the key that hides addresses in the store; repeatable: the first writes, all read
    #[arg(long, value_name = "FILE", env = "TORWART_STORE_KEY_FILE", value_delimiter = ',')]
    pub(crate) store_key_file: Vec<PathBuf>,

    /// How long one question to the store may take; then its `onStoreFailure` holds
    #[arg(long, value_name = "TIME", env = "TORWART_STORE_TIMEOUT", default_value = "100ms")]
    pub(crate) store_timeout: Vec<String>,

    /// The ACL user at Redis or Valkey; without it the one of the URL, or the default user
    #[arg(long, value_name = "NAME", env = "TORWART_STORE_USERNAME")]
    pub(crate) store_username: Vec<String>,

    /// A file with that user's password; read again at each connection
    #[arg(long, value_name = "FILE", env = "TORWART_STORE_PASSWORD_FILE")]
    pub(crate) store_password_file: Vec<PathBuf>,

    /// The authorities (PEM) that sign the certificates of a store with TLS; without it, those that browsers trust
    #[arg(long, value_name = "FILE", env = "TORWART_STORE_CA")]
    pub(crate) store_ca: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Messages")]
pub(crate) struct MessageArgs {
    /// How much memory messages may take that are being checked, all together; more hear 451
    #[arg(long, value_name = "SIZE", env = "TORWART_MESSAGE_MEMORY", default_value = "256Mi")]
    pub(crate) message_memory: Vec<String>,

    /// How much of the beginning of a message is looked at
    #[arg(long, value_name = "SIZE", env = "TORWART_INSPECT_LIMIT", default_value = "10Mi")]
    pub(crate) inspect_limit: Vec<String>,

    /// Every message is held and says itself what becomes of it, in a header field: for tests of the way that it takes
    #[arg(long, env = "TORWART_TEST_MESSAGE_CHECK", hide = true)]
    #[arg(num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) test_message_check: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Checks")]
pub(crate) struct DnsArgs {
    /// The DNS server that checks ask, as in `192.0.2.53` or `192.0.2.53:5353`; repeatable; without it the system's. DNS
    /// lists refuse what comes through public resolvers
    #[arg(long, value_name = "ADDR", env = "TORWART_DNS_SERVER", value_delimiter = ',')]
    pub(crate) dns_server: Vec<String>,

    /// Where the files are that a policy names: query keys of DNS lists; read again every few minutes
    #[arg(long, value_name = "DIR", env = "TORWART_SECRETS_DIR")]
    pub(crate) secrets_dir: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// How the lines on standard output look, mail log and all: `json`, or `text` for people
    #[arg(long, value_name = "FORMAT", env = "TORWART_LOG_FORMAT", default_value = "json")]
    pub(crate) log_format: Vec<String>,

    /// How much is logged about the process itself: `error`, `warn`, `info`, `debug` or `trace`
    #[arg(long, value_name = "LEVEL", env = "TORWART_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: Vec<String>,

    /// How mail addresses appear in the mail log: `full`, `domain` only, or as a `hash`
    #[arg(long, value_name = "HOW", env = "TORWART_LOG_ADDRESSES", default_value = "full")]
    pub(crate) log_addresses: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TraceArgs {
    /// Where traces go (OTLP over gRPC), as in `http://collector:4317`; `https` trusts the authorities that browsers
    /// trust. Without it none are made
    #[arg(long, value_name = "URL", env = "TORWART_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Vec<String>,

    /// The part of all sessions that is traced, from 0 to 1. The edge chooses them; a verdict goes by that
    #[arg(long, value_name = "PART", env = "TORWART_TRACE_SAMPLE_RATIO", default_value = "0.01")]
    pub(crate) trace_sample_ratio: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Policy files, or directories of *.yaml and *.yml files
    #[arg(long, value_name = "PATH", env = "TORWART_POLICY", num_args = 1.., value_delimiter = ',')]
    pub(crate) policy: Vec<PathBuf>,

    /// The DNS server that the gateway will ask; without it this machine's. It is not asked now
    #[arg(long, value_name = "ADDR", env = "TORWART_DNS_SERVER", value_delimiter = ',')]
    pub(crate) dns_server: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Policy files, or directories of *.yaml and *.yml files
    #[arg(long, value_name = "PATH", env = "TORWART_POLICY", num_args = 1.., value_delimiter = ',')]
    pub(crate) policy: Vec<PathBuf>,

    /// What a running gateway keeps for its next start (its own --policy-state, or `PATH.policy.json`): mail domains that
    /// have just left the policy, the last good form of what is broken. It is only read
    #[arg(long, value_name = "FILE", env = "TORWART_POLICY_STATE")]
    pub(crate) policy_state: Vec<PathBuf>,

    /// The client's address
    #[arg(long, value_name = "IP", env = "TORWART_CLIENT")]
    pub(crate) client: Vec<String>,

    /// What it says at EHLO
    #[arg(long, value_name = "NAME", env = "TORWART_HELO")]
    pub(crate) helo: Vec<String>,

    /// The sender at MAIL FROM; `<>` is the null sender
    #[arg(long, value_name = "ADDR", env = "TORWART_FROM")]
    pub(crate) from: Vec<String>,

    /// A recipient at RCPT TO; several are one mail
    #[arg(long, value_name = "ADDR", env = "TORWART_TO", num_args = 1.., value_delimiter = ',')]
    pub(crate) to: Vec<String>,

    /// The message as it was sent, for its size and for checks of messages
    #[arg(long, value_name = "FILE", env = "TORWART_MESSAGE")]
    pub(crate) message: Vec<PathBuf>,

    /// The session is under TLS
    #[arg(long, env = "TORWART_TLS")]
    pub(crate) tls: bool,

    /// The name that reverse DNS gives the client, instead of a look-up
    #[arg(long, value_name = "NAME", env = "TORWART_RDNS")]
    pub(crate) rdns: Vec<String>,

    #[command(flatten)]
    pub(crate) dns: DnsArgs,

    /// One JSON object instead of text; mistakes in policy files go to standard error then
    #[arg(long, env = "TORWART_JSON")]
    pub(crate) json: bool,
}
