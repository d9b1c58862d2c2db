//! The sender as it stands in the key. Mailing services put a fresh number into the sender of each message
//! (VERP, BATV, SRS); a retry, and the next message of a list, must still be the same triplet.
//!
//! Only the key is normalised. What goes upstream and into the log is the address as it was given.

use torwart_core::Mailbox;

/// First words of local parts, and of host labels, that machines bounce to. Digits after them are serial numbers.
/// Elsewhere they stay: `12345@qq.com` and `anna1985@example.org` are people.
const MACHINES: [&str; 18] = [
    "bounce",
    "bounces",
    "bnc",
    "return",
    "returns",
    "verp",
    "errors",
    "mailer",
    "campaign",
    "noreply",
    "reply",
    "donotreply",
    "notification",
    "notifications",
    "newsletter",
    "news",
    "fbl",
    "sg",
];

/// Hexadecimal digits in a row that are an id wherever they stand. Names in hex this long are not people's.
const HEX_ID: usize = 12;
/// Letters and digits in a row, mixed, that are an id wherever they stand.
const MIXED_ID: usize = 24;
/// Digits in a row that are an id wherever they stand: longer than any telephone number (E.164: 15).
const DIGIT_ID: usize = 16;
/// Letters in a row that no word has.
const LETTER_ID: usize = 20;
/// 8-4-4-4-12.
const UUID: usize = 36;

/// The sender's form for the key, in lower case; the null sender is empty.
pub fn normalise_sender(sender: Option<&Mailbox>) -> String {
    let Some(sender) = sender else {
        return String::new();
    };
    let local = sender.local.to_lowercase();
    let domain = sender.domain.strip_suffix('.').unwrap_or(&sender.domain).to_lowercase();
    normalise(&local, &domain)
}

/// Both in lower case.
fn normalise(local: &str, domain: &str) -> String {
    if local.starts_with('"') {
        return join(local, domain);
    }
    if let Some(original) = rewritten(local) {
        // Behind a forwarder stands a person, or a list: each normalised for what it is.
        let (local, original_domain) = original;
        return join(&normalise(local, original_domain), domain);
    }
    let local = without_signature(local);
    let local = without_tag(local);
    let machine = is_machine(local, domain);
    if !machine && !has_id(local) {
        return join(local, domain);
    }
    let domain = if machine { psl::domain_str(domain).unwrap_or(domain) } else { domain };
    join(&without_numbers(local), domain)
}

fn join(local: &str, domain: &str) -> String {
    let mut key = String::with_capacity(local.len() + domain.len() + 1);
    key.push_str(local);
    key.push('@');
    key.push_str(domain);
    key
}

/// SRS (`srs0=HASH=TT=domain=local`, `srs1=HASH=host==HASH=TT=domain=local`, and Microsoft's
/// `bounces+srs=HASH=TT@domain`, which keeps no original): the original local part and domain.
fn rewritten(local: &str) -> Option<(&str, &str)> {
    let is_separator = |c| matches!(c, '=' | '+' | '-');
    let mut rest = local
        .strip_prefix("srs1")
        .filter(|rest| rest.starts_with(is_separator))
        .and_then(|rest| {
            rest.split_once("==").or_else(|| rest.split_once("=+")).or_else(|| rest.split_once("=-"))
        })
        .map(|(_, rest)| rest)
        .or_else(|| {
            local.strip_prefix("srs0").filter(|rest| rest.starts_with(is_separator)).map(|rest| &rest[1..])
        })
        .or_else(|| local.split_once("+srs=").map(|(_, rest)| rest))?;
    for _hash_then_time in 0..2 {
        rest = rest.split_once('=')?.1;
    }
    let (domain, local) = rest.split_once('=')?;
    (!domain.is_empty() && !local.is_empty()).then_some((local, domain))
}

/// BATV (`prvs=0123456789=local`, and with the fields swapped), Barracuda's `btv1==HASH==local` and
/// SparkPost's `msprvs1=HASH=local`.
fn without_signature(local: &str) -> &str {
    if let Some(rest) = local.strip_prefix("btv1==") {
        return rest.split_once("==").map_or(local, |(_, local)| local);
    }
    if let Some(rest) = local.strip_prefix("msprvs1=") {
        return rest.split_once('=').map_or(local, |(_, local)| local);
    }
    let Some((first, second)) = local.strip_prefix("prvs=").and_then(|rest| rest.split_once(['=', '/']))
    else {
        return local;
    };
    // draft-levine-smtp-batv: a digit, three digits of the day, six of the hash.
    let is_tag = |text: &str| text.len() == 10 && text.bytes().all(|c| c.is_ascii_hexdigit());
    if is_tag(second) && !is_tag(first) { first } else { second }
}

fn without_tag(local: &str) -> &str {
    match local.find('+') {
        None | Some(0) => local,
        Some(at) => &local[..at],
    }
}

fn is_machine(local: &str, domain: &str) -> bool {
    local.contains('=') || words(local).any(is_machine_word) || {
        let registrable = psl::domain_str(domain).unwrap_or(domain);
        let host = domain.strip_suffix(registrable).unwrap_or_default();
        words(host).any(is_machine_word)
    }
}

fn is_machine_word(word: &str) -> bool {
    let name = word.trim_end_matches(|c: char| c.is_ascii_digit());
    MACHINES.contains(&name)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Whether there is something in it that can only be an id.
fn has_id(local: &str) -> bool {
    local.len() >= HEX_ID.min(DIGIT_ID) && (words(local).any(is_id) || has_uuid(local))
}

fn has_uuid(local: &str) -> bool {
    local.as_bytes().windows(UUID).any(is_uuid)
}

fn is_id(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let hex = word.bytes().all(|c| c.is_ascii_hexdigit());
    match word.len() {
        length if digits == length => length >= DIGIT_ID,
        length if hex && digits > 0 => length >= HEX_ID,
        length => word.is_ascii() && length >= MIXED_ID && digits >= 4,
    }
}

/// Every id and number becomes `#`, in a local part that is known to be a machine's.
fn without_numbers(local: &str) -> String {
    let mut key = String::with_capacity(local.len());
    let mut rest = local;
    while let Some(first) = rest.chars().next() {
        if let Some(uuid) = rest.get(..UUID).filter(|text| is_uuid(text.as_bytes())) {
            push_number(&mut key);
            rest = &rest[uuid.len()..];
            continue;
        }
        if !first.is_alphanumeric() {
            key.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        push_word(&mut key, word);
        rest = after;
    }
    key
}

/// `us12` is a name and a number, `9abc` and `d2b4f6` are numbers, `bounce` is a name.
fn push_word(key: &mut String, word: &str) {
    let name = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let hex = word.bytes().all(|c| c.is_ascii_hexdigit());
    let has_digit = word.bytes().any(|c| c.is_ascii_digit());
    let numbered_name =
        name.len() < word.len() && !name.is_empty() && !name.bytes().any(|c| c.is_ascii_digit());
    match word.len() {
        length if !has_digit && length < LETTER_ID && !(hex && length >= 8) => key.push_str(word),
        length if numbered_name && length < MIXED_ID && !(hex && length >= 6) => {
            key.push_str(name);
            key.push('#');
        }
        _ => push_number(key),
    }
}

/// Numbers in a row are one: services differ in how many parts an id has from day to day.
fn push_number(key: &mut String) {
    if key.ends_with("#-") || key.ends_with("#.") {
        key.pop();
    } else {
        key.push('#');
    }
}

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(i, c)| match i {
        8 | 13 | 18 | 23 => *c == b'-',
        _ => c.is_ascii_hexdigit(),
    })
}
