//! The shipped rights: what each part may do, and what it may not, as the API server sees it.

use http::Method;
use serde_json::json;
use torwart_tests::cluster::Installation;

/// Whether a ServiceAccount may do something to `resource`, as in `group/resource/subresource`.
fn may(
    installation: &Installation,
    account: &str,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let (group, resource) = resource.split_once('/').unwrap();
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{}:{account}", installation.namespace),
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource,
                "subresource": subresource, "namespace": namespace, "name": name}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = installation.api.call(Method::POST, path, Some(&review)).unwrap();
    answer["status"]["allowed"] == true
}

#[test]
fn each_part_may_do_what_it_must_and_nothing_beyond() {
    let Some(installation) = Installation::new() else { return };
    let own = installation.namespace.as_str();
    let index = format!("torwart-policy-{}", installation.gateway);
    let slots: Vec<String> = (0..64).map(|slot| format!("{index}-{slot:02x}")).collect();
    let lease = format!("torwart-operator-{}", installation.gateway);
    let (operator, verdict, edge) = ("torwart-operator", "torwart-verdict", "torwart-edge");
    let holds = |wanted: bool, account: &str, verbs: &[&str], resource: &str, namespace: &str, name: &str| {
        for verb in verbs {
            let allowed = may(&installation, account, verb, resource, namespace, name);
            assert_eq!(allowed, wanted, "{account} {verb} {resource} {namespace}/{name}");
        }
    };
    let reads = ["get", "list", "watch"];
    let writes = ["create", "update", "patch", "delete", "deletecollection"];
    let all = [reads.as_slice(), &writes].concat();
    for name in slots.iter().chain([&index]) {
        holds(true, operator, &["get", "update"], "/configmaps", own, name);
        holds(false, operator, &["delete", "patch"], "/configmaps", own, name);
        holds(true, verdict, &reads, "/configmaps", own, name);
        holds(false, verdict, &writes, "/configmaps", own, name);
    }
    holds(true, operator, &["create"], "/configmaps", own, "");
    holds(false, operator, &["create", "update", "patch", "delete"], "/configmaps", "default", "some");
    holds(false, operator, &["get", "update", "patch", "delete"], "/configmaps", own, "some");
    holds(false, operator, &["update"], "/configmaps", own, &format!("{index}-40"));
    for resource in ["torwart.dev/maildomains", "torwart.dev/mailgateways"] {
        holds(true, operator, &["list", "watch"], resource, "", "");
        holds(true, operator, &["patch"], &format!("{resource}/status"), "default", "some");
        holds(false, operator, &writes, resource, own, "some");
    }
    for resource in ["/namespaces", "/services", "/configmaps"] {
        holds(true, operator, &["list", "watch"], resource, "", "");
    }
    holds(false, operator, &writes, "/services", own, "some");
    holds(true, operator, &["list", "watch"], "/pods", own, "");
    holds(false, operator, &reads, "/pods", "default", "");
    holds(true, operator, &["create", "patch"], "events.k8s.io/events", "default", "");
    holds(true, operator, &["get", "update"], "coordination.k8s.io/leases", own, &lease);
    holds(false, operator, &["get", "update", "delete"], "coordination.k8s.io/leases", own, "some");
    for account in [operator, verdict, edge] {
        for namespace in [own, "default", ""] {
            holds(false, account, &all, "/secrets", namespace, "");
            holds(false, account, &["create"], "/pods/exec", namespace, "");
            holds(false, account, &["create"], "/serviceaccounts/token", namespace, operator);
        }
        holds(false, account, &writes, "rbac.authorization.k8s.io/clusterroles", "", "");
        holds(false, account, &["impersonate"], "/users", "", "admin");
    }
    for account in [verdict, edge] {
        holds(false, account, &all, "/configmaps", own, "");
        holds(false, account, &all, "/configmaps", own, "some");
        holds(false, account, &all, "torwart.dev/maildomains", own, "");
        holds(false, account, &all, "torwart.dev/maildomains/status", own, "");
        holds(false, account, &all, "coordination.k8s.io/leases", own, &lease);
        holds(false, account, &all, "/pods", own, "");
    }
    for name in slots.iter().chain([&index]) {
        holds(false, edge, &all, "/configmaps", own, name);
    }
}
