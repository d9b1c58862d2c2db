//! Query keys: read from files, put into names, shown nowhere.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use torwart_policy::dns_lists::{DnsList, reversed};

use super::parse_name;
use crate::dns::Name;

/// A list's zone with its key in front. What it shows of itself is the zone.
#[derive(Clone)]
pub(super) struct SecretZone {
    shown: Arc<str>,
    key: Option<Arc<str>>,
    asked: Name,
}

/// Spamhaus' keys have 26 characters. A larger file is none.
const LONGEST_FILE: u64 = 1024;
const LONGEST_KEY: usize = 128;
/// The longest name that has to fit in front of a zone.
const WIDEST: [u16; 8] = [0xffff; 8];

// === impl SecretZone ===

impl SecretZone {
    /// Reads the key, if the list has one.
    ///
    /// # Errors
    /// Says which file is of no use and why, never what is in it.
    pub(super) async fn read(list: &DnsList, secrets: Option<&Path>) -> Result<Self, String> {
        let Some(file) = &list.key_file else { return Self::new(&list.zone, None) };
        let Some(secrets) = secrets else {
            return Err(format!("keyFile is {file}, but there is no --secrets-dir"));
        };
        let path = secrets.join(&**file);
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
        let key = read.unwrap_or_else(|_| Err("can't be read".to_owned()));
        let key = key.map_err(|why| format!("{shown}: {why}"))?;
        Self::new(&list.zone, Some(&key)).map_err(|why| format!("{shown}: {why}"))
    }

    fn new(zone: &Arc<str>, key: Option<&str>) -> Result<Self, String> {
        let text = key.map_or_else(|| zone.to_string(), |key| format!("{key}.{zone}"));
        let asked = parse_name(&text).ok_or("it makes no name of a zone")?;
        let zone = Self { shown: Arc::clone(zone), key: key.map(Arc::from), asked };
        let widest = parse_name(&reversed(WIDEST.into())).map(|name| name.append_name(&zone.asked));
        if !matches!(widest, Some(Ok(_))) {
            return Err("the zone's name is too long to stand behind an address".to_owned());
        }
        Ok(zone)
    }

    /// The zone's name without the key.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// What to ask for about `front`, which [`reversed`] has made.
    pub(super) fn name(&self, front: &str) -> Name {
        let mut name = Name::from_ascii(front).unwrap_or_default();
        name.set_fqdn(false);
        // It fits, as was seen when this was made.
        name.append_name(&self.asked).unwrap_or_default()
    }

    /// `text`, with the key taken out wherever it stands, in whatever case.
    pub(super) fn redacted(&self, text: &str) -> String {
        let Some(key) = &self.key else { return text.to_owned() };
        let (lower, key) = (text.to_ascii_lowercase(), key.to_ascii_lowercase());
        let mut redacted = String::with_capacity(text.len());
        let mut end = 0;
        for (at, _) in lower.match_indices(&key) {
            redacted.push_str(text.get(end..at).unwrap_or_default());
            redacted.push_str("***");
            end = at + key.len();
        }
        redacted.push_str(text.get(end..).unwrap_or_default());
        redacted
    }
}

impl fmt::Debug for SecretZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretZone").field("shown", &self.shown).finish_non_exhaustive()
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LONGEST_FILE {
        return Err(format!("has {size} bytes, which is no query key"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let key = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let labels =
        key.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.chars().all(plain));
    if key.len() > LONGEST_KEY || !labels {
        return Err("is no query key, which is made of letters, digits, hyphens and dots".to_owned());
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use torwart_policy::dns_lists::{ListKind, ListProbe};

    use super::*;

    const KEY: &str = "Abc123def456";

    fn mk_list(key_file: Option<&str>) -> DnsList {
        DnsList {
            name: "zen".into(),
            zone: "zen.example".into(),
            kind: ListKind::Block,
            key_file: key_file.map(Into::into),
            responses: Vec::new(),
            probe: ListProbe::default(),
        }
    }

    async fn read(content: &str) -> Result<SecretZone, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("zen.key"), content).unwrap();
        SecretZone::read(&mk_list(Some("zen.key")), Some(folder.path())).await
    }

    #[tokio::test]
    async fn a_key_stands_in_front_of_the_zone_and_is_shown_nowhere() {
        let zone = read(&format!("{KEY}\n")).await.unwrap();
        assert_eq!(zone.name("2.0.0.127").to_ascii(), format!("2.0.0.127.{KEY}.zen.example."));
        assert_eq!(zone.shown(), "zen.example");
        assert!(!format!("{zone:?}").to_lowercase().contains(&KEY.to_lowercase()), "{zone:?}");
        let text = format!("see https://x.example/?k={} or {}!", KEY, KEY.to_uppercase());
        assert_eq!(zone.redacted(&text), "see https://x.example/?k=*** or ***!");
    }

    #[tokio::test]
    async fn without_a_key_file_the_zone_is_asked_as_it_is() {
        let zone = SecretZone::read(&mk_list(None), None).await.unwrap();
        let nibbles = reversed("2001:db8::1".parse().unwrap());
        assert_eq!(zone.name(&nibbles).to_ascii(), format!("{nibbles}.zen.example."));
        assert_eq!(zone.redacted("as it is"), "as it is");
    }

    #[tokio::test]
    async fn a_file_that_is_no_key_is_named_and_its_content_is_not() {
        for content in
            ["", "two words", "a..b", "secret!", &"x".repeat(64), &"x.".repeat(100), &"x".repeat(5000)]
        {
            let error = read(content).await.unwrap_err();
            assert!(error.contains("zen.key") && !error.contains("secret!"), "{content:?}: {error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let missing = SecretZone::read(&mk_list(Some("zen.key")), Some(folder.path())).await.unwrap_err();
        assert!(missing.contains("zen.key"), "{missing}");
        let nowhere = SecretZone::read(&mk_list(Some("zen.key")), None).await.unwrap_err();
        assert!(nowhere.contains("--secrets-dir"), "{nowhere}");
    }

    #[test]
    fn a_zone_that_leaves_no_room_for_an_address_is_refused() {
        let long: Arc<str> = format!("{}example", "a23456789.".repeat(18)).into();
        assert!(
            SecretZone::new(&long, None).is_ok_and(|zone| zone.name("1.2").num_labels() > 10)
                == (long.len() <= 188)
        );
        let longer: Arc<str> = format!("{}example", "a23456789.".repeat(20)).into();
        assert!(SecretZone::new(&longer, None).is_err());
    }
}
