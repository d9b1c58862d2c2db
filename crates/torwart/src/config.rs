//! From the command line to what `run` needs: every value parsed, every mistake found, none of them twice.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use torwart_edge::{BareNewline, CertificateFiles, LogAddresses, LogFormat, check_certificates};
use torwart_verdict::{Keyring, StoreSpec};
use tracing::Level;

use crate::cli::{EdgeArgs, LogArgs, RunArgs, VerdictArgs};
use crate::store;

/// What is wrong with one flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// With its dashes, as in `--store`.
    pub(crate) flag: &'static str,
    pub(crate) text: String,
}

/// Everything `torwart run` was told, checked.
#[derive(Debug)]
pub(crate) struct RunConfig {
    pub(crate) policy: Vec<PathBuf>,
    pub(crate) store: StoreSpec,
    /// Readable; none: the store keeps a key of its own.
    pub(crate) store_key_files: Vec<PathBuf>,
    pub(crate) store_timeout: Duration,
    pub(crate) edge: EdgeConfig,
    pub(crate) log: LogConfig,
}

#[derive(Debug)]
pub(crate) struct EdgeConfig {
    pub(crate) smtp_listen: Vec<SocketAddr>,
    pub(crate) admin_listen: SocketAddr,
    /// `None`: the MailGateway's.
    pub(crate) hostname: Option<Arc<str>>,
    pub(crate) certificates: Vec<CertificateFiles>,
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    pub(crate) bare_newline: BareNewline,
    pub(crate) max_message_size: u64,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_network: usize,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogConfig {
    pub(crate) format: LogFormat,
    pub(crate) level: Level,
    pub(crate) addresses: LogAddresses,
}

/// Collects mistakes; what is returned beside them only fills the place.
#[derive(Debug, Default)]
struct Reader {
    mistakes: Vec<Mistake>,
}

/// A message smaller than this can't be told apart from none.
const SMALLEST_MESSAGE_LIMIT: u64 = 1024;
/// RFC 1035 section 2.3.4, in its written form.
const LONGEST_NAME: usize = 253;
/// Longer than any rollout; a typing slip (`60m` for `60s`) is likelier than the wish.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);
/// A sender waits for its reply all this time.
const LONGEST_STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_run(arguments: &RunArgs) -> Result<RunConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = RunConfig {
        policy: reader.policy(&arguments.policy),
        store: reader.store(&arguments.store),
        store_key_files: reader.store_key_files(&arguments.verdict),
        store_timeout: reader.within(
            "--store-timeout",
            &arguments.verdict.store_timeout,
            Duration::from_millis(1),
            LONGEST_STORE_TIMEOUT,
        ),
        edge: reader.edge(&arguments.edge),
        log: reader.log(&arguments.log),
    };
    if reader.mistakes.is_empty() { Ok(config) } else { Err(reader.mistakes) }
}

/// Checks the paths of `torwart check`.
pub(crate) fn read_policy_paths(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<Mistake>> {
    let mut reader = Reader::default();
    let paths = reader.policy(paths);
    if reader.mistakes.is_empty() { Ok(paths) } else { Err(reader.mistakes) }
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flag, self.text)
    }
}

// === impl Reader ===

impl Reader {
    fn mistake(&mut self, flag: &'static str, text: impl Into<String>) {
        self.mistakes.push(Mistake { flag, text: text.into() });
    }

    /// The value of a flag that may be given once.
    fn once<'a>(&mut self, flag: &'static str, values: &'a [String]) -> Option<&'a str> {
        match values {
            [] => None,
            [value] => Some(value),
            [_, ..] => {
                self.mistake(flag, format!("is given {} times, but takes one value", values.len()));
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        flag: &'static str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.once(flag, values)?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(text) => {
                self.mistake(flag, format!("{value:?} {text}"));
                None
            }
        }
    }

    fn each<T>(
        &mut self,
        flag: &'static str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let one = |value: &String| self.parsed(flag, std::slice::from_ref(value), &parse);
        values.iter().filter_map(one).collect()
    }

