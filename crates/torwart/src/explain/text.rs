//! The report for people: what is heard, then what decided, line by line.

use std::io::{self, Write};

use torwart_core::{Greylist, Mailbox, Reason, RecipientVerdict, Route};
use torwart_edge::{Foretold, Moment};
use torwart_policy::decide::{Level, Step};
use torwart_policy::model::Enforcement;
use torwart_verdict::explain::{GreylistSeen, ListSeen, RangeSeen, Why};

use super::json::{protocol, rounded, word_of};
use super::report::{RecipientReport, Report, RetryReport};

/// The longest label and a blank.
const LABELS: usize = 12;

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for recipient in &report.recipients {
        writeln!(out, "{}: {}", recipient.to, verdict_line(&recipient.heard))?;
        for (label, text) in lines(report, recipient) {
            writeln!(out, "  {label:LABELS$} {text}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "  {:LABELS$} {}", "revision", report.revision)?;
    for note in &report.notes {
        writeln!(out, "  {:LABELS$} {note}", "note")?;
    }
    Ok(())
}

fn verdict_line(heard: &Foretold) -> String {
    let Foretold { moment, action, reply, reason } = heard;
    let at = match moment {
        Moment::Connection => " before the banner",
        Moment::Mail => " at MAIL",
        Moment::Recipient => "",
        Moment::Data => " at DATA",
        Moment::Message => " at the message's end",
    };
    format!("{}{at}, {reply} ({})", action.as_str(), reason.as_str())
}

fn lines(report: &Report, recipient: &RecipientReport) -> Vec<(&'static str, String)> {
    let RecipientReport { to, heard, judged, retry } = recipient;
    let Some((verdict, why)) = judged else {
        return vec![("decided by", early(report, heard))];
    };
    let mut lines = vec![("decided by", decided(report, to, heard, verdict, why))];
    if let (Some(domain), Some(object)) = (&verdict.domain, &verdict.object) {
        lines.push(("mail domain", format!("{domain} (MailDomain {object})")));
    }
    if let Some(deliver_to) = &verdict.deliver_to {
        lines.push(("goes to", deliver_to.to_string()));
    }
    if let Some(monitored) = verdict.monitored {
        let (action, reason) = (monitored.action.as_str(), monitored.reason.as_str());
        lines.push(("monitor", format!("lets it pass; enforced it would be {action} ({reason})")));
    } else if why.enforcement == Some(Enforcement::Monitor) {
        lines.push(("monitor", "nothing is enforced here but what protects the gateway itself".to_owned()));
    }
    if let Some(range) = &why.range {
        lines.push(("IP range", range_line(range)));
    } else if why.scoring.is_some() {
        lines.push(("IP range", "none holds".to_owned()));
    }
    match (&why.greylist, verdict.greylist) {
        (Some(seen), _) => lines.push(("greylist key", key(to, seen))),
        (None, Some(word)) => lines.push(("greylist", word.as_str().to_owned())),
        (None, None) => {}
    }
    if let Some(retry) = retry {
        lines.push(("retry", retry_line(retry)));
    }
    if let Some(scoring) = why.scoring {
        let (tag, grey) = (rounded(scoring.tag_at), rounded(scoring.greylist_at));
        let (score, reject) = (rounded(verdict.score), rounded(scoring.reject_at));
        lines.push(("score", format!("{score} (tagAt {tag}, greylistAt {grey}, rejectAt {reject})")));
    }
    if let Some(message) = &report.message {
        let (action, reason) = (message.action.as_str(), message.reason.as_str());
        lines.push(("message", format!("{action} ({reason}), score {} with it", rounded(message.score))));
    }
    for check in &report.checks {
        let (name, result, score) = (&check.name, check.result.as_str(), rounded(check.score));
        lines.push(("check", format!("{name} {result} {score} {}", check.detail)));
    }
    let later = || retry.as_ref().and_then(|retry| retry.route.as_deref());
    if let Some(route) = why.route.as_deref().or_else(later) {
        lines.push(("route", route_line(route)));
    }
    lines
}

/// The session never came to its recipients.
fn early(report: &Report, heard: &Foretold) -> String {
    let range = || ruled(report.connection_range.as_ref());
    match heard.moment {
        Moment::Connection => range(),
        Moment::Mail | Moment::Recipient | Moment::Data | Moment::Message => {
            "an IP range of the MailGateway that requires TLS; --tls tells what is heard after STARTTLS"
                .to_owned()
        }
    }
}

fn decided(report: &Report, to: &Mailbox, heard: &Foretold, verdict: &RecipientVerdict, why: &Why) -> String {
    match heard.reason {
        Reason::OtherClass => {
            return "another recipient's route: the sender brings this one again, in a mail of its own"
                .to_owned();
        }
        Reason::TooManyRecipients => {
            let limit = why.max_recipients.unwrap_or_default();
            return format!("too many recipients for one mail (limits.recipients {limit}, with LMTP 1)");
        }
        _ => {}
    }
    if heard.moment == Moment::Message {
        return "the checks of the message".to_owned();
    }
    if heard.moment == Moment::Data && verdict.refuse_data.is_none() {
        return "another recipient of this mail, for which DATA is refused".to_owned();
    }
    let range = || ruled(why.range.as_ref());
    let listed = || why.listed.as_ref().map(list_line).unwrap_or_default();
    match why.step {
        Step::Domain if verdict.reason == Reason::UnknownDomain => {
            format!("no MailDomain names {}", to.domain)
        }
        Step::Domain if verdict.reason == Reason::RemovedDomain => {
            format!("{} has just left the policy (removalGrace)", to.domain)
        }
        Step::Domain if to.is_bare_postmaster() => {
            "the MailGateway's postmaster is not set, or has no MailDomain".to_owned()
        }
        Step::Domain => {
            "a part of the policy that can't be used, which names this mail domain or may name it".to_owned()
        }
        Step::RoutedLocalPart => "a local part that names a further route (%, ! or @)".to_owned(),
        Step::DeclaredSize => format!("limits.messageSize: {} bytes", verdict.size_limit),
        Step::RefusingRange | Step::TrustedRange => range(),
        Step::MissingTls => "an IP range of the MailGateway, over TLS only".to_owned(),
        Step::DeniedRecipient | Step::SenderLists => listed(),
        Step::ExemptRecipient if why.listed.is_none() => "<Postmaster> is always heard".to_owned(),
        Step::ExemptRecipient => listed(),
        Step::Score => "the score, which is at or above rejectAt".to_owned(),
        Step::UngreylistedRecipient => "greylisting.exemptRecipients, which names this local part".to_owned(),
        Step::GreylistingOff => "greylisting, which is Off here".to_owned(),
        Step::SuspectClient => format!(
            "the client address guard: {} can't be a sender's on the internet, and no IP range names it; it is neither \
             greylisted nor remembered",
            report.client
        ),
        Step::NotSuspicious => "greylisting: nothing is suspicious here".to_owned(),
        Step::Greylist => greylisting(verdict, why),
    }
}

fn greylisting(verdict: &RecipientVerdict, why: &Why) -> String {
    let word = verdict.greylist.map_or("no answer", Greylist::as_str);
    let wait = why.greylist.as_ref().and_then(|seen| seen.wait).filter(|wait| *wait > 0);
    match wait {
        Some(wait) if verdict.monitored.is_some() => {
            format!("greylisting, {word}: would be deferred and pass after {}, were it enforced", time(wait))
        }
        Some(wait) => format!("greylisting, {word}: deferred; passes after {}", time(wait)),
        None => format!("greylisting, {word}"),
    }
}

fn key(to: &Mailbox, seen: &GreylistSeen) -> String {
    let sender = if seen.sender.is_empty() { "<>" } else { &seen.sender };
    let once = if seen.single_use { "; a pass is good for one mail" } else { "" };
    format!("{}, {sender}, {to}{once}", seen.identities.join(" or "))
}

fn retry_line(retry: &RetryReport) -> String {
    let RetryReport { after, heard, verdict, route: _ } = retry;
    let word = verdict.greylist.map(|word| format!(", greylist {}", word.as_str())).unwrap_or_default();
    format!("after {}: {}{word}", time(*after), verdict_line(heard))
}

fn ruled(range: Option<&RangeSeen>) -> String {
    range.map_or_else(|| "an IP range".to_owned(), |range| format!("IP range {}", range_line(range)))
}

fn range_line(range: &RangeSeen) -> String {
    let RangeSeen { name, level, action } = range;
    format!("{name} of the {}: {}", kind(*level), word_of(*action))
}

fn list_line(seen: &ListSeen) -> String {
    let ListSeen { list, level, pattern } = seen;
    let word = pattern.as_ref().map_or_else(|| "does not name it".to_owned(), Clone::clone);
    format!("{list} of the {}: {word}", kind(*level))
}

fn route_line(route: &Route) -> String {
    let many = route.upstreams.len() > 1;
    let upstreams = route.upstreams.iter().map(|upstream| match many {
        true => format!("{upstream} (priority {}, weight {})", upstream.priority, upstream.weight),
        false => upstream.to_string(),
    });
    format!("{} to {}, which has the last word", protocol(route), upstreams.collect::<Vec<_>>().join(", "))
}

fn kind(level: Level) -> &'static str {
    match level {
        Level::Gateway => "MailGateway",
        Level::Domain => "MailDomain",
    }
}

fn time(seconds: u32) -> String {
    torwart_api::Duration::from_secs(seconds.into()).to_string()
}
