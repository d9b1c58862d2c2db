//! Command lines and the order they may come in (RFC 5321 section 4.1.4).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::{CloseReason, Event, Session, State, Step, Tls, Transaction};
use crate::command::is_http;
use crate::line::{Line, swallow_line, take_line};
use crate::{Command, ForwardPath, MailCommand, Verb, Violation};

const GO_ON: Step = ControlFlow::Continue(());

impl Session {
    pub(super) fn command(&mut self, now: Instant, input: &[u8]) -> (usize, Step) {
        if self.shutting_down && self.transaction.is_none() {
            self.close_for_shutdown();
            return (0, GO_ON);
        }
        // A message has a clock of its own, however it comes.
        if now >= self.oldest() && !self.is_between_chunks() {
            let violation = Violation::SessionTooOld;
            self.close_with(CloseReason::Violation(violation), violation.as_str());
            return (0, GO_ON);
        }
        match take_line(input, self.config.limits.command_line) {
            Line::Incomplete => (0, ControlFlow::Break(None)),
            // whatever was to follow it, that is no command
            Line::BareLf | Line::TooLong if is_bdat(input) => {
                self.close(Verb::Bdat, Violation::ChunkSyntax);
                (0, GO_ON)
            }
            Line::BareLf => {
                self.fail(Verb::Unknown, Violation::BareLineEnd);
                self.start_swallowing(true);
                (0, GO_ON)
            }
            Line::TooLong => {
                self.start_swallowing(false);
                (0, GO_ON)
            }
            Line::Complete(line) => {
                let taken = line.len() + 2;
                let (more, step) = self.execute(line, input.get(taken..).unwrap_or_default());
                (taken + more, step)
            }
        }
    }

    fn start_swallowing(&mut self, answered: bool) {
        if matches!(self.state, State::Command) {
            self.state = State::Swallow { swallowed: 0, after_cr: false, answered };
        }
    }

    pub(super) fn swallow(&mut self, input: &[u8]) -> (usize, Step) {
        let endless = self.config.limits.endless_line;
        let State::Swallow { swallowed, after_cr, answered } = &mut self.state else {
            return (0, GO_ON);
        };
        if *swallowed >= endless {
            self.close(Verb::Unknown, Violation::EndlessLine);
            return (0, GO_ON);
        }
        let window = input.get(..(endless - *swallowed) as usize).unwrap_or(input);
        let Some(last) = window.last() else {
            return (0, ControlFlow::Break(None));
        };
        let (taken, ends) = swallow_line(window, *after_cr);
        if ends {
            let answered = *answered;
            self.state = State::Command;
            if !answered {
                self.fail(Verb::Unknown, Violation::LineTooLong);
            }
        } else {
            // `taken` is at most what is left to the limit.
            *swallowed += taken as u32;
            *after_cr = *last == b'\r';
        }
        (taken, GO_ON)
    }

    /// Obeys one line; `rest` is what follows it. Returns how much of that belongs to the same event.
    fn execute(&mut self, line: &[u8], rest: &[u8]) -> (usize, Step) {
        if is_http(line) {
            self.close(Verb::Unknown, Violation::NotSmtp);
            return (0, GO_ON);
        }
        let (verb, command) = Command::parse(line);
        // as with a tab for a blank: some read it as a BDAT, and nobody obeys what its sender meant for a message
        if command.is_err() && verb != Verb::Bdat && is_bdat(line) {
            self.close(Verb::Bdat, Violation::ChunkSyntax);
            return (0, GO_ON);
        }
        let result = match command {
            Ok(Command::Ehlo(name)) => self.hello(verb, name),
            Ok(Command::Helo(name)) => self.hello(verb, name),
            Ok(Command::Mail(mail)) => self.mail(mail),
            Ok(Command::Rcpt(recipient)) => match self.may_name_recipient(&recipient) {
                Ok(()) => return self.recipients(recipient, rest),
                Err(violation) => Err(violation),
            },
            Ok(Command::Data) => self.data(),
            Ok(Command::Bdat(chunk)) => Ok(self.bdat(chunk)),
            Ok(Command::Rset) => self.reset(),
            Ok(Command::Noop) => self.without_mail(verb, "250 2.0.0 OK\r\n"),
            Ok(Command::Vrfy) => {
                self.without_mail(verb, "252 2.5.2 can't say, but will take mail for it\r\n")
            }
            Ok(Command::Help) => self.without_mail(verb, "214 2.0.0 see RFC 5321\r\n"),
            Ok(Command::Quit) => {
                self.counts.record(verb, 2);
                self.close_with(CloseReason::Quit, "221 2.0.0 bye");
                Ok(GO_ON)
            }
            Ok(Command::StartTls) => self.start_tls(),
            Err(violation) => Err(violation),
        };
        let step = result.unwrap_or_else(|violation| {
            self.fail(verb, violation);
            GO_ON
        });
        (0, step)
    }

