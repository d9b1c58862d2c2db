//! One transaction on one connection to one upstream.

mod keep;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use torwart_core::{Reason, Reply};
use torwart_smtp::{MailParameters, Stage};

pub use self::keep::{DataReply, Kept};
use super::connection::{Answer, Connection, Written};
use super::metrics::FailureKind;
use super::pool::Slot;
use super::reply_table::{Judgement, judge};
use super::setback::{Fault, Setback};
use super::soft_bounce::Trust;
use super::{MailFacts, RelayReply, UpstreamRefusal, Upstreams};

/// A transaction that an upstream has begun. Dropping it closes the connection without a dot: the upstream keeps
/// nothing.
///
/// After the first error every later step gives the same error.
#[derive(Debug)]
pub struct Relay(Box<Transaction>);

/// How the transaction ended, after everything had been said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Final {
    /// The upstream has the message.
    Accepted { upstream_reply: String },
    /// The upstream does not have the message.
    Refused(UpstreamRefusal),
    /// The message was sent in full, and the answer was lost. The client hears 451; a duplicate is possible.
    Unknown(UpstreamRefusal),
}

/// The connection stands before the slot: it is closed before the slot is given back.
#[derive(Debug)]
struct Transaction {
    connection: Box<Connection>,
    slot: Slot,
    upstreams: Arc<Upstreams>,
    trust: Trust,
    mail_answered: bool,
    /// MAIL said SMTPUTF8: paths may go beyond ASCII (RFC 6531 section 3.4).
    utf8: bool,
    in_data: bool,
    /// No 5xx and no 421 was heard: the connection may serve another transaction.
    fit: bool,
    broken: Option<UpstreamRefusal>,
}

/// Recipients' replies, and whether another upstream might give better ones.
struct Recipients {
    replies: Vec<RelayReply>,
    /// Every recipient was refused in a way that says that this upstream is the wrong one.
    misdirected: Option<Setback>,
}

/// What the upstream has at least for its reply to the dot, of the time until `deadline`: a dot whose reply nobody awaits
/// is a message that comes twice.
pub(crate) const LAST_REPLY: Duration = Duration::from_secs(60);

/// Octets gathered before they are written: a small message goes out in one write with its dot.
const BLOCK: usize = 64 * 1024;

pub(crate) static RECIPIENT_ACCEPTED: LazyLock<Reply> =
    LazyLock::new(|| Reply::new(250, (2, 1, 5), "Recipient ok"));

// === impl Relay ===

impl Relay {
    pub(super) fn new(
        upstreams: Arc<Upstreams>,
        slot: Slot,
        connection: Box<Connection>,
        trust: Trust,
    ) -> Self {
        Self(Box::new(Transaction {
            connection,
            slot,
            upstreams,
            trust,
            mail_answered: false,
            utf8: false,
            in_data: false,
            fit: true,
            broken: None,
        }))
    }

    pub(super) async fn begin(
        &mut self,
        mail: &MailFacts,
        recipients: &[&str],
        deadline: Instant,
    ) -> Result<Vec<RelayReply>, Setback> {
        let it = &mut *self.0;
        it.connection.transactions += 1;
        it.say_mail(mail)?;
        let pipelining = it.connection.client().can_pipeline();
        if pipelining {
            it.say_recipients(recipients);
        }
        it.connection.flush(deadline).await.map_err(|fault| fault.in_transaction())?;
        it.hear(Stage::Mail, deadline).await?;
        let Recipients { replies, misdirected } =
            it.hear_recipients(recipients, pipelining, deadline).await?;
        match misdirected {
            Some(setback) => Err(setback),
            None => Ok(it.softened(recipients, replies)),
        }
    }

    /// Whether the connection turned out to be closed already when its transaction began.
    pub(super) fn died_before_mail(&self, setback: &Setback) -> bool {
        !self.0.mail_answered && matches!(setback.failure, Some(FailureKind::Closed | FailureKind::Refused))
    }

    pub(super) fn into_slot(self) -> Slot {
        self.0.slot
    }

    /// `host:port`
    pub fn upstream(&self) -> &str {
        &self.0.slot.gate().name
    }

