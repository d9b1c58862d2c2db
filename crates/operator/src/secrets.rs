//! The Secrets that an installation needs and nobody wrote: keys and certificates for mutual TLS, the key that hides
//! addresses in the store, the password of the built-in Redis.
//!
//! ```text
//!   Secrets there --ensure (pure, but for new keys)--> Secrets to write --> API server
//! ```
//!
//! Run before an installation and an upgrade, and now and then to renew certificates. What is there and good stays as it
//! is, whoever wrote it. The operator itself reads no Secret: this runs as a Job with rights of its own.

mod certificates;
mod ensure;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use torwart_policy::publish::Slot;

use crate::names::{index_name, lease_name, slot_name};
use ensure::{Found, Made};

/// Which Secrets, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    pub namespace: String,
    /// Before each name, as in `PREFIX-ca`.
    pub prefix: String,
    /// Names of the verdict's Service, in its certificate beside [`VERDICT_NAME`]. Without any no certificate is made:
    /// somebody else does.
    pub verdict_names: Vec<String>,
    /// Whether the key that hides addresses in the store is made.
    pub store_key: bool,
    /// Whether the built-in Redis needs a password.
    pub redis: bool,
}

/// What became of one Secret or another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// As in `Secret mail/torwart-ca`.
    pub object: String,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Created,
    /// Its certificate was near its end, or of another authority.
    Renewed,
    Kept,
    Deleted,
}

/// Why it can't be done, for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the API server can't be reached: {0}")]
    Configuration(String),
    #[error("{object}: {error}")]
    Refused { object: String, error: kube::Error },
    #[error("{object}: no answer from the API server within {} s", LIMIT.as_secs())]
    Late { object: String },
    #[error("{0}")]
    Unusable(String),
    #[error("certificates can't be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("somebody else writes the same Secrets; try again")]
    Contended,
}

/// The name in the verdict's certificate (`--verdict-server-name`).
pub const VERDICT_NAME: &str = "torwart-verdict";
/// The names in the certificates of those who ask it (`--grpc-client-name`).
pub const EDGE_NAME: &str = "torwart-edge";
pub const OPERATOR_NAME: &str = "torwart-operator";

/// For one call of the API server.
const LIMIT: Duration = Duration::from_secs(15);

/// Two of us that begin at one time are done after the second try.
const TRIES: usize = 3;

/// Says that a Secret is ours.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "torwart");
/// Until when a certificate of ours holds, in RFC 3339.
const NOT_AFTER: &str = "torwart.dev/not-after";

/// Creates what is missing and renews what runs out.
///
/// # Errors
/// If a Secret that somebody else wrote lacks what it must hold, or the API server refuses.
pub async fn ensure(installation: &Installation, now: Timestamp) -> Result<Vec<Done>, Error> {
    let client = client().await?;
    let api: Api<Secret> = Api::namespaced(client, &installation.namespace);
    for _ in 0..TRIES {
        let mut found = BTreeMap::new();
        for name in ensure::names(installation) {
            let object = label(installation, "Secret", &name);
            if let Some(secret) = limited(&object, api.get_opt(&name)).await? {
                found.insert(name, read(&secret));
            }
        }
        let made = ensure::ensure(installation, &found, now)?;
        if let Some(done) = write(installation, &api, &found, made).await? {
            return Ok(done);
        }
    }
    Err(Error::Contended)
}

