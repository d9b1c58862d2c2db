//! Collects mistakes; what is returned beside them only fills the place.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Mistake;
use super::values::{duration, overlap};

#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    /// `config`, unless there was a mistake.
    pub(super) fn finish<T>(self, config: T) -> Result<T, Vec<Mistake>> {
        if self.mistakes.is_empty() { Ok(config) } else { Err(self.mistakes) }
    }

    pub(super) fn mistake(&mut self, flag: &'static str, text: impl Into<String>) {
        self.mistakes.push(Mistake { flag, text: text.into() });
    }

    /// The value of a flag that may be given once.
    pub(super) fn once<'a, T>(&mut self, flag: &'static str, values: &'a [T]) -> Option<&'a T> {
        match values {
            [] => None,
            [value] => Some(value),
            [_, ..] => {
                self.mistake(flag, format!("is given {} times, but takes one value", values.len()));
                None
            }
        }
    }

    pub(super) fn parsed<T>(
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

    pub(super) fn each<T>(
        &mut self,
        flag: &'static str,
        values: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let one = |value: &String| self.parsed(flag, std::slice::from_ref(value), &parse);
        values.iter().filter_map(one).collect()
    }

    pub(super) fn one_of<T: Copy>(
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

    pub(super) fn within(
        &mut self,
        flag: &'static str,
        values: &[String],
        least: Duration,
        most: Duration,
    ) -> Duration {
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

    pub(super) fn count(&mut self, flag: &'static str, values: &[String]) -> Option<usize> {
        let parse = |value: &str| match value.parse::<usize>() {
            Ok(0) => Err("leaves no room for anyone".to_owned()),
            Ok(number) => Ok(number),
            Err(_) => Err("is not a whole number".to_owned()),
        };
        self.parsed(flag, values, parse)
    }

    /// A file that must be there and open.
    pub(super) fn file(&mut self, flag: &'static str, values: &[PathBuf]) -> Option<PathBuf> {
        let path = self.once(flag, values)?;
        if let Err(error) = File::open(path) {
            self.mistake(flag, format!("{} can't be read: {error}", path.display()));
        }
        Some(path.clone())
    }

    /// `flag` was given, but does nothing without `needed`.
    pub(super) fn needs(&mut self, flag: &'static str, given: bool, needed: &str, there: bool) {
        if given && !there {
            self.mistake(flag, format!("does nothing without {needed}"));
        }
    }

    /// `address` of `flag` must not be one of the others'.
    pub(super) fn free_of(
        &mut self,
        flag: &'static str,
        address: Option<SocketAddr>,
        others: &[SocketAddr],
        other_flag: &str,
    ) {
        let Some(address) = address else { return };
        if let Some(other) = others.iter().find(|other| overlap(**other, address)) {
            self.mistake(flag, format!("{address} is taken by {other_flag} {other}"));
        }
    }
}
