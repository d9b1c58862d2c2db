//! A Pod without a node: an object that says where a process of the test listens.

use std::net::SocketAddr;

use serde_json::json;

use super::{Api, Kind};

/// Gone when dropped.
pub struct Pod {
    api: Api,
    namespace: String,
    pub name: String,
}

impl Pod {
    /// With the labels of a verdict pod, ready, and `grpc` at this address.
    #[track_caller]
    pub(super) fn of_verdict(api: &Api, namespace: &str, name: &str, grpc: SocketAddr) -> Self {
        api.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {
                "app.kubernetes.io/name": "torwart", "app.kubernetes.io/component": "verdict"}},
            "spec": {
                // Nobody's: no node of a real cluster is to run it.
                "schedulerName": "torwart-tests",
                "containers": [{"name": "verdict", "image": "torwart:none", "ports": [
                    {"name": "grpc", "containerPort": grpc.port(), "protocol": "TCP"}]}]},
        }));
        let pod = Self { api: api.clone(), namespace: namespace.to_owned(), name: name.to_owned() };
        let ip = grpc.ip().to_string();
        api.merge_status(
            Kind::Pod,
            namespace,
            name,
            &json!({
                "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }),
        );
        pod
    }

    #[track_caller]
    pub fn ready(&self, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let conditions = json!({"conditions": [{"type": "Ready", "status": status}]});
        self.api.merge_status(Kind::Pod, &self.namespace, &self.name, &conditions);
    }

    pub fn delete(self) {}
}

impl Drop for Pod {
    fn drop(&mut self) {
        let path = format!("{}/{}?gracePeriodSeconds=0", Kind::Pod.collection(&self.namespace), self.name);
        let _ = self.api.call(http::Method::DELETE, &path, None);
    }
}