/// Deletes those Secrets, and what the operator of `gateway` left: the published policy and its Lease.
///
/// # Errors
/// If the installation is still there, so that nothing is deleted: whoever applies rendered manifests without Helm
/// applies the Job of an uninstallation, too. If the API server refuses one of them; the others are deleted all the same.
pub async fn delete(installation: &Installation, gateway: &str) -> Result<Vec<Done>, Error> {
    let client = client().await?;
    let namespace = &installation.namespace;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    for part in ["edge", "verdict", "operator"] {
        let name = format!("{}-{part}", installation.prefix);
        let object = label(installation, "Deployment", &name);
        let found = limited(&object, deployments.get_opt(&name)).await?;
        if found.is_some_and(|found| found.metadata.deletion_timestamp.is_none()) {
            return Err(Error::Unusable(format!(
                "{object} is still there: nothing is deleted of an installation in use"
            )));
        }
    }
    let verdict_names = vec![VERDICT_NAME.to_owned()];
    let all = Installation { verdict_names, store_key: true, redis: true, ..installation.clone() };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let (mut done, mut failed) = (Vec::new(), None);
    let mut note = |result: Result<Option<Done>, Error>| match result {
        Ok(one) => done.extend(one),
        Err(error) => failed = failed.take().or(Some(error)),
    };
    for name in ensure::names(&all) {
        let object = label(installation, "Secret", &name);
        // One that somebody else wrote is theirs.
        match limited(&object, secrets.get_opt(&name)).await {
            Ok(Some(secret)) if read(&secret).is_ours => note(remove(object, &secrets, &name).await),
            Ok(_) => {}
            Err(error) => note(Err(error)),
        }
    }
    // The index first: a policy without an index is none.
    let slots = Slot::all().map(|slot| slot_name(gateway, slot));
    for name in [index_name(gateway)].into_iter().chain(slots) {
        note(remove(label(installation, "ConfigMap", &name), &maps, &name).await);
    }
    let lease = lease_name(gateway);
    note(remove(label(installation, "Lease", &lease), &leases, &lease).await);
    failed.map_or(Ok(done), Err)
}

async fn client() -> Result<Client, Error> {
    let config = crate::client::config().await.map_err(|error| Error::Configuration(error.to_string()))?;
    crate::client::connect(config).map_err(|error| Error::Configuration(error.to_string()))
}

/// `None` if somebody else was quicker.
async fn write(
    installation: &Installation,
    api: &Api<Secret>,
    found: &BTreeMap<String, Found>,
    made: BTreeMap<String, Made>,
) -> Result<Option<Vec<Done>>, Error> {
    let mut done = Vec::new();
    for name in ensure::names(installation) {
        let object = label(installation, "Secret", &name);
        let Some(made) = made.get(&name) else {
            done.push(Done { object, what: What::Kept });
            continue;
        };
        let there = found.get(&name);
        let secret = secret(&name, made, there);
        let parameters = PostParams::default();
        let (written, what) = match there {
            Some(_) => (limited(&object, api.replace(&name, &parameters, &secret)).await, What::Renewed),
            None => (limited(&object, api.create(&parameters, &secret)).await, What::Created),
        };
        match written {
            Ok(_) => done.push(Done { object, what }),
            Err(Error::Refused { error: kube::Error::Api(refused), .. }) if refused.code == 409 => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(done))
}

fn read(secret: &Secret) -> Found {
    let ObjectMeta { labels, annotations, resource_version, .. } = &secret.metadata;
    let managed_by = labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0));
    let not_after = annotations.as_ref().and_then(|annotations| annotations.get(NOT_AFTER));
    Found {
        is_ours: managed_by.is_some_and(|value| value == MANAGED_BY.1),
        not_after: not_after.and_then(|text| text.parse().ok()),
        version: resource_version.clone(),
        data: secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect(),
    }
}

fn secret(name: &str, made: &Made, there: Option<&Found>) -> Secret {
    let annotation = made.not_after.map(|not_after| (NOT_AFTER.to_owned(), not_after.to_string()));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([
                (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
                ("app.kubernetes.io/name".to_owned(), "torwart".to_owned()),
            ])),
            annotations: annotation.map(|annotation| BTreeMap::from([annotation])),
            resource_version: there.and_then(|there| there.version.clone()),
            ..ObjectMeta::default()
        },
        type_: Some(made.kind.to_owned()),
        data: Some(made.data.iter().map(|(key, value)| (key.clone(), ByteString(value.clone()))).collect()),
        ..Secret::default()
    }
}

async fn remove<K>(object: String, api: &Api<K>, name: &str) -> Result<Option<Done>, Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    match limited(&object, api.delete(name, &DeleteParams::default())).await {
        Ok(_) => Ok(Some(Done { object, what: What::Deleted })),
        Err(Error::Refused { error: kube::Error::Api(refused), .. }) if refused.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn label(installation: &Installation, kind: &str, name: &str) -> String {
    format!("{kind} {}/{name}", installation.namespace)
}

async fn limited<T>(object: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(LIMIT, request).await {
        Ok(answer) => answer.map_err(|error| Error::Refused { object: object.to_owned(), error }),
        Err(_) => Err(Error::Late { object: object.to_owned() }),
    }
}