    fn one_of<T: Copy>(
        &mut self,
        flag: &'static str,
        values: &[String],
        words: &[(&str, T)],
        otherwise: T,
    ) -> T {
        let parse = |value: &str| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
            found.ok_or_else(|| format!("is not one of {}", known.join(", ")))
        };
        self.parsed(flag, values, parse).unwrap_or(otherwise)
    }

    fn within(&mut self, flag: &'static str, values: &[String], least: Duration, most: Duration) -> Duration {
        let parse = |value: &str| {
            let time = duration(value)?;
            if time < least {
                Err(format!("is less than {least:?}"))
            } else if time > most {
                Err(format!("is more than {most:?}"))
            } else {
                Ok(time)
            }
        };
        self.parsed(flag, values, parse).unwrap_or(least)
    }

    fn count(&mut self, flag: &'static str, values: &[String]) -> Option<usize> {
        let parse = |value: &str| match value.parse::<usize>() {
            Ok(0) => Err("leaves no room for anyone".to_owned()),
            Ok(number) => Ok(number),
            Err(_) => Err("is not a whole number".to_owned()),
        };
        self.parsed(flag, values, parse)
    }

    fn policy(&mut self, paths: &[PathBuf]) -> Vec<PathBuf> {
        if paths.is_empty() {
            self.mistake("--policy", "is needed: a file, or a directory of *.yaml and *.yml files");
        }
        for path in paths {
            let readable = if path.is_dir() { path.read_dir().map(drop) } else { File::open(path).map(drop) };
            if let Err(error) = readable {
                self.mistake("--policy", format!("{} can't be read: {error}", path.display()));
            }
        }
        paths.to_vec()
    }

    fn store(&mut self, values: &[String]) -> StoreSpec {
        match self.once("--store", values).map(store::parse) {
            None => StoreSpec::Memory,
            Some(Ok(spec)) => spec,
            Some(Err(text)) => {
                self.mistake("--store", text);
                StoreSpec::Memory
            }
        }
    }

    fn store_key_files(&mut self, arguments: &VerdictArgs) -> Vec<PathBuf> {
        for error in Keyring::from_files(&arguments.store_key_file).err().into_iter().flatten() {
            self.mistake("--store-key-file", error.to_string());
        }
        arguments.store_key_file.clone()
    }

    fn log(&mut self, arguments: &LogArgs) -> LogConfig {
        let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        let addresses =
            [("full", LogAddresses::Full), ("domain", LogAddresses::Domain), ("hash", LogAddresses::Hash)];
        LogConfig {
            format: self.one_of("--log-format", &arguments.log_format, &formats, LogFormat::Json),
            level: self.one_of("--log-level", &arguments.log_level, &levels, Level::INFO),
            addresses: self.one_of(
                "--log-addresses",
                &arguments.log_addresses,
                &addresses,
                LogAddresses::Full,
            ),
        }
    }

    fn edge(&mut self, arguments: &EdgeArgs) -> EdgeConfig {
        let smtp_listen = self.each("--smtp-listen", &arguments.smtp_listen, address);
        let admin_listen = self.parsed("--admin-listen", &arguments.admin_listen, address);
        self.listen_conflicts(&smtp_listen, admin_listen);
        let max_connections = self.count("--max-connections", &arguments.max_connections);
        let per_network = self.count("--max-connections-per-network", &arguments.max_connections_per_network);
        if let (Some(all), Some(network)) = (max_connections, per_network)
            && network > all
        {
            let text = format!("{network} is more than --max-connections {all}");
            self.mistake("--max-connections-per-network", text);
        }
        let newlines = [("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)];
        let no_time = Duration::ZERO;
        EdgeConfig {
            smtp_listen,
            admin_listen: admin_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            hostname: self.parsed("--hostname", &arguments.hostname, host_name),
            certificates: self.certificates(&arguments.tls_cert, &arguments.tls_key),
            proxy_protocol_from: self.each("--proxy-protocol-from", &arguments.proxy_protocol_from, network),
            bare_newline: self.one_of(
                "--bare-newline",
                &arguments.bare_newline,
                &newlines,
                BareNewline::Reject,
            ),
            max_message_size: self.message_size(&arguments.max_message_size),
            max_connections: max_connections.unwrap_or(1),
            max_connections_per_network: per_network.unwrap_or(1),
            drain_delay: self.within("--drain-delay", &arguments.drain_delay, no_time, LONGEST_DRAIN),
            drain_timeout: self.within("--drain-timeout", &arguments.drain_timeout, no_time, LONGEST_DRAIN),
        }
    }

    fn message_size(&mut self, values: &[String]) -> u64 {
        let parse = |value: &str| match size(value)? {
            bytes if bytes < SMALLEST_MESSAGE_LIMIT => {
                Err(format!("is less than {SMALLEST_MESSAGE_LIMIT} bytes"))
            }
            bytes => Ok(bytes),
        };
        self.parsed("--max-message-size", values, parse).unwrap_or(SMALLEST_MESSAGE_LIMIT)
    }

    fn certificates(&mut self, certificates: &[PathBuf], keys: &[PathBuf]) -> Vec<CertificateFiles> {
        if certificates.len() != keys.len() {
            let (flag, other) = if certificates.len() > keys.len() {
                ("--tls-cert", "--tls-key")
            } else {
                ("--tls-key", "--tls-cert")
            };
            let (more, fewer) = (certificates.len().max(keys.len()), certificates.len().min(keys.len()));
            self.mistake(
                flag,
                format!("is given {more} times, but {other} {fewer} times; they come in pairs"),
            );
        }
        let pair = |(certificate, key): (&PathBuf, &PathBuf)| CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let pairs: Vec<CertificateFiles> = certificates.iter().zip(keys).map(pair).collect();
        for error in check_certificates(&pairs) {
            self.mistake("--tls-cert/--tls-key", error.to_string());
        }
        pairs
    }

    fn listen_conflicts(&mut self, smtp: &[SocketAddr], admin: Option<SocketAddr>) {
        for (i, address) in smtp.iter().enumerate() {
            if let Some(other) = smtp.iter().skip(i + 1).find(|other| overlap(*address, **other)) {
                self.mistake("--smtp-listen", format!("{address} and {other} can't be listened on both"));
            }
        }
        let taken =
            admin.and_then(|admin| smtp.iter().find(|smtp| overlap(**smtp, admin)).map(|smtp| (admin, smtp)));
        if let Some((admin, smtp)) = taken {
            self.mistake("--admin-listen", format!("{admin} is taken by --smtp-listen {smtp}"));
        }
    }
}

/// Whether two listeners would want the same port of the same address. Port 0 takes a free one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        // `[::]` takes IPv4 as well.
        (IpAddr::V6(v6), IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(v6)) => v6.is_unspecified(),
    };
    same_address && a.port() == b.port() && a.port() != 0
}

// === values ===

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address and port, as in 127.0.0.1:2525 or [::]:25".to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    single
        .or_else(|_| text.parse())
        .map_err(|_| "is not a network, as in 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

fn host_name(text: &str) -> Result<Arc<str>, String> {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= LONGEST_NAME && text.split('.').all(is_label) {
        Ok(Arc::from(text))
    } else {
        Err("is not a host name, as in mx.example.net".to_owned())
    }
}

fn size(text: &str) -> Result<u64, String> {
    text.parse::<torwart_api::Size>().map(torwart_api::Size::get).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<torwart_api::Duration>().map(torwart_api::Duration::get).map_err(|error| error.to_string())
}
