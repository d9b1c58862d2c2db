//! The mail that `torwart explain` is asked about, read by the same code as a client's commands.

use std::net::IpAddr;
use std::path::PathBuf;

use torwart_core::Mailbox;
use torwart_smtp::{Command, ForwardPath, ReversePath};

use super::checks::ChecksConfig;
use super::reader::Reader;
use super::values::host_name;
use crate::cli::ExplainArgs;

/// Everything `torwart explain` was told, checked.
#[derive(Debug)]
pub(crate) struct ExplainConfig {
    pub(crate) policy: Vec<PathBuf>,
    pub(crate) policy_state: Option<PathBuf>,
    pub(crate) client: IpAddr,
    pub(crate) helo: String,
    /// `None` is the null sender.
    pub(crate) from: Option<Mailbox>,
    pub(crate) to: Vec<Mailbox>,
    pub(crate) message: Option<PathBuf>,
    pub(crate) tls: bool,
    /// This is for a check that there is none of yet.
    pub(crate) rdns: bool,
    pub(crate) checks: ChecksConfig,
    pub(crate) json: bool,
}

// === impl Reader ===

impl Reader {
    pub(super) fn explain(&mut self, arguments: &ExplainArgs) -> ExplainConfig {
        let ExplainArgs { policy, policy_state, client, helo, from, to, message, tls, rdns, dns, json } =
            arguments;
        let needed = [
            ("--client", client.is_empty(), "the client's address"),
            ("--helo", helo.is_empty(), "the name that the client gives at EHLO"),
            ("--from", from.is_empty(), "the sender's address, or <>"),
            ("--to", to.is_empty(), "a recipient's address"),
        ];
        let policy = self.policy(policy);
        for (flag, missing, what) in needed {
            if missing {
                self.mistake(flag, format!("is needed: {what}"));
            }
        }
        ExplainConfig {
            policy,
            policy_state: self.file("--policy-state", policy_state),
            client: self.parsed("--client", client, address).unwrap_or(IpAddr::from([0, 0, 0, 0])),
            helo: self.parsed("--helo", helo, said_at_ehlo).unwrap_or_default(),
            from: self.parsed("--from", from, sender).flatten(),
            to: self.each("--to", to, recipient),
            message: self.file("--message", message),
            tls: *tls,
            rdns: self.parsed("--rdns", rdns, host_name).is_some(),
            checks: self.checks(dns),
            json: *json,
        }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address: Result<IpAddr, _> = text.parse();
    address
        .map(torwart_core::canonical_ip)
        .map_err(|_| "is no IP address, as in 192.0.2.1 or 2001:db8::1".to_owned())
}

fn said_at_ehlo(text: &str) -> Result<String, String> {
    match Command::parse(format!("EHLO {text}").as_bytes()).1 {
        Ok(Command::Ehlo(name)) => Ok(name.to_owned()),
        _ => Err("is nothing that a client can say at EHLO".to_owned()),
    }
}

fn sender(text: &str) -> Result<Option<Mailbox>, String> {
    let path = within_brackets(text);
    match Command::parse(format!("MAIL FROM:<{path}> SMTPUTF8").as_bytes()).1 {
        Ok(Command::Mail(mail)) if path.ends_with(mail.sender.as_str()) => Ok(match &mail.sender {
            ReversePath::Null => None,
            ReversePath::Mailbox(path) => Some(Mailbox::new(path.local(), path.domain())),
        }),
        _ => Err("is no mail address, as in anna@example.org or <>".to_owned()),
    }
}

fn recipient(text: &str) -> Result<Mailbox, String> {
    let path = within_brackets(text);
    match Command::parse(format!("RCPT TO:<{path}>").as_bytes()).1 {
        Ok(Command::Rcpt(ForwardPath::Mailbox(mailbox))) if path.ends_with(mailbox.as_str()) => {
            Ok(Mailbox::new(mailbox.local(), mailbox.domain()))
        }
        Ok(Command::Rcpt(ForwardPath::Postmaster(name))) => Ok(Mailbox::new(&*name, "")),
        _ => Err("is no mail address, as in anna@example.org".to_owned()),
    }
}

fn within_brackets(text: &str) -> &str {
    text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_a_client_can_name() {
        for text in
            ["anna@example.org", "<anna@example.org>", "\"a b\"@[192.0.2.1]", "<@relay.example:a@b.example>"]
        {
            assert!(sender(text).unwrap().is_some(), "{text}");
            assert!(recipient(text).is_ok(), "{text}");
        }
        for text in ["", "<>"] {
            assert_eq!(sender(text), Ok(None));
            assert!(recipient(text).is_err(), "{text}");
        }
        assert_eq!(recipient("Postmaster"), Ok(Mailbox::new("Postmaster", "")));
        assert!(sender("Postmaster").is_err());
        for text in ["anna", "a@b> SIZE=1", "a@b>\r\nDATA", "a@", "@b", "a b@c.example", "<a@b"] {
            assert!(sender(text).is_err() && recipient(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn one_client_has_one_address() {
        assert_eq!(address("::ffff:192.0.2.1"), Ok(IpAddr::from([192, 0, 2, 1])));
        assert!(address("192.0.2.1:25").is_err() && address("mx.example").is_err());
        assert!(said_at_ehlo("mx.example.org").is_ok() && said_at_ehlo("[192.0.2.1]").is_ok());
        assert!(said_at_ehlo("").is_err() && said_at_ehlo("two words").is_err());
    }
}
