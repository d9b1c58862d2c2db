//! From the Secrets that are there to those that must be written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::certificates::{Authority, Pair, Use, is_fresh};
use super::{EDGE_NAME, Error, Installation, OPERATOR_NAME, VERDICT_NAME};

/// A Secret that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) is_ours: bool,
    pub(super) not_after: Option<Timestamp>,
    pub(super) version: Option<String>,
    pub(super) data: BTreeMap<String, Vec<u8>>,
}

/// A Secret that is to be there.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) kind: &'static str,
    pub(super) not_after: Option<Timestamp>,
    pub(super) data: BTreeMap<String, Vec<u8>>,
}

/// The keys of a Secret of the type `kubernetes.io/tls`, and the one that cert-manager adds.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

const TLS: &str = "kubernetes.io/tls";
const OPAQUE: &str = "Opaque";

const STORE_KEY: &str = "store.key";
const PASSWORD: &str = "password";
/// Redis reads no bare password file, but an ACL file with the hash of it.
const USERS: &str = "users.acl";

/// Random bytes of a key or a password, which are written in hexadecimal.
const RANDOM: usize = 32;

/// All Secrets of an installation.
pub(super) fn names(installation: &Installation) -> Vec<String> {
    let certificates: Vec<String> = certificates(installation).into_iter().map(|(name, ..)| name).collect();
    let authority = (!certificates.is_empty()).then(|| authority_name(installation));
    let keys = keys(installation).into_iter().map(|(name, _)| name);
    authority.into_iter().chain(certificates).chain(keys).collect()
}

/// What must be written, by name. What is there and good is not among it.
pub(super) fn ensure(
    installation: &Installation,
    found: &BTreeMap<String, Found>,
    now: Timestamp,
) -> Result<BTreeMap<String, Made>, Error> {
    let mut made = BTreeMap::new();
    let certificates = certificates(installation);
    let is_given = |name: &str| found.get(name).is_some_and(|found| !found.is_ours);
    for (name, ..) in certificates.iter().filter(|(name, ..)| is_given(name)) {
        whole(installation, name, found, &[CERTIFICATE, KEY, AUTHORITY])?;
    }
    if !certificates.iter().all(|(name, ..)| is_given(name)) {
        let authority = authority(installation, found, now, &mut made)?;
        for (name, names, usage) in certificates.into_iter().filter(|(name, ..)| !is_given(name)) {
            let is_good = found.get(&name).is_some_and(|there| {
                there.text(AUTHORITY) == Some(&authority.certificate)
                    && there.text(CERTIFICATE).is_some()
                    && there.text(KEY).is_some()
                    && there.not_after.is_some_and(|not_after| is_fresh(not_after, now))
            });
            if !is_good {
                let pair = authority.sign(&names, usage, now)?;
                made.insert(name, Made::tls(pair, Some(authority.certificate.clone())));
            }
        }
    }
    for (name, keys) in keys(installation) {
        if found.contains_key(&name) {
            // Never written over: what it hides or guards would be lost.
            whole(installation, &name, found, keys)?;
        } else {
            made.insert(name, Made::random(keys)?);
        }
    }
    Ok(made)
}

fn authority(
    installation: &Installation,
    found: &BTreeMap<String, Found>,
    now: Timestamp,
    made: &mut BTreeMap<String, Made>,
) -> Result<Authority, Error> {
    let name = authority_name(installation);
    let prefix = &installation.prefix;
    if let Some(there) = found.get(&name) {
        let kept = (there.text(CERTIFICATE), there.text(KEY), there.not_after);
        return match kept {
            (Some(certificate), Some(key), Some(not_after)) if there.is_ours && not_after > now => {
                let pair = Pair { key: key.to_owned(), certificate: certificate.to_owned(), not_after };
                Ok(Authority::again(prefix, pair)?)
            }
            _ => Err(Error::Unusable(format!(
                "Secret {}/{name} is over, damaged or not ours, and certificates are to be signed by it; delete it to \
                 have a new one (edge, verdict and operator then trust one another again once all have restarted)",
                installation.namespace
            ))),
        };
    }
    let (authority, pair) = Authority::new(prefix, now)?;
    made.insert(name, Made::tls(pair, None));
    Ok(authority)
}

