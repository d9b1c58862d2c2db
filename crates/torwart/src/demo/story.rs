//! The steps of the demo, each with what must be true after it.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::narrator::Narrator;
use super::sender::{Heard, Sender};
use super::upstream::Upstream;
use super::{DELAY_SECONDS, Kept};
use crate::gateway::Gateway;

const RECIPIENT: &str = "anna@demo.example";
const FRIEND: &str = "bert@partner.example";
/// The log's thread needs some milliseconds; this much means that it is not coming.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells the whole story. An error is a connection that broke where none should.
pub(super) async fn tell(
    story: &mut Narrator,
    gateway: &Gateway,
    upstream: &Upstream,
    log: &Kept,
) -> anyhow::Result<()> {
    introduce(story, gateway, upstream)?;
    robot(story, gateway, upstream).await.context("the spam robot")?;
    real_server(story, gateway, upstream).await.context("the real mail server")?;
    relay(story, gateway).await.context("the relay attempt")?;
    smuggling(story, gateway, upstream).await.context("the smuggling attempt")?;
    mail_log(story, log).await;
    metrics(story, gateway).await.context("the metrics")?;
    story.title(&format!("\n{} checks passed, {} failed.", story.passed(), story.failed()));
    if story.failed() == 0 {
        story.say("Next: put it in front of your own server. README.md, \"In front of your mail server\".");
    }
    Ok(())
}

fn introduce(story: &Narrator, gateway: &Gateway, upstream: &Upstream) -> anyhow::Result<()> {
    let smtp = gateway.smtp_addresses().first().context("the gateway listens nowhere")?;
    story.title("Torwart, the whole story in a minute");
    story.say(&format!("Your mail server (a small one, built in) listens on {}.", upstream.address));
    story.say(&format!("Torwart stands in front of it on {smtp}, for the mail domain demo.example."));
    story.say(&format!(
        "A new sender must wait {DELAY_SECONDS} seconds here; in real life the default is 5 minutes."
    ));
    Ok(())
}

/// MAIL and RCPT of one attempt; what RCPT heard.
async fn attempt(
    story: &mut Narrator,
    gateway: &Gateway,
    helo: &str,
    from: &str,
    to: &str,
) -> anyhow::Result<(Sender, Heard)> {
    let smtp = gateway.smtp_addresses().first().context("the gateway listens nowhere")?;
    let mut sender = Sender::connect(*smtp, helo, story).await?;
    sender.say(&format!("MAIL FROM:<{from}>"), story).await?;
    let heard = sender.say(&format!("RCPT TO:<{to}>"), story).await?;
    Ok((sender, heard))
}

async fn robot(story: &mut Narrator, gateway: &Gateway, upstream: &Upstream) -> anyhow::Result<()> {
    story.step("A spam robot tries once and goes away");
    let (sender, heard) =
        attempt(story, gateway, "dsl-4711.example", "winner@lottery.example", RECIPIENT).await?;
    sender.quit().await;
    story.expect(heard.code == 450, "it is asked to come back later (450). Robots rarely do");
    story.expect(upstream.connections() == 0, "your mail server never heard of it");
    Ok(())
}

async fn real_server(story: &mut Narrator, gateway: &Gateway, upstream: &Upstream) -> anyhow::Result<()> {
    story.step("A real mail server tries, is asked to wait, and keeps the mail in its queue");
    let (sender, heard) = attempt(story, gateway, "mail.partner.example", FRIEND, RECIPIENT).await?;
    let first = Instant::now();
    sender.quit().await;
    story.expect(heard.code == 450, "it is asked to come back later, too");

    story.step("It comes back too early");
    let (sender, heard) = attempt(story, gateway, "mail.partner.example", FRIEND, RECIPIENT).await?;
    sender.quit().await;
    story
        .expect(heard.code == 450, "it is told how long to wait; coming early does not make the wait longer");

    story.step("It comes back in time");
    story.say("(waiting)");
    // The gateway counts whole seconds, so the delay may look one longer from outside.
    sleep_until(first + Duration::from_secs(DELAY_SECONDS) + Duration::from_millis(1100)).await;
    let (mut sender, heard) = attempt(story, gateway, "mail.partner.example", FRIEND, RECIPIENT).await?;
    story.expect(heard.code == 250, "your mail server was asked, and takes the recipient");
    let heard = sender.say("DATA", story).await?;
    story.expect(heard.code == 354, "the message may come");
    let message = b"From: Bert <bert@partner.example>\r\nTo: Anna <anna@demo.example>\r\n\
        Subject: Lunch\r\n\r\nTomorrow at noon?\r\n.\r\n";
    let heard = sender.send_raw(message, story).await?;
    sender.quit().await;
    story.expect(heard.code == 250, "the sender hears 250 only now that your mail server has said it");

    story.say("The mail as it reached your mail server:");
    let mails = upstream.mails();
    for line in mails.iter().flat_map(|mail| &mail.lines) {
        story.exhibit(line);
    }
    let received = |line: &String| line.starts_with("Received: from mail.partner.example");
    let arrived = mails.first().filter(|mail| mail.sender == FRIEND && mail.recipients == [RECIPIENT]);
    story
        .expect(mails.len() == 1 && arrived.is_some(), "it arrived once, with the envelope it was sent with");
    story.expect(
        arrived.is_some_and(|mail| mail.lines.first().is_some_and(received)),
        "a Received field tells the way",
    );
    Ok(())
}

