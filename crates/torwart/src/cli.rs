//! The command line as it is written: every value a string, so that `config` can report every mistake in it
//! at once. A new subcommand is one variant of [`Command`], one struct of flags, and one arm in `main`.
//!
//! Every flag can be given as `TORWART_` and its name in capitals instead (`--smtp-listen` as
//! `TORWART_SMTP_LISTEN`). Flags that take several values are repeated, or take them separated by commas.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

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
    /// Reports every mistake in policy files; exit status 1 if there are any
    Check(CheckArgs),
    /// Plays the whole story with a built-in mail server and senders; needs nothing else
    Demo,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Policy files, or directories of *.yaml and *.yml files; watched while running
    #[arg(long, value_name = "PATH", env = "TORWART_POLICY", num_args = 1.., value_delimiter = ',')]
    pub(crate) policy: Vec<PathBuf>,

    /// Where greylisting remembers senders: `memory` (a restart forgets) or `redb:PATH` (a file of its own)
    #[arg(long, env = "TORWART_STORE", default_value = "memory")]
    pub(crate) store: Vec<String>,

    #[command(flatten)]
    pub(crate) edge: EdgeArgs,

    #[command(flatten)]
    pub(crate) verdict: VerdictArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Mail")]
pub(crate) struct EdgeArgs {
    /// Where to take mail; repeatable
    #[arg(long, value_name = "ADDR", env = "TORWART_SMTP_LISTEN", default_value = "127.0.0.1:2525")]
    #[arg(value_delimiter = ',')]
    pub(crate) smtp_listen: Vec<String>,

    /// Where to serve /metrics, /healthz, /readyz and /policy
    #[arg(long, value_name = "ADDR", env = "TORWART_ADMIN_LISTEN", default_value = "127.0.0.1:9900")]
    pub(crate) admin_listen: Vec<String>,

    /// The gateway's own name, in the banner and in Received; without it the MailGateway's
    #[arg(long, value_name = "NAME", env = "TORWART_HOSTNAME")]
    pub(crate) hostname: Vec<String>,

    /// A certificate chain (PEM) for STARTTLS; repeatable, each with its --tls-key; read again when it changes
    #[arg(long, value_name = "FILE", env = "TORWART_TLS_CERT", value_delimiter = ',')]
    pub(crate) tls_cert: Vec<PathBuf>,

    /// The private key (PEM) of the --tls-cert in the same place
    #[arg(long, value_name = "FILE", env = "TORWART_TLS_KEY", value_delimiter = ',')]
    pub(crate) tls_key: Vec<PathBuf>,

    /// Peers in these networks must send a PROXY header (v1 or v2), others must not
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

    /// How long connections are still accepted after SIGTERM, while load balancers take note
    #[arg(long, value_name = "TIME", env = "TORWART_DRAIN_DELAY", default_value = "5s")]
    pub(crate) drain_delay: Vec<String>,

    /// How long sessions may go on after that
    #[arg(long, value_name = "TIME", env = "TORWART_DRAIN_TIMEOUT", default_value = "60s")]
    pub(crate) drain_timeout: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Verdict")]
pub(crate) struct VerdictArgs {
    /// A file with the key that hides addresses in the store; repeatable: the first writes, all read
    #[arg(long, value_name = "FILE", env = "TORWART_STORE_KEY_FILE", value_delimiter = ',')]
    pub(crate) store_key_file: Vec<PathBuf>,

    /// How long one question to the store may take; then its `onStoreFailure` holds
    #[arg(long, value_name = "TIME", env = "TORWART_STORE_TIMEOUT", default_value = "100ms")]
    pub(crate) store_timeout: Vec<String>,
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
pub(crate) struct CheckArgs {
    /// Policy files, or directories of *.yaml and *.yml files
    #[arg(long, value_name = "PATH", env = "TORWART_POLICY", num_args = 1.., value_delimiter = ',')]
    pub(crate) policy: Vec<PathBuf>,
}

/// What reading the arguments came to.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// `None` if so much is wrong that nothing can be made of the rest.
    pub(crate) cli: Option<Cli>,
    /// What was not understood, one line each; those arguments were left out of `cli`.
    pub(crate) mistakes: Vec<String>,
}

/// The command line's definition. Values from the environment stay out of the help: they may be secret.
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_subcommands(|sub| sub.mut_args(|argument| argument.hide_env_values(true)))
}