/// Whether a Secret has these keys.
fn whole(
    installation: &Installation,
    name: &str,
    found: &BTreeMap<String, Found>,
    keys: &[&str],
) -> Result<(), Error> {
    let Some(there) = found.get(name) else { return Ok(()) };
    let missing: Vec<&str> =
        keys.iter().copied().filter(|key| there.data.get(*key).is_none_or(Vec::is_empty)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::Unusable(format!(
            "Secret {}/{name} has no {}; add it, or delete the Secret to have a new one",
            installation.namespace,
            missing.join(", ")
        ))),
    }
}

fn authority_name(installation: &Installation) -> String {
    format!("{}-ca", installation.prefix)
}

/// The Secret, the names in its certificate, and what that is for.
fn certificates(installation: &Installation) -> Vec<(String, Vec<String>, Use)> {
    if installation.verdict_names.is_empty() {
        return Vec::new();
    }
    let name = |part: &str| format!("{}-{part}-tls", installation.prefix);
    let verdict = [VERDICT_NAME.to_owned()].into_iter().chain(installation.verdict_names.iter().cloned());
    vec![
        (name("edge"), vec![EDGE_NAME.to_owned()], Use::Client),
        (name("verdict"), verdict.collect(), Use::Server),
        (name("operator"), vec![OPERATOR_NAME.to_owned()], Use::Client),
    ]
}

/// Secrets of one random text each, and the keys that they have.
fn keys(installation: &Installation) -> Vec<(String, &'static [&'static str])> {
    let name = |part: &str| format!("{}-{part}", installation.prefix);
    let store_key = installation.store_key.then(|| (name("store-key"), [STORE_KEY].as_slice()));
    let redis = installation.redis.then(|| (name("redis-auth"), [PASSWORD, USERS].as_slice()));
    store_key.into_iter().chain(redis).collect()
}

// === impl Found ===

impl Found {
    fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.data.get(key)?).ok().filter(|text| !text.is_empty())
    }
}

// === impl Made ===

impl Made {
    fn tls(pair: Pair, authority: Option<String>) -> Self {
        let Pair { key, certificate, not_after } = pair;
        let authority = authority.map(|authority| (AUTHORITY, authority));
        let entries = [(CERTIFICATE, certificate), (KEY, key)].into_iter().chain(authority);
        let data = entries.map(|(key, text)| (key.to_owned(), text.into_bytes())).collect();
        Self { kind: TLS, not_after: Some(not_after), data }
    }

    fn random(keys: &[&str]) -> Result<Self, Error> {
        let mut bytes = [0; RANDOM];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        let secret = hex(&bytes);
        let users = format!("user default on #{} ~* &* +@all\n", hex(&Sha256::digest(&secret)));
        let text = |key: &str| if key == USERS { users.clone() } else { secret.clone() };
        let data = keys.iter().map(|key| ((*key).to_owned(), text(key).into_bytes())).collect();
        Ok(Self { kind: OPAQUE, not_after: None, data })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn mk_installation() -> Installation {
        Installation {
            namespace: "mail".to_owned(),
            prefix: "t".to_owned(),
            verdict_names: vec!["t-verdict.mail.svc".to_owned()],
            store_key: true,
            redis: true,
        }
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_796_083_200 + days * DAY).unwrap()
    }

    /// Puts what is made to what is there, as the API server would.
    fn run(found: &mut BTreeMap<String, Found>, days: i64) -> Vec<String> {
        let made = ensure(&mk_installation(), found, at(days)).unwrap();
        let names = made.keys().cloned().collect();
        for (name, Made { not_after, data, .. }) in made {
            found.insert(name, Found { is_ours: true, not_after, version: None, data });
        }
        names
    }

    #[test]
    fn what_is_missing_is_made_once_and_certificates_are_renewed_in_time() {
        let mut found = BTreeMap::new();
        let all = ["t-ca", "t-edge-tls", "t-operator-tls", "t-redis-auth", "t-store-key", "t-verdict-tls"];
        assert_eq!(run(&mut found, 0), all);
        assert_eq!(run(&mut found, 0), Vec::<String>::new());
        assert_eq!(run(&mut found, 182), Vec::<String>::new());
        let certificates = ["t-edge-tls", "t-operator-tls", "t-verdict-tls"];
        let authority = found["t-ca"].data.clone();
        assert_eq!(run(&mut found, 184), certificates);
        assert_eq!(run(&mut found, 184), Vec::<String>::new());
        found.remove("t-operator-tls");
        assert_eq!(run(&mut found, 185), ["t-operator-tls"]);
        assert_eq!(found["t-ca"].data, authority);
        assert_eq!(found["t-edge-tls"].data["ca.crt"], authority["tls.crt"]);
        // Another authority signs everything anew, and no key of the store goes with it.
        found.remove("t-ca");
        assert_eq!(run(&mut found, 186), ["t-ca", "t-edge-tls", "t-operator-tls", "t-verdict-tls"]);
    }