async fn relay(story: &mut Narrator, gateway: &Gateway) -> anyhow::Result<()> {
    story.step("Someone tries to send mail to the world through you");
    let (mut sender, heard) =
        attempt(story, gateway, "relay.example", "me@demo.example", "you@elsewhere.example").await?;
    story.expect(heard.code == 550, "refused: only recipients that the policy names are accepted");
    let heard = sender.say("RCPT TO:<you%elsewhere.example@demo.example>", story).await?;
    story.expect(heard.code == 553, "the old trick with the percent sign is refused as well");
    sender.quit().await;
    Ok(())
}

async fn smuggling(story: &mut Narrator, gateway: &Gateway, upstream: &Upstream) -> anyhow::Result<()> {
    story.step("Someone hides a second mail inside a message, behind a bare line feed");
    story.say("(a sender that was delivered before does not wait again)");
    let before = upstream.mails().len();
    let (mut sender, heard) = attempt(story, gateway, "mail.partner.example", FRIEND, RECIPIENT).await?;
    story.expect(heard.code == 250, "the known sender passes at once");
    sender.say("DATA", story).await?;
    let message = b"Subject: harmless\r\n\r\nHello\n.\r\nMAIL FROM:<boss@demo.example>\r\n\
        RCPT TO:<anna@demo.example>\r\nDATA\r\nSubject: forged\r\n\r\nPay at once\r\n.\r\n";
    let heard = sender.send_raw(message, story).await?;
    sender.quit().await;
    story.expect(heard.code == 550, "refused (SMTP smuggling, as in CVE-2023-51764)");
    story.expect(upstream.mails().len() == before, "neither mail reached your mail server");
    Ok(())
}

async fn mail_log(story: &mut Narrator, log: &Kept) {
    story.step("What the mail log says: one line of JSON per transaction");
    let deadline = Instant::now() + PATIENCE;
    // Six transactions: robot, three of the real server, relay, smuggling.
    while log.lines().len() < 6 && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let lines = log.lines();
    let parsed: Vec<serde_json::Value> =
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for line in lines.iter().take(6) {
        story.exhibit(line);
    }
    let with = |key: &str, value: &str| parsed.iter().filter(|line| line[key] == value).count();
    story.expect(lines.len() == parsed.len() && parsed.len() >= 6, "every transaction is there");
    story.expect(with("action", "accept") == 1, "one was accepted");
    story.expect(with("reason", "bare_newline") == 1, "one was refused for its bare line feed");
}

async fn metrics(story: &mut Narrator, gateway: &Gateway) -> anyhow::Result<()> {
    story.step("What the metrics say");
    let address = gateway.admin_address();
    story.say(&format!("curl http://{address}/metrics"));
    let text = timeout(PATIENCE, fetch(address)).await??;
    let shown = ["torwart_greylist_total", "torwart_messages_total", "torwart_verdicts_total"];
    for line in text.lines().filter(|line| shown.iter().any(|name| line.starts_with(name))) {
        if !line.ends_with(" 0") {
            story.exhibit(line);
        }
    }
    let says = |line: &str| text.lines().any(|found| found == line);
    story.expect(says("torwart_greylist_total{outcome=\"new\"} 2"), "two new senders were asked to wait");
    story.expect(says("torwart_greylist_total{outcome=\"early\"} 1"), "one came too early");
    Ok(())
}

async fn fetch(address: std::net::SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: torwart\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
