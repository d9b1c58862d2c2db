//! The flags of `torwart operator`.

use std::net::SocketAddr;

use torwart_proto::tls::ClientTlsFiles;

use super::LogConfig;
use super::reader::Reader;
use super::values::{address, is_host_name};
use crate::cli::OperatorArgs;

/// Everything `torwart operator` was told, checked.
#[derive(Debug)]
pub(crate) struct OperatorConfig {
    pub(crate) namespace: String,
    pub(crate) gateway: String,
    pub(crate) verdict_selector: String,
    /// `None`: verdict pods are asked in clear text.
    pub(crate) tls: Option<ClientTlsFiles>,
    /// What must be in the verdict's certificate.
    pub(crate) server_name: String,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) log: LogConfig,
}

/// Where Kubernetes tells a pod its namespace.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
const USUAL_NAMESPACE: &str = "torwart-system";

/// RFC 1123 section 2.1, as Kubernetes has it for the names of namespaces, and what leaves room for `torwart-policy-`
/// and `-3f` in the name of an object.
const LONGEST_LABEL: usize = 63;

impl Reader {
    pub(super) fn operator(&mut self, arguments: &OperatorArgs) -> OperatorConfig {
        let namespace = self.parsed("--namespace", &arguments.namespace, label);
        let gateway = self.parsed("--gateway", &arguments.gateway, gateway_name);
        let verdict_selector = self.parsed("--verdict-selector", &arguments.verdict_selector, selector);
        let server_name = self.server_name(&arguments.tls);
        let encrypted = !arguments.tls.verdict_ca.is_empty() || !arguments.tls.verdict_cert.is_empty();
        let admin_listen = self.parsed("--admin-listen", &arguments.admin.admin_listen, address);
        OperatorConfig {
            namespace: namespace.unwrap_or_else(own_namespace),
            gateway: gateway.unwrap_or_else(|| "default".to_owned()),
            verdict_selector: verdict_selector.unwrap_or_default(),
            tls: self.client_tls(&arguments.tls, encrypted, &server_name, "--verdict-ca"),
            server_name,
            admin_listen: admin_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            log: self.log(&arguments.log, &arguments.trace),
        }
    }
}

pub(super) fn label(text: &str) -> Result<String, String> {
    let fits = text.len() <= LONGEST_LABEL && is_host_name(text) && !text.contains('.');
    match fits && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Ok(text.to_owned()),
        false => Err("is not a name: letters a-z, digits and -, at most 63".to_owned()),
    }
}

/// `default-3f` would have for its index the name that slot 3f of `default` has.
pub(super) fn gateway_name(text: &str) -> Result<String, String> {
    let is_slot = |ending: &str| {
        let number = u8::from_str_radix(ending, 16);
        ending.len() == 2 && number.is_ok_and(|number| number < torwart_policy::publish::SLOTS)
    };
    match text.rsplit_once('-') {
        Some((_, ending)) if is_slot(ending) => Err(format!(
            "ends in -{ending}, as the names of another gateway's ConfigMaps do; choose another name"
        )),
        _ => label(text),
    }
}

/// All pods would be asked by an empty one.
fn selector(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("selects every pod; name labels, as in app=verdict".to_owned()),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn own_namespace() -> String {
    let own = std::fs::read_to_string(OWN_NAMESPACE).ok();
    let own = own.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    own.unwrap_or_else(|| USUAL_NAMESPACE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_no_name_whose_config_maps_could_be_anothers() {
        for (name, wanted) in [
            ("default", true),
            ("default-40", true),
            ("default-3", true),
            ("default-zz", true),
            ("a-00-x", true),
            ("default-00", false),
            ("default-3f", false),
            ("Default", false),
            ("a.b", false),
            ("", false),
        ] {
            assert_eq!(gateway_name(name).is_ok(), wanted, "{name}");
        }
    }
}
