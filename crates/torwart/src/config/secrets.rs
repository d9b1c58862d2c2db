//! The flags of `torwart secrets`.

use torwart_operator::secrets::Installation;

use super::operator::{gateway_name, label, own_namespace};
use super::reader::Reader;
use super::values::is_host_name;
use crate::cli::{SecretsArgs, SecretsCommand};

/// Everything `torwart secrets` was told, checked.
#[derive(Debug)]
pub(crate) enum SecretsConfig {
    Ensure(Installation),
    /// With the MailGateway's name.
    Delete(Installation, String),
}

impl Reader {
    pub(super) fn secrets(&mut self, command: &SecretsCommand) -> SecretsConfig {
        match command {
            SecretsCommand::Ensure(arguments) => {
                let verdict_names = self.each("--verdict-name", &arguments.verdict_name, host_name);
                let installation = self.installation(&arguments.secrets);
                SecretsConfig::Ensure(Installation {
                    verdict_names,
                    store_key: !arguments.no_store_key,
                    redis: arguments.redis,
                    ..installation
                })
            }
            SecretsCommand::Delete(arguments) => {
                let gateway = self.parsed("--gateway", &arguments.gateway, gateway_name);
                let gateway = gateway.unwrap_or_else(|| "default".to_owned());
                SecretsConfig::Delete(self.installation(&arguments.secrets), gateway)
            }
        }
    }

    fn installation(&mut self, arguments: &SecretsArgs) -> Installation {
        let namespace = self.parsed("--namespace", &arguments.namespace, label);
        Installation {
            namespace: namespace.unwrap_or_else(own_namespace),
            prefix: self.parsed("--prefix", &arguments.prefix, label).unwrap_or_default(),
            verdict_names: Vec::new(),
            store_key: true,
            redis: false,
        }
    }
}

fn host_name(text: &str) -> Result<String, String> {
    is_host_name(text).then(|| text.to_owned()).ok_or_else(|| "is not a host name".to_owned())
}
