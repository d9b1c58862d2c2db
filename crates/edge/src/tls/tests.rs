use std::path::Path;

use rcgen::{CertificateParams, CertifiedKey as Issued, KeyPair, date_time_ymd, generate_simple_self_signed};
use tempfile::TempDir;

use super::*;

fn issue(folder: &Path, name: &str) -> CertificateFiles {
    let files = CertificateFiles {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    let Issued { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    files
}

#[test]
fn every_mistake_is_reported_with_its_file() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (issue(folder.path(), "one.example"), issue(folder.path(), "two.example"));
    let missing = CertificateFiles { certificate: folder.path().join("none.pem"), key: one.key.clone() };
    let mixed = CertificateFiles { certificate: one.certificate.clone(), key: two.key.clone() };
    let swapped = CertificateFiles { certificate: one.key.clone(), key: one.key.clone() };
    let keyless = CertificateFiles { certificate: one.certificate.clone(), key: one.certificate.clone() };
    let mistakes = check_certificates(&[missing, mixed, one.clone(), swapped, keyless]);
    let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    for (text, part) in
        shown.iter().zip(["none.pem", "do not fit together", "no certificate", "no private key"])
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(check_certificates(&[one, two]).is_empty());
}

#[test]
fn without_files_there_is_no_tls() {
    assert!(Certificates::load(&[]).unwrap().is_none());
}

#[test]
fn an_expired_certificate_is_used_and_gives_one_alarm() {
    let folder = TempDir::new().unwrap();
    let files = issue(folder.path(), "mx.example");
    let mut params = CertificateParams::new(vec!["mx.example".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2021, 1, 1);
    let renew = || {
        let key = KeyPair::generate().unwrap();
        std::fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    };
    renew();
    let certificates = Certificates::load(std::slice::from_ref(&files)).unwrap().unwrap();
    let until = 1_609_459_200;
    assert_eq!(certificates.not_after(), [until]);
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    assert_eq!([until, until + 1, until + 2].map(|now| certificates.sound_alarm(at(now))), [0, 1, 0]);
    renew();
    certificates.reload();
    assert_eq!(certificates.sound_alarm(at(until + 3)), 1, "the new one is no better");
    issue(folder.path(), "mx.example");
    certificates.reload();
    assert_eq!(certificates.sound_alarm(UnixTime::now()), 0);
}

#[test]
fn a_changed_pair_replaces_its_own_place_only() {
    let folder = TempDir::new().unwrap();
    let pairs = [issue(folder.path(), "one.example"), issue(folder.path(), "two.example")];
    let certificates = Certificates::load(&pairs).unwrap().unwrap();
    let ends = || -> Vec<Vec<u8>> {
        certificates.current.load().iter().map(|key| key.end_entity_cert().unwrap().to_vec()).collect()
    };
    let before = ends();
    certificates.reload();
    assert_eq!(ends(), before);
    issue(folder.path(), "two.example");
    certificates.reload();
    let after = ends();
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
    // half a renewal: the new key does not fit the old certificate
    let spare = issue(folder.path(), "spare.example");
    std::fs::copy(&spare.key, &pairs[0].key).unwrap();
    certificates.reload();
    assert_eq!(ends(), after);
    std::fs::copy(&spare.certificate, &pairs[0].certificate).unwrap();
    certificates.reload();
    assert_ne!(ends()[0], after[0]);
}
