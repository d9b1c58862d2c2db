//! A check for tests of the way that a held message takes: the message says itself what becomes of it, in a line of its
//! header.
//!
//! | `X-Test-Verdict:` | what the check does |
//! |---|---|
//! | `reject` | 550 5.7.1 |
//! | `defer` | 450 4.7.1 |
//! | `delay MILLISECONDS` | accepts after so long |
//! | `hang` | never answers |
//! | `tag` | accepts, with a score and fields that say so |
//! | anything else, or none | accepts |

use std::time::Duration;

use torwart_core::{Action, CheckOutcome, CheckResult, MessageAnswer, Reason, Reply};

const FIELD: &str = "X-Test-Verdict:";

/// What the message wants of `answer`.
pub(super) async fn judge(answer: MessageAnswer, beginning: &[u8], size: u64) -> MessageAnswer {
    let wish = wish(beginning);
    let mut words = wish.split_ascii_whitespace();
    let (action, reply, score) = match words.next() {
        Some("reject") => (Action::Reject, Some(Reply::new(550, (5, 7, 1), "The message asks for it")), 10.0),
        Some("defer") => (Action::Defer, Some(Reply::new(450, (4, 7, 1), "The message asks for it")), 5.0),
        Some("tag") => (Action::Accept, None, 4.5),
        Some("hang") => std::future::pending().await,
        Some("delay") => {
            let milliseconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            (Action::Accept, None, 0.0)
        }
        _ => (Action::Accept, None, 0.0),
    };
    let check = CheckResult {
        name: "scanner/test".into(),
        result: if action == Action::Accept { CheckOutcome::Clean } else { CheckOutcome::Listed },
        score,
        detail: format!("{} of {size} bytes seen", beginning.len()).into(),
        milliseconds: 0,
    };
    let score = answer.score + score;
    let tag = wish.starts_with("tag");
    let fields = [
        "Authentication-Results: mx.example.net;\r\n\tnone".to_owned(),
        "X-Torwart-Score: 4.5".to_owned(),
        "X-Torwart-Status: Yes,\r\n\tscore=4.5".to_owned(),
    ];
    MessageAnswer {
        action,
        reply,
        reason: if action == Action::Accept { answer.reason } else { Reason::Score },
        score,
        checks: vec![check],
        add_fields: if tag { fields.map(Into::into).to_vec() } else { Vec::new() },
        remove_fields: if tag { vec!["X-Spam-*".into()] } else { Vec::new() },
        ..answer
    }
}

fn wish(beginning: &[u8]) -> String {
    let lines = beginning.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
    let mut header = lines.take_while(|line| line.as_ref() != "\r");
    let found = header.find_map(|line| line.strip_prefix(FIELD).map(|wish| wish.trim().to_owned()));
    found.unwrap_or_default()
}
