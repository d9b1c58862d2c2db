//! The verdict's explanation and what a client hears of it, put together for each recipient.

use std::net::IpAddr;
use std::sync::Arc;

use torwart_core::{
    Action, CheckResult, Mailbox, MessageAnswer, Protocol, Reason, RecipientVerdict, RecipientsAnswer,
    RecipientsQuestion, Revision, Route,
};
use torwart_edge::{Foretold, foretell_message, foretell_recipients, foretell_session};
use torwart_verdict::explain::{Explained, Explanation, RangeSeen, Retry, Why};

/// All that is shown.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) client: IpAddr,
    pub(super) revision: Revision,
    /// The range that holds before the banner.
    pub(super) connection_range: Option<RangeSeen>,
    /// Who the client was taken for.
    pub(super) identity: Option<Arc<str>>,
    pub(super) checks: Vec<CheckResult>,
    pub(super) recipients: Vec<RecipientReport>,
    /// If messages are checked, and there is one.
    pub(super) message: Option<MessageAnswer>,
    /// What was given and counts for nothing.
    pub(super) notes: Vec<String>,
}

#[derive(Debug)]
pub(super) struct RecipientReport {
    pub(super) to: Mailbox,
    pub(super) heard: Foretold,
    /// `None` if the session does not come to its recipients.
    pub(super) judged: Option<(RecipientVerdict, Why)>,
    /// If greylisting has it wait.
    pub(super) retry: Option<RetryReport>,
}

#[derive(Debug)]
pub(super) struct RetryReport {
    /// Seconds after the first try.
    pub(super) after: u32,
    pub(super) heard: Foretold,
    pub(super) verdict: RecipientVerdict,
    pub(super) route: Option<Arc<Route>>,
}

// === impl Report ===

impl Report {
    pub(super) fn new(question: &RecipientsQuestion, explanation: Explanation) -> Self {
        let Explanation { connection, connection_range, recipients, retry, message } = explanation;
        let mut report = Self {
            client: question.peer.address.ip(),
            revision: connection.revision.clone(),
            connection_range,
            identity: None,
            checks: Vec::new(),
            recipients: Vec::new(),
            message: None,
            notes: Vec::new(),
        };
        if let Some(heard) = foretell_session(&connection, question.peer.tls.is_some()) {
            let each = |to: &Mailbox| RecipientReport {
                to: to.clone(),
                heard: heard.clone(),
                judged: None,
                retry: None,
            };
            report.recipients = question.recipients.iter().map(each).collect();
        } else if let Some(Explained { answer, why }) = recipients {
            let routes: Vec<_> = why.iter().map(|why| why.route.clone()).collect();
            let mut heard = foretell(question, &answer, &routes).into_iter();
            let mut retries = retry.map(|retry| retries(question, retry)).unwrap_or_default().into_iter();
            let RecipientsAnswer { recipients, identity, checks, revision, ask_connections: _ } = answer;
            report.identity = identity;
            report.checks = checks;
            report.revision = revision;
            let judged = recipients.into_iter().zip(why);
            let named = question.recipients.iter().zip(judged);
            report.recipients = named
                .filter_map(|(to, judged)| {
                    let (heard, retry) = (heard.next()?, retries.next());
                    let waits = heard.action == Action::Defer && heard.reason == Reason::Greylisted;
                    Some(RecipientReport {
                        to: to.clone(),
                        heard,
                        judged: Some(judged),
                        retry: retry.filter(|_| waits),
                    })
                })
                .collect();
        }
        if let Some(message) = message {
            report.hear(message);
        }
        report
    }

    /// Whoever was accepted so far hears the message's verdict if that is a refusal.
    fn hear(&mut self, message: MessageAnswer) {
        let refusal = foretell_message(&message);
        for recipient in &mut self.recipients {
            let retries = recipient.retry.iter_mut().map(|retry| &mut retry.heard);
            for heard in retries.chain([&mut recipient.heard]) {
                if let (Action::Accept, Some(refusal)) = (heard.action, &refusal) {
                    *heard = refusal.clone();
                }
            }
        }
        self.checks.extend(message.checks.iter().cloned());
        self.message = Some(message);
    }
}

fn retries(question: &RecipientsQuestion, retry: Retry) -> Vec<RetryReport> {
    let Retry { after, answer, routes } = retry;
    let heard = foretell(question, &answer, &routes);
    let verdicts = answer.recipients.into_iter().zip(routes);
    verdicts
        .zip(heard)
        .map(|((verdict, route), heard)| RetryReport { after, heard, verdict, route })
        .collect()
}

fn foretell(
    question: &RecipientsQuestion,
    answer: &RecipientsAnswer,
    routes: &[Option<Arc<Route>>],
) -> Vec<Foretold> {
    let one_recipient = |verdict: &RecipientVerdict| {
        let mut routes = routes.iter().flatten();
        routes.any(|route| Some(route.digest) == verdict.route && route.protocol == Protocol::Lmtp)
    };
    let recipients = question.recipients.iter().cloned().zip(answer.recipients.iter().cloned());
    foretell_recipients(recipients.collect(), question.envelope.declared_size, one_recipient)
}
