//! Reading the arguments, every mistake at once: clap alone stops at the first that it does not know.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::Cli;

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
    use super::super::Command;
    use super::*;
    use std::path::PathBuf;

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
        assert_eq!(run.policy.policy, [PathBuf::from("c")]);
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
