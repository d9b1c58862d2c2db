//! Passwords, users, certificates.

use std::fs;

use torwart_tests::{Authority, Certificate, RedisCluster, RedisSentinels, RedisServer, address};

use super::*;

fn mk_password_file(password: &str) -> (tempfile::NamedTempFile, RedisOptions) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), password).unwrap();
    let options = RedisOptions { password_file: Some(file.path().to_owned()), ..RedisOptions::default() };
    (file, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_file_that_is_mended_is_taken_up() {
    let server = RedisServer::builder().password("right").start();
    let (file, options) = mk_password_file("wrong\n");
    let asker = Asker::with(&server.url(), options);
    let error = asker.until("auth").await.to_string();
    assert!(error.contains("--store-password-file") && !error.contains("wrong\n"), "{error}");
    fs::write(file.path(), "right\n").unwrap();
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clusters_password_file_that_is_mended_is_taken_up() {
    let cluster = RedisCluster::builder().password("right").start();
    let (file, options) = mk_password_file("wrong");
    let asker = Asker::with(&cluster.url(), options);
    asker.until("auth").await;
    fs::write(file.path(), "right").unwrap();
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_is_taken_up_from_the_file() {
    let server = RedisServer::builder().acl("user torwart on >old ~tw* +@all").start();
    let (file, options) = mk_password_file("old");
    let options = RedisOptions { username: Some("torwart".to_owned()), ..options };
    let asker = Asker::with(&server.url(), options);
    asker.until_well().await;
    server.cli(&["ACL", "SETUSER", "torwart", "<old", ">new"]);
    server.cli(&["CLIENT", "KILL", "USER", "torwart"]);
    asker.until("auth").await;
    fs::write(file.path(), "new").unwrap();
    asker.until_well().await;
    // Gone, or empty: said, and mended as well.
    fs::write(file.path(), "").unwrap();
    server.cli(&["CLIENT", "KILL", "USER", "torwart"]);
    let error = asker.until("auth").await.to_string();
    assert!(error.contains("is empty"), "{error}");
    fs::write(file.path(), "new").unwrap();
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_a_password_is_told_apart_from_one_that_is_down() {
    let server = RedisServer::builder().password("secret").start();
    let asker = Asker::open(&server.url());
    asker.until("auth").await;
    let url = server.url().replace("redis://", "redis://:secret@");
    Asker::open(&url).until_well().await;
    let asker = Asker::open(&server.url().replace("redis://", "redis://:guess@"));
    let error = asker.until("auth").await;
    assert!(!format!("{error} {error:?} {:?}", asker.store).contains("guess"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_told_and_well_when_they_are_granted() {
    let server = RedisServer::builder().acl("user torwart on >pw ~tw* +@all -evalsha").start();
    let asker = Asker::open(&server.url().replace("redis://", "redis://torwart:pw@"));
    let error = asker.until("auth").await;
    assert!(error.to_string().contains("evalsha"), "{error}");
    server.cli(&["ACL", "SETUSER", "torwart", "+evalsha"]);
    asker.until_well().await;
    server.cli(&["ACL", "SETUSER", "torwart", "resetkeys", "~other*"]);
    asker.until("auth").await;
    server.cli(&["ACL", "SETUSER", "torwart", "~tw*"]);
    asker.until_well().await;
}

/// These, and no more, are named in the documentation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_the_documentation_names_are_enough() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/failure-contract.md")).unwrap();
    let user = page.lines().find(|line| line.starts_with("    user torwart on ")).unwrap().trim();
    let server = RedisServer::builder().acl(&user.replace(">PASSWORD", ">pw")).start();
    let asker = Asker::open(&server.url().replace("redis://", "redis://torwart:pw@"));
    asker.until_well().await;
    let call = asker.mk_call();
    asker.store.check(call.clone()).await.unwrap();
    asker.store.deliver(call.clone(), true).await.unwrap();
    asker.store.give_back(mk_call(0, &[1], &[1])).await.unwrap();
    asker.store.secret([7; 32]).await.unwrap();
    asker.store.revoke(crate::store::suite::mk_revocation(1, &[1])).await.unwrap();
    let denied = server.cli(&["ACL", "LOG"]);
    for command in ["role", "info", "client|setname"] {
        assert!(!denied.contains(command), "{denied}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_takes_the_authority_that_it_was_given_and_no_other() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = RedisServer::builder().tls(&ours.issue(&[&address().to_string()])).start();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::copy(&theirs.cert, file.path()).unwrap();
    let options = RedisOptions { ca_file: Some(file.path().to_owned()), ..RedisOptions::default() };
    let asker = Asker::with(&server.url(), options);
    let error = asker.until("io").await.to_string();
    assert!(error.contains("certificate") && error.contains("--store-ca"), "{error}");
    fs::copy(&ours.cert, file.path()).unwrap();
    asker.until_well().await;
    // The public authorities have not signed it.
    Asker::open(&server.url()).until("io").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_checks_the_servers_name() {
    let authority = Authority::new("ours");
    let server = RedisServer::builder().tls(&authority.issue(&["redis.example"])).start();
    let options = RedisOptions { ca_file: Some(authority.cert.clone()), ..RedisOptions::default() };
    let error = Asker::with(&server.url(), options).until("io").await.to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_no_use_where_tls_is_wanted_and_the_other_way_round() {
    let clear = RedisServer::start();
    Asker::open(&clear.url().replace("redis://", "rediss://")).until("disconnected").await;
    let authority = Authority::new("ours");
    let encrypted = RedisServer::builder().tls(&authority.issue(&[&address().to_string()])).start();
    Asker::open(&encrypted.url().replace("rediss://", "redis://")).until("disconnected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_clusters_speak_tls_with_passwords_too() {
    // What the servers trust among themselves is their own certificate.
    let certificate = Certificate::new(&[&address().to_string()]);
    let (_file, options) = mk_password_file("secret");
    let options = RedisOptions { ca_file: Some(certificate.cert.clone()), ..options };
    let cluster = RedisCluster::builder().password("secret").tls(&certificate).start();
    Asker::with(&cluster.url(), options.clone()).until_well().await;
    let sentinels = RedisSentinels::builder().password("secret").tls(&certificate).start();
    Asker::with(&sentinels.url("mymaster"), options).until_well().await;
}