    /// Names more recipients. One reply for each, in that order.
    pub async fn recipients(
        &mut self,
        recipients: &[&str],
        deadline: Instant,
    ) -> Result<Vec<RelayReply>, UpstreamRefusal> {
        let it = &mut *self.0;
        it.check()?;
        let result = it.more_recipients(recipients, deadline).await;
        it.noting(result).map(|replies| it.softened(recipients, replies))
    }

    /// Says DATA and waits for 354, but no longer than RFC 5321 section 4.5.3.2.4 says (2 min).
    pub async fn data(&mut self, deadline: Instant) -> Result<(), UpstreamRefusal> {
        let it = &mut *self.0;
        it.check()?;
        let result = it.start_data(deadline).await;
        it.noting(result)
    }

    /// Passes decoded message bytes on, dot-stuffed anew. Returns when they are in a buffer of bounded size; a slow
    /// upstream makes the caller wait, until `deadline` if there is one. An upstream that answers before the end gets
    /// no more.
    pub async fn body(&mut self, decoded: &[u8], deadline: Option<Instant>) -> Result<(), UpstreamRefusal> {
        let it = &mut *self.0;
        it.check()?;
        let result = it.pass_on(decoded, deadline).await;
        it.noting(result)
    }

    /// Ends the message and waits for the answer.
    pub async fn finish(mut self, deadline: Instant) -> Final {
        let it = &mut *self.0;
        if let Err(refusal) = it.check() {
            return Final::Refused(refusal);
        }
        let ended = it.end(deadline).await;
        let ended = match ended {
            Ok(Ok(upstream_reply)) => {
                it.upstreams.delivered(it.trust);
                Final::Accepted { upstream_reply }
            }
            Ok(Err(setback)) => Final::Refused(it.refused(setback)),
            Err(setback) => Final::Unknown(it.refused(setback)),
        };
        (*self.0).release();
        ended
    }

    /// Waits until the client has been silent for too long (since `heard`) and somebody else needs the connection.
    pub async fn wanted(&self, heard: Instant) {
        let Transaction { slot, upstreams, .. } = &*self.0;
        tokio::time::sleep_until((heard + upstreams.settings.patience).into()).await;
        slot.gate().wanted().await;
    }

    /// Whether somebody still needs the connection. If so, it is promised: [`Self::abandon`] comes next.
    pub fn give_way(&mut self) -> bool {
        self.0.slot.give_way()
    }

    /// What the client hears whose message was cut off so that others could have the connection.
    pub fn gave_way(&self) -> UpstreamRefusal {
        self.0.refused(Setback::gave_way())
    }

    /// Gives the transaction up before the dot. The upstream gets none. If no DATA was said, the connection is reset
    /// in the background and kept.
    pub fn abandon(self) {
        let it = *self.0;
        if it.in_data || it.broken.is_some() || !it.fit {
            it.close();
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(it.reset());
        }
    }
}

// === impl Transaction ===

impl Transaction {
    fn check(&self) -> Result<(), UpstreamRefusal> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Remembers an error, so that every later step gives it again.
    fn noting<T>(&mut self, result: Result<T, Setback>) -> Result<T, UpstreamRefusal> {
        result.map_err(|setback| {
            let refusal = self.refused(setback);
            self.broken = Some(refusal.clone());
            refusal
        })
    }

    fn refused(&self, setback: Setback) -> UpstreamRefusal {
        self.upstreams.counted(self.slot.gate(), self.trust, setback)
    }

    fn softened(&self, recipients: &[&str], mut replies: Vec<RelayReply>) -> Vec<RelayReply> {
        for RelayReply { client_reply, reason, result, .. } in &mut replies {
            self.upstreams.soften(self.trust, client_reply, reason, result);
        }
        self.upstreams.remember_refusals(self.trust, recipients, &replies);
        replies
    }

    fn say_mail(&mut self, mail: &MailFacts) -> Result<(), Setback> {
        let MailFacts { hello: _, sender, size, eight_bit, smtputf8, client: _ } = mail;
        let utf8 = *smtputf8 || !sender.is_ascii();
        if utf8 && !self.connection.client().capabilities().smtputf8 {
            return Err(match self.connection.client().capabilities().esmtp {
                true => Setback { try_next: true, ..unspeakable().into() },
                // it refused EHLO, and nobody knows what it could do
                false => Setback::misconfigured("it speaks no ESMTP, which this mail needs"),
            });
        }
        let parameters = MailParameters { sender, size: *size, eight_bit: *eight_bit, smtputf8: utf8 };
        self.connection.client().mail(&parameters);
        self.utf8 = utf8;
        Ok(())
    }

