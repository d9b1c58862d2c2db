//! The kinds of objects that tests touch, and where the API server has them.

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MailGateway,
    MailDomain,
    Namespace,
    Service,
    ConfigMap,
    Pod,
    Lease,
    Event,
    ServiceAccount,
    ClusterRole,
    ClusterRoleBinding,
    CustomResourceDefinition,
}

impl Kind {
    /// Group and version as in `apiVersion`, the plural, and whether it is in a namespace.
    fn place(self) -> (&'static str, &'static str, bool) {
        match self {
            Self::MailGateway => ("torwart.dev/v1alpha1", "mailgateways", false),
            Self::MailDomain => ("torwart.dev/v1alpha1", "maildomains", true),
            Self::Namespace => ("v1", "namespaces", false),
            Self::Service => ("v1", "services", true),
            Self::ConfigMap => ("v1", "configmaps", true),
            Self::Pod => ("v1", "pods", true),
            Self::Lease => ("coordination.k8s.io/v1", "leases", true),
            Self::Event => ("events.k8s.io/v1", "events", true),
            Self::ServiceAccount => ("v1", "serviceaccounts", true),
            Self::ClusterRole => ("rbac.authorization.k8s.io/v1", "clusterroles", false),
            Self::ClusterRoleBinding => ("rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
            Self::CustomResourceDefinition => ("apiextensions.k8s.io/v1", "customresourcedefinitions", false),
        }
    }

    /// By the `kind` of a manifest.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::MailGateway,
            Self::MailDomain,
            Self::Namespace,
            Self::Service,
            Self::ConfigMap,
            Self::Pod,
            Self::Lease,
            Self::Event,
            Self::ServiceAccount,
            Self::ClusterRole,
            Self::ClusterRoleBinding,
            Self::CustomResourceDefinition,
        ];
        all.into_iter().find(|kind| format!("{kind:?}") == name)
    }

    /// The path of all of them, in one namespace if one is given.
    pub(crate) fn collection(self, namespace: &str) -> String {
        let (api_version, plural, is_namespaced) = self.place();
        let root = if api_version == "v1" { "api/v1" } else { &format!("apis/{api_version}") };
        if is_namespaced && !namespace.is_empty() {
            format!("/{root}/namespaces/{namespace}/{plural}")
        } else {
            format!("/{root}/{plural}")
        }
    }
}