/// Reads the arguments (the first is the program's name). Unlike clap alone, it does not stop at the first
/// argument it does not know. `Err` is help or version, to be printed.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Parsed, clap::Error> {
    let mut rest = arguments;
    let mut mistakes = Vec::new();
    // Each round removes at least one argument, so this ends.
    loop {
        let parsed =
            command().try_get_matches_from(&rest).and_then(|matches| Cli::from_arg_matches(&matches));
        let error = match parsed {
            Ok(cli) => return Ok(Parsed { cli: Some(cli), mistakes }),
            Err(error) => error,
        };
        if !error.use_stderr() {
            return Err(error);
        }
        mistakes.push(first_line(&error));
        if !remove_offender(&mut rest, &error) {
            return Ok(Parsed { cli: None, mistakes });
        }
    }
}

/// Takes the argument that `error` is about, and a value that belongs to it, out of `arguments`.
fn remove_offender(arguments: &mut Vec<OsString>, error: &clap::Error) -> bool {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidValue) {
        return false;
    }
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg) else {
        return false;
    };
    // clap says "--store <STORE>" when the value is missing, "--stoer" when it does not know the flag.
    let name = name.split([' ', '=']).next().unwrap_or(name);
    let is_it =
        |argument: &OsString| argument.to_str().is_some_and(|text| text.split('=').next() == Some(name));
    // The first argument is the program's name, the second the subcommand.
    let Some(at) = arguments.iter().skip(1).position(is_it).map(|at| at + 1) else {
        return false;
    };
    arguments.remove(at);
    let is_value = |argument: &OsString| argument.to_str().is_some_and(|text| !text.starts_with('-'));
    if at > 1 && error.kind() == ErrorKind::UnknownArgument && name.starts_with("--") {
        while arguments.get(at).is_some_and(is_value) {
            arguments.remove(at);
        }
    }
    true
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Parsed {
        parse(line.split_whitespace().map(OsString::from).collect()).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_name() {
        for sub in command().get_subcommands() {
            for flag in sub.get_arguments().filter_map(|a| a.get_long().map(|long| (long, a.get_env()))) {
                let (long, env) = flag;
                if long == "help" {
                    continue;
                }
                let expected = format!("TORWART_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(env.and_then(|name| name.to_str()), Some(expected.as_str()), "--{long}");
            }
        }
    }

    #[test]
    fn every_argument_that_is_not_known_is_reported() {
        let parsed =
            parse_words("torwart run --polcy a b --policy c --stoer=x --fast --smtp-listen 127.0.0.1:1");
        assert_eq!(parsed.mistakes.len(), 3, "{:?}", parsed.mistakes);
        for (mistake, name) in parsed.mistakes.iter().zip(["--polcy", "--stoer", "--fast"]) {
            assert!(mistake.contains(name), "{mistake}");
        }
        let Some(Cli { command: Command::Run(run) }) = parsed.cli else { panic!("no run") };
        assert_eq!(run.policy, [PathBuf::from("c")]);
        assert_eq!(run.edge.smtp_listen, ["127.0.0.1:1"]);
    }

    #[test]
    fn a_flag_without_its_value_is_one_mistake_among_others() {
        let parsed = parse_words("torwart run --store --policy a --nonsense");
        assert_eq!(parsed.mistakes.len(), 2, "{:?}", parsed.mistakes);
        assert!(parsed.cli.is_some());
    }

    #[test]
    fn a_subcommand_that_is_not_known_ends_the_reading() {
        let parsed = parse_words("torwart walk --policy a");
        assert!(parsed.cli.is_none());
        assert_eq!(parsed.mistakes.len(), 1);
    }
}