    #[test]
    fn what_somebody_else_wrote_is_kept_or_refused_and_never_written_over() {
        let given = |keys: &[&str]| Found {
            data: keys.iter().map(|key| ((*key).to_owned(), b"x".to_vec())).collect(),
            ..Found::default()
        };
        let mut found = BTreeMap::new();
        for name in ["t-edge-tls", "t-operator-tls", "t-verdict-tls"] {
            found.insert(name.to_owned(), given(&["tls.crt", "tls.key", "ca.crt"]));
        }
        found.insert("t-store-key".to_owned(), given(&["store.key"]));
        assert_eq!(run(&mut found.clone(), 0), ["t-redis-auth"]);
        for (name, lacking, text) in [
            ("t-edge-tls", given(&["tls.crt", "tls.key"]), "Secret mail/t-edge-tls has no ca.crt"),
            ("t-store-key", given(&["key"]), "Secret mail/t-store-key has no store.key"),
            ("t-redis-auth", given(&["password"]), "Secret mail/t-redis-auth has no users.acl"),
        ] {
            let found = BTreeMap::from([(name.to_owned(), lacking)]);
            let refused = ensure(&mk_installation(), &found, at(0)).unwrap_err().to_string();
            assert!(refused.starts_with(text), "{refused}");
        }
        let found = BTreeMap::from([("t-ca".to_owned(), given(&["tls.crt", "tls.key"]))]);
        assert!(ensure(&mk_installation(), &found, at(0)).unwrap_err().to_string().contains("mail/t-ca"));
    }

    #[test]
    fn only_what_is_asked_for_is_made() {
        let asked = |names: &[&str], store_key, redis| {
            let verdict_names = names.iter().map(|name| (*name).to_owned()).collect();
            let installation = Installation { verdict_names, store_key, redis, ..mk_installation() };
            let made = ensure(&installation, &BTreeMap::new(), at(0)).unwrap();
            made.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(asked(&[], false, false), Vec::<String>::new());
        assert_eq!(asked(&[], true, false), ["t-store-key"]);
        assert_eq!(asked(&[], false, true), ["t-redis-auth"]);
        assert_eq!(asked(&["v"], false, false), ["t-ca", "t-edge-tls", "t-operator-tls", "t-verdict-tls"]);
    }

    #[test]
    fn redis_reads_the_hash_of_the_password() {
        let Made { data, .. } = Made::random(&[PASSWORD, USERS]).unwrap();
        let hash = hex(&Sha256::digest(&data[PASSWORD]));
        assert_eq!(data[USERS], format!("user default on #{hash} ~* &* +@all\n").into_bytes());
        assert_ne!(data[PASSWORD], Made::random(&[PASSWORD]).unwrap().data[PASSWORD]);
    }

    #[test]
    fn an_authority_that_is_over_is_said_and_not_replaced_in_silence() {
        let mut found = BTreeMap::new();
        run(&mut found, 0);
        assert!(ensure(&mk_installation(), &found, at(3649)).is_ok());
        assert!(ensure(&mk_installation(), &found, at(3651)).is_err());
    }

    #[test]
    fn what_is_signed_before_and_after_a_renewal_is_trusted_by_both_sides() {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let mut found = BTreeMap::new();
        run(&mut found, 0);
        let roots = {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(&found["t-ca"].data["tls.crt"]).unwrap()).unwrap();
            std::sync::Arc::new(roots)
        };
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots, provider).build().unwrap();
        for day in [0, 200] {
            run(&mut found, day);
            let leaf = CertificateDer::from_pem_slice(&found["t-verdict-tls"].data["tls.crt"]).unwrap();
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                u64::try_from(at(day).as_second()).unwrap(),
            ));
            for (name, good) in
                [("torwart-verdict", true), ("t-verdict.mail.svc", true), ("torwart-edge", false)]
            {
                let name = ServerName::try_from(name).unwrap();
                let verified = rustls::client::danger::ServerCertVerifier::verify_server_cert(
                    &*verifier,
                    &leaf,
                    &[],
                    &name,
                    &[],
                    now,
                );
                assert_eq!(verified.is_ok(), good, "{name:?} on day {day}: {verified:?}");
            }
        }
    }
}