    /// Answers a fault; at a limit the answer is 421 instead.
    pub(super) fn fail(&mut self, verb: Verb, violation: Violation) {
        self.fail_unless(false, verb, violation);
    }

    /// The same, but it is no error of its own if it is forgiven.
    pub(super) fn fail_unless(&mut self, forgiven: bool, verb: Verb, violation: Violation) {
        if violation == Violation::UnknownCommand {
            if self.unknown_commands >= self.config.limits.unknown_commands {
                return self.close(verb, Violation::TooManyUnknownCommands);
            }
            self.unknown_commands += 1;
        }
        // One kind of refusal too many is the end of the session.
        if matches!(
            violation,
            Violation::TooManyIdleCommands | Violation::TooManyTransactions | Violation::ChunkSyntax
        ) {
            return self.close(verb, violation);
        }
        let harmless = forgiven || (violation == Violation::NoValidRecipients && self.tell_no_recipients());
        if verb == Verb::Rcpt {
            if !self.refuse_recipient(violation.class()) {
                return;
            }
        } else if !harmless && !self.count_error() {
            return self.close(verb, Violation::TooManyErrors);
        }
        self.counts.record(verb, violation.class());
        self.write(&[violation.as_str(), "\r\n"]);
    }

    /// Whether DATA or BDAT is answered so for the first time in this transaction: no error then, since the refusals were
    /// counted when they were made, and a pipelining client says it anyway.
    fn tell_no_recipients(&mut self) -> bool {
        self.transaction
            .as_mut()
            .is_some_and(|transaction| !std::mem::replace(&mut transaction.no_recipients_told, true))
    }

    fn hello(&mut self, verb: Verb, name: &str) -> Result<Step, Violation> {
        self.count_idle_command()?;
        self.counts.record(verb, 2);
        self.helo = Some(name.into());
        self.esmtp = verb == Verb::Ehlo;
        if self.esmtp {
            self.write_ehlo();
        } else {
            self.write(&["250 ", &Arc::clone(&self.config.hostname), "\r\n"]);
        }
        Ok(self.give_up_transaction())
    }

    fn reset(&mut self) -> Result<Step, Violation> {
        self.count_idle_command()?;
        self.counts.record(Verb::Rset, 2);
        self.write(&["250 2.0.0 OK\r\n"]);
        Ok(self.give_up_transaction())
    }

    fn give_up_transaction(&mut self) -> Step {
        self.stray = 0;
        match self.transaction.take() {
            Some(_) => ControlFlow::Break(Some(Event::Reset)),
            None => GO_ON,
        }
    }

    fn without_mail(&mut self, verb: Verb, reply: &str) -> Result<Step, Violation> {
        self.count_idle_command()?;
        self.counts.record(verb, 2);
        self.write(&[reply]);
        Ok(GO_ON)
    }

    fn count_idle_command(&mut self) -> Result<(), Violation> {
        if self.idle_commands >= self.config.limits.idle_commands {
            return Err(Violation::TooManyIdleCommands);
        }
        self.idle_commands += 1;
        Ok(())
    }