    fn say_recipients(&mut self, recipients: &[&str]) {
        for recipient in recipients {
            if self.can_name(recipient) {
                self.connection.client().rcpt(recipient);
            }
        }
    }

    fn can_name(&self, path: &str) -> bool {
        self.utf8 || path.is_ascii()
    }

    async fn hear_recipients(
        &mut self,
        recipients: &[&str],
        pipelining: bool,
        deadline: Instant,
    ) -> Result<Recipients, Setback> {
        let mut replies = Vec::with_capacity(recipients.len());
        let mut misdirected = None;
        let mut others = 0usize;
        for recipient in recipients {
            if !self.can_name(recipient) {
                replies.push(unspeakable());
                others += 1;
                continue;
            }
            if !pipelining {
                self.connection.client().rcpt(recipient);
                self.connection.flush(deadline).await.map_err(|fault| fault.in_transaction())?;
            }
            let answer = self.answer(Stage::Rcpt, deadline).await?;
            match judge(Stage::Rcpt, answer.code, answer.enhanced) {
                Judgement::Go => {
                    others += 1;
                    replies.push(accepted(answer));
                }
                Judgement::Refused(refused) => {
                    let ends = answer.code == CLOSING || refused.failure == Some(FailureKind::Protocol);
                    let setback = Setback::refused(refused, answer);
                    if ends {
                        return Err(setback);
                    }
                    replies.push(RelayReply::from(setback.clone()));
                    if setback.try_next {
                        misdirected.get_or_insert(setback);
                    } else {
                        others += 1;
                    }
                }
            }
        }
        if others > 0
            && let Some(setback) = misdirected.take()
        {
            self.refused(setback);
        }
        Ok(Recipients { replies, misdirected })
    }

    async fn more_recipients(
        &mut self,
        recipients: &[&str],
        deadline: Instant,
    ) -> Result<Vec<RelayReply>, Setback> {
        let pipelining = self.connection.client().can_pipeline();
        if pipelining {
            self.say_recipients(recipients);
            self.connection.flush(deadline).await.map_err(|fault| fault.in_transaction())?;
        }
        let Recipients { replies, misdirected } =
            self.hear_recipients(recipients, pipelining, deadline).await?;
        // Others may have been accepted here before: this upstream it is.
        if let Some(setback) = misdirected {
            self.refused(setback);
        }
        Ok(replies)
    }

    async fn start_data(&mut self, deadline: Instant) -> Result<(), Setback> {
        let until = deadline.min(Instant::now() + self.upstreams.settings.data);
        self.connection.client().data();
        self.connection.flush(until).await.map_err(|fault| fault.in_transaction())?;
        self.hear(Stage::Data, until).await?;
        self.in_data = true;
        Ok(())
    }

    async fn pass_on(&mut self, decoded: &[u8], deadline: Option<Instant>) -> Result<(), Setback> {
        for piece in decoded.chunks(BLOCK) {
            self.connection.client().body(piece);
            if self.connection.unwritten() < BLOCK {
                continue;
            }
            let block = Instant::now() + self.upstreams.settings.block;
            let until = deadline.map_or(block, |deadline| deadline.min(block));
            match self.connection.flush_unless_answered(until).await {
                Ok(Written::All) => {}
                Ok(Written::Interrupted) => return Err(self.early_answer(until).await),
                Err(fault) => return Err(fault.in_transaction()),
            }
        }
        Ok(())
    }

    /// What the upstream said while the message was under way. It did not get the whole of it.
    async fn early_answer(&mut self, until: Instant) -> Setback {
        match self.hear(Stage::Dot, until).await {
            Ok(answer) => {
                Fault::Protocol(format!("before the end of the message: {}", answer.text)).in_transaction()
            }
            Err(setback) => setback,
        }
    }

