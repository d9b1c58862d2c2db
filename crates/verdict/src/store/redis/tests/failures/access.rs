//! Passwords, users, certificates.

use std::fs;

use torwart_core::Greylist;
use torwart_tests::{Authority, Certificate, RedisCluster, RedisSentinels, RedisServer, address};

use super::*;
use crate::store::suite::mk_revocation;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_one_command_lacks_costs_the_others_nothing() {
    let server = RedisServer::builder().acl("user torwart on >pw ~tw* +@all -unlink").start();
    let asker = Asker::well(&server.url().replace("redis://", "redis://torwart:pw@")).await;
    let connects = asker.connects();
    for _ in 0..20 {
        let error = asker.store.revoke(mk_revocation(1, &[1])).await.unwrap_err();
        assert_eq!(error.kind(), "auth", "{error}");
        assert_eq!(asker.ask().await.unwrap(), Greylist::New);
    }
    assert_eq!(asker.connects(), connects, "it is not the connection's fault");
}

/// The user of docs/failure-contract.md, with the password `pw`; and its rights.
fn documented_user() -> (String, Vec<String>) {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/failure-contract.md")).unwrap();
    let user = page.lines().find(|line| line.starts_with("    user torwart on ")).unwrap().trim();
    let rights = user.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    (user.replace(">PASSWORD", ">pw"), rights)
}

/// All that is ever asked of a store.
async fn ask_all(asker: &Asker) -> Result<(), StoreError> {
    let call = asker.mk_call();
    let answers = [
        asker.store.check(call.clone()).await.map(drop),
        asker.store.deliver(call, true).await,
        asker.store.give_back(mk_call(0, &[1], &[1])).await,
        asker.store.secret([7; 32]).await.map(drop),
        asker.store.revoke(mk_revocation(1, &[1])).await,
    ];
    answers.into_iter().collect()
}

/// The commands that the user was denied.
fn denied(nodes: &[&RedisServer], right: &str) -> bool {
    nodes.iter().any(|node| node.cli(&["ACL", "LOG"]).lines().any(|line| line == right))
}

/// With all rights nothing is denied; without one of them that one is missed. `key` is asked for as well.
async fn each_right_is_needed(nodes: &[&RedisServer], url: &str, rights: &[String], key: &str) {
    let everywhere = |command: &[&str]| {
        for node in nodes {
            assert_eq!(node.cli(command), "OK");
        }
    };
    let asker = Asker::well(url).await;
    ask_all(&asker).await.unwrap();
    asker.store.link.call(get(key)).await.unwrap();
    for node in nodes {
        assert_eq!(node.cli(&["ACL", "LOG"]), "", "nothing is denied");
    }
    drop(asker);
    for right in rights {
        everywhere(&["ACL", "SETUSER", "torwart", &format!("-{right}")]);
        everywhere(&["ACL", "LOG", "RESET"]);
        everywhere(&["SCRIPT", "FLUSH"]);
        let asker = Asker::open(url);
        let end = Instant::now() + PATIENCE;
        while !denied(nodes, right) {
            assert!(Instant::now() < end, "nobody has missed {right}");
            let (_all, _key) = (ask_all(&asker).await, asker.store.link.call(get(key)).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        everywhere(&["ACL", "SETUSER", "torwart", &format!("+{right}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_the_documentation_names_are_enough_and_none_is_too_many() {
    let (user, mut rights) = documented_user();
    rights.retain(|right| !["cluster|slots", "asking"].contains(&right.as_str()));
    let server = RedisServer::builder().acl(&user).start();
    let url = format!("{}/1", server.url().replace("redis://", "redis://torwart:pw@"));
    each_right_is_needed(&[&server], &url, &rights, "tw").await;
    server.cli(&["ACL", "SETUSER", "torwart", "-select"]);
    let error = Asker::open(&url).until("auth").await;
    assert!(error.to_string().contains("select"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_the_documentation_names_are_those_for_a_cluster_too() {
    let (user, mut rights) = documented_user();
    rights.retain(|right| right != "select");
    let cluster = RedisCluster::builder().config(&user).start();
    // One that is on its way from node to node.
    let key = "tw{moving}";
    let nodes: Vec<&RedisServer> = cluster.nodes().iter().collect();
    let (from, to) = (cluster.node_of(key), (cluster.node_of(key) + 1) % 3);
    let slot = nodes[from].cli(&["CLUSTER", "KEYSLOT", key]);
    for (node, what, of) in [(to, "IMPORTING", from), (from, "MIGRATING", to)] {
        let id = nodes[of].cli(&["CLUSTER", "MYID"]);
        assert_eq!(nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, what, &id]), "OK");
    }
    let url = cluster.url().replace("redis+cluster://", "redis+cluster://torwart:pw@");
    each_right_is_needed(&nodes, &url, &rights, key).await;
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
