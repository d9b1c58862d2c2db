//! Publishing by hand, into a namespace of the test's own on the API server of `TORWART_TEST_KUBECONFIG`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use torwart_operator::follow::Source;
use torwart_operator::names::{INDEX_KEY, index_name, slot_name};
use torwart_policy::Snapshot;
use torwart_policy::load::{SourceFile, compile_files};
use torwart_policy::publish::{Chunk, FORMAT_WRITTEN, Index, Slot, chunks};

pub(crate) const NOW: i64 = 1_800_000_000;

/// How to reach the API server; `None`, said loudly, if there is none to test with.
pub(crate) async fn api_server() -> Option<Config> {
    let Some(path) = std::env::var_os("TORWART_TEST_KUBECONFIG") else {
        eprintln!("SKIPPED: TORWART_TEST_KUBECONFIG is unset, so nothing is tested against an API server");
        return None;
    };
    let file = Kubeconfig::read_from(Path::new(&path)).unwrap();
    Some(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap())
}

/// What an operator would write.
pub(crate) struct Publisher {
    client: Client,
    maps: Api<ConfigMap>,
    pub(crate) source: Source,
}

impl Publisher {
    pub(crate) async fn new(config: Config, test: &str) -> Self {
        let client = Client::try_from(config).unwrap();
        let namespace = format!("e-{test}-{}", std::process::id());
        let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
        let own = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &own).await.unwrap();
        let maps = Api::namespaced(client.clone(), &namespace);
        Self { client, maps, source: Source { namespace, gateway: "main".to_owned() } }
    }

    /// Takes away what was written.
    pub(crate) async fn end(self) {
        let spaces: Api<Namespace> = Api::all(self.client);
        let _ = spaces.delete(&self.source.namespace, &DeleteParams::default()).await;
    }

    /// All slots, then the index.
    pub(crate) async fn publish(&self, sequence: u64, snapshot: &Snapshot) {
        for (slot, chunk) in chunks(snapshot) {
            self.put_slot(slot, &[&chunk]).await;
        }
        self.put_index(&index(sequence, snapshot).to_json()).await;
    }

    pub(crate) async fn put_slot(&self, slot: Slot, chunks: &[&Chunk]) {
        let bytes = chunks.iter().map(|chunk| (chunk.hash.0.to_string(), chunk.compress()));
        self.put_bytes(slot, bytes.collect()).await;
    }

    pub(crate) async fn put_bytes(&self, slot: Slot, bytes: BTreeMap<String, Vec<u8>>) {
        let bytes = bytes.into_iter().map(|(hash, bytes)| (hash, ByteString(bytes)));
        let name = slot_name(&self.source.gateway, slot);
        self.put(&name, ConfigMap { binary_data: Some(bytes.collect()), ..ConfigMap::default() }).await;
    }

    pub(crate) async fn put_index(&self, text: &str) {
        let data = BTreeMap::from([(INDEX_KEY.to_owned(), text.to_owned())]);
        let name = index_name(&self.source.gateway);
        self.put(&name, ConfigMap { data: Some(data), ..ConfigMap::default() }).await;
    }

    pub(crate) async fn delete_index(&self) {
        self.maps.delete(&index_name(&self.source.gateway), &DeleteParams::default()).await.unwrap();
    }

    async fn put(&self, name: &str, mut map: ConfigMap) {
        map.metadata.name = Some(name.to_owned());
        match self.maps.get_opt(name).await.unwrap() {
            None => self.maps.create(&PostParams::default(), &map).await.unwrap(),
            Some(there) => {
                map.metadata.resource_version = there.metadata.resource_version;
                self.maps.replace(name, &PostParams::default(), &map).await.unwrap()
            }
        };
    }
}

pub(crate) fn index(sequence: u64, snapshot: &Snapshot) -> Index {
    let slots = chunks(snapshot).into_iter().map(|(slot, chunk)| (slot, chunk.hash)).collect();
    Index { sequence, format_version: FORMAT_WRITTEN, revision: snapshot.revision.clone(), slots }
}

/// A MailGateway, and a MailDomain of its own for each domain.
pub(crate) fn snapshot(domains: &[&str]) -> Arc<Snapshot> {
    let mut text = "{apiVersion: torwart.dev/v1alpha1, kind: MailGateway, metadata: {name: main}, \
                    spec: {hostname: mx.example.net}}\n"
        .to_owned();
    for domain in domains {
        let name = domain.replace('.', "-");
        text.push_str(&format!(
            "---\n{{apiVersion: torwart.dev/v1alpha1, kind: MailDomain, metadata: {{name: {name}, namespace: mail}}, \
             spec: {{gatewayRef: {{name: main}}, domains: [{domain}], \
             route: {{upstreams: [{{host: 192.0.2.1, port: 25}}]}}}}}}\n"
        ));
    }
    let file = SourceFile { name: "a.yaml".to_owned(), content: Ok(text) };
    let compiled = compile_files(&[file], None, &[], NOW).compilation;
    assert!(compiled.is_clean(), "{:?} {:?}", compiled.problems, compiled.outcomes);
    compiled.snapshot.unwrap()
}