    /// The outer error: the message is out, its fate unknown. The inner one: the upstream does not have it.
    async fn end(&mut self, deadline: Instant) -> Result<Result<String, Setback>, Setback> {
        if !self.connection.client().in_message() {
            // It answered together with its 354, so there is no message for it to have.
            return Ok(Err(self.early_answer(deadline).await));
        }
        self.connection.client().end_of_data();
        let now = Instant::now();
        let out_by = deadline.checked_sub(LAST_REPLY).filter(|by| *by > now).unwrap_or(deadline);
        match self.connection.flush_unless_answered(out_by).await {
            Ok(Written::All) => {}
            Ok(Written::Interrupted) => return Ok(Err(self.early_answer(deadline).await)),
            Err(fault) if self.connection.unwritten() > 0 => return Ok(Err(fault.in_transaction())),
            Err(fault) => return Err(fault.after_the_dot()),
        }
        let answer = match self.connection.answer(Stage::Dot, deadline).await {
            Ok(answer) => answer,
            Err(fault) => return Err(fault.after_the_dot()),
        };
        self.in_data = false;
        Ok(self.weigh(answer).map(|answer| answer.text))
    }

    async fn hear(&mut self, stage: Stage, until: Instant) -> Result<Answer, Setback> {
        let answer = self.answer(stage, until).await?;
        self.weigh(answer)
    }

    async fn answer(&mut self, stage: Stage, until: Instant) -> Result<Answer, Setback> {
        let answer = self.connection.answer(stage, until).await.map_err(|fault| fault.in_transaction())?;
        self.mail_answered |= answer.code != CLOSING;
        self.fit &= answer.code < 500 && answer.code != CLOSING;
        Ok(answer)
    }

    fn weigh(&mut self, answer: Answer) -> Result<Answer, Setback> {
        self.fit &= answer.code < 500 && answer.code != CLOSING;
        match judge(answer.stage, answer.code, answer.enhanced) {
            Judgement::Go => Ok(answer),
            Judgement::Refused(refused) => {
                self.fit &= refused.failure.is_none();
                Err(Setback::refused(refused, answer))
            }
        }
    }

    /// After the final answer: back to the pool, or closed.
    fn release(self) {
        if self.fit && !self.in_data && self.broken.is_none() {
            self.upstreams.park(self.slot, self.connection);
        } else {
            self.close();
        }
    }

    fn close(self) {
        if !self.in_data {
            self.connection.farewell();
        }
    }

    async fn reset(mut self) {
        let until = Instant::now() + self.upstreams.settings.reset;
        if !self.connection.is_in_step() {
            return;
        }
        self.connection.client().rset();
        if self.connection.flush(until).await.is_ok()
            && self.hear(Stage::Rset, until).await.is_ok()
            && self.fit
        {
            self.upstreams.park(self.slot, self.connection);
        }
    }
}

/// "Service closing transmission channel" (RFC 5321 section 3.8), possible at any time.
const CLOSING: u16 = 421;

fn accepted(answer: Answer) -> RelayReply {
    RelayReply {
        accepted: true,
        client_reply: RECIPIENT_ACCEPTED.clone(),
        upstream_reply: answer.text,
        reason: Reason::Accepted,
        result: None,
    }
}

/// RFC 6531 section 3.5 and RFC 3463 X.6.7: the mail needs SMTPUTF8 (its client said so, or an address goes beyond
/// ASCII), and the upstream has none.
fn unspeakable() -> RelayReply {
    RelayReply {
        accepted: false,
        client_reply: Reply::new(550, (5, 6, 7), "Internationalized mail is not taken by the mail server"),
        upstream_reply: "(not asked: this mail needs SMTPUTF8)".to_owned(),
        reason: Reason::UpstreamRejected,
        result: None,
    }
}

impl From<Setback> for RelayReply {
    fn from(setback: Setback) -> Self {
        let Setback { reply, reason, upstream_reply, try_next: _, failure: _, result } = setback;
        Self {
            accepted: false,
            client_reply: reply,
            upstream_reply: upstream_reply.unwrap_or_default(),
            reason,
            result,
        }
    }
}

impl From<RelayReply> for Setback {
    fn from(reply: RelayReply) -> Self {
        let RelayReply { accepted: _, client_reply, upstream_reply, reason, result } = reply;
        Self {
            reply: client_reply,
            reason,
            upstream_reply: Some(upstream_reply),
            try_next: false,
            failure: None,
            result,
        }
    }
}