    fn mail(&mut self, mail: MailCommand) -> Result<Step, Violation> {
        let limits = &self.config.limits;
        if self.helo.is_none() {
            return Err(Violation::HeloFirst);
        }
        if self.tls == Tls::Required {
            return Err(Violation::TlsRequired);
        }
        if self.transaction.is_some() {
            return Err(Violation::NestedMail);
        }
        if self.transactions >= limits.transactions {
            return Err(Violation::TooManyTransactions);
        }
        if mail.size.is_some_and(|size| size > limits.message_size) {
            return Err(Violation::DeclaredTooLarge);
        }
        let MailCommand { sender, size, eight_bit, smtputf8 } = mail;
        self.transactions += 1;
        self.stray = 0;
        self.transaction = Some(Box::new(Transaction {
            sender,
            declared_size: size,
            eight_bit,
            smtputf8,
            accepted: 0,
            refused: 0,
            label: None,
            no_recipients_told: false,
            chunk: None,
            message: None,
        }));
        self.counts.record(Verb::Mail, 2);
        self.write(&["250 2.1.0 sender OK\r\n"]);
        Ok(GO_ON)
    }

    fn may_name_recipient(&self, recipient: &ForwardPath) -> Result<(), Violation> {
        let transaction = self.transaction.as_deref().ok_or(Violation::MailFirst)?;
        if transaction.chunk.is_some() {
            return Err(Violation::AmongChunks);
        }
        if !transaction.may_hold(recipient) {
            return Err(Violation::RecipientNotAscii);
        }
        if transaction.accepted >= self.config.limits.recipients {
            return Err(Violation::TooManyRecipients);
        }
        Ok(())
    }

    /// Gathers the RCPT commands that are complete in `rest`. It stops before a line that needs an answer of ours,
    /// and before the limit could be passed, so replies keep their order and do not depend on what arrived together.
    fn recipients(&mut self, first: ForwardPath, rest: &[u8]) -> (usize, Step) {
        let limits = &self.config.limits;
        let accepted = self.transaction.as_deref().map_or(0, |transaction| transaction.accepted);
        let room = limits.batch.min(limits.recipients.saturating_sub(accepted) as usize);
        let mut taken = 0;
        let mut batch = vec![first];
        while batch.len() < room {
            let rest = rest.get(taken..).unwrap_or_default();
            let Line::Complete(line) = take_line(rest, limits.command_line) else {
                break;
            };
            let (Verb::Rcpt, Ok(Command::Rcpt(recipient))) = Command::parse(line) else {
                break;
            };
            if !self.transaction.as_deref().is_some_and(|transaction| transaction.may_hold(&recipient)) {
                break;
            }
            taken += line.len() + 2;
            batch.push(recipient);
        }
        self.state = State::Recipients(batch.len() as u32);
        (taken, ControlFlow::Break(Some(Event::Recipients(batch))))
    }

    fn data(&mut self) -> Result<Step, Violation> {
        let transaction = self.transaction.as_deref().ok_or(Violation::MailFirst)?;
        if transaction.chunk.is_some() {
            return Err(Violation::AmongChunks);
        }
        transaction.may_bring_message()?;
        self.state = State::AwaitData;
        Ok(ControlFlow::Break(Some(Event::Data)))
    }

    fn start_tls(&mut self) -> Result<Step, Violation> {
        match self.tls {
            Tls::Active => return Err(Violation::TlsActive),
            Tls::Unavailable => return Err(Violation::TlsUnavailable),
            Tls::Offered | Tls::Required => {}
        }
        if self.helo.is_none() {
            return Err(Violation::HeloFirst);
        }
        if self.transaction.is_some() {
            return Err(Violation::TlsInTransaction);
        }
        self.counts.record(Verb::StartTls, 2);
        self.write(&["220 2.0.0 ready for TLS\r\n"]);
        self.state = State::StartTls;
        Ok(ControlFlow::Break(Some(Event::StartTls)))
    }
}

/// Whether a line that is no command was meant to be BDAT.
fn is_bdat(input: &[u8]) -> bool {
    input.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT"))
}

// === impl Transaction ===

impl Transaction {
    /// RFC 6531 section 3.3: only after MAIL with SMTPUTF8 a path may go beyond ASCII.
    fn may_hold(&self, recipient: &ForwardPath) -> bool {
        self.smtputf8 || recipient.as_str().is_ascii()
    }

    pub(super) fn may_bring_message(&self) -> Result<(), Violation> {
        match (self.accepted, self.refused) {
            (0, 0) => Err(Violation::RecipientFirst),
            (0, _) => Err(Violation::NoValidRecipients),
            _ => Ok(()),
        }
    }
}
