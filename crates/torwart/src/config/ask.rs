//! The flags of whoever asks `torwart verdict`.

use torwart_edge::{Scheme, VerdictUrl};
use torwart_proto::tls::{ClientTls, ClientTlsFiles};

use super::reader::Reader;
use super::values::is_host_name;
use crate::cli::{AskArgs, AskTlsArgs};

#[derive(Debug)]
pub(crate) struct AskConfig {
    pub(crate) urls: Vec<VerdictUrl>,
    /// `None`: nothing is encrypted.
    pub(crate) tls: Option<ClientTlsFiles>,
    /// What must be in the verdict's certificate.
    pub(crate) server_name: String,
}

/// What the verdict's certificate holds unless somebody says otherwise: no public authority signs it.
const SERVER_NAME: &str = "torwart-verdict";

impl Reader {
    pub(super) fn ask(&mut self, arguments: &AskArgs) -> AskConfig {
        let flag = "--verdict";
        if arguments.verdict.is_empty() {
            self.mistake(flag, "is needed: http://HOST:PORT, https://HOST:PORT or dns://NAME:PORT");
        }
        let mut urls: Vec<VerdictUrl> = Vec::new();
        for parsed in arguments.verdict.iter().map(|text| text.parse()) {
            match parsed {
                Ok(url) => urls.push(url),
                // Says which one it is, but not what stands before an @.
                Err(error) => self.mistake(flag, error.to_string()),
            }
        }
        let server_name = self.server_name(&arguments.tls);
        let tls = self.ask_tls(&arguments.tls, &urls, &server_name);
        AskConfig { urls, tls, server_name }
    }

    pub(super) fn server_name(&mut self, arguments: &AskTlsArgs) -> String {
        let server_name = |text: &str| match is_host_name(text) {
            true => Ok(text.to_owned()),
            false => Err("is not a host name, as in torwart-verdict".to_owned()),
        };
        let server_name = self.parsed("--verdict-server-name", &arguments.verdict_server_name, server_name);
        server_name.unwrap_or_else(|| SERVER_NAME.to_owned())
    }

    /// Encrypted if a URL or a file says so. Which certificates are trusted is never left to chance: without an
    /// authority there must be a name that the public ones can have signed.
    fn ask_tls(
        &mut self,
        arguments: &AskTlsArgs,
        urls: &[VerdictUrl],
        server_name: &str,
    ) -> Option<ClientTlsFiles> {
        let AskTlsArgs { verdict_ca, verdict_cert, verdict_key, .. } = arguments;
        let there_is = |scheme: Scheme| urls.iter().any(|url| url.scheme == scheme);
        let files = [
            ("--verdict-ca", !verdict_ca.is_empty()),
            ("--verdict-cert", !verdict_cert.is_empty()),
            ("--verdict-key", !verdict_key.is_empty()),
        ];
        let has_files = files.iter().any(|(_, given)| *given);
        let encrypted = urls.iter().any(|url| url.is_encrypted(has_files));
        if there_is(Scheme::Http) {
            let of_tls = files.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag);
            let of_tls: Vec<&str> = of_tls.chain(there_is(Scheme::Https).then_some("https://")).collect();
            if !of_tls.is_empty() {
                let text = "http:// is never encrypted, but there is";
                self.mistake("--verdict", format!("{text} {}; write https://", of_tls.join(", ")));
            }
        }
        self.client_tls(arguments, encrypted, server_name, "https:// or --verdict-ca")
    }

    /// The files, if it is `encrypted`. `how` says what makes it so.
    pub(super) fn client_tls(
        &mut self,
        arguments: &AskTlsArgs,
        encrypted: bool,
        server_name: &str,
        how: &str,
    ) -> Option<ClientTlsFiles> {
        let AskTlsArgs { verdict_ca, verdict_cert, verdict_key, .. } = arguments;
        let before = self.mistakes.len();
        self.needs("--verdict-cert", !verdict_cert.is_empty(), "--verdict-key", !verdict_key.is_empty());
        self.needs("--verdict-key", !verdict_key.is_empty(), "--verdict-cert", !verdict_cert.is_empty());
        let files = ClientTlsFiles {
            ca: self.file("--verdict-ca", verdict_ca),
            certificate: self.file("--verdict-cert", verdict_cert),
            key: self.file("--verdict-key", verdict_key),
        };
        let named = server_name != SERVER_NAME;
        self.needs("--verdict-server-name", named, how, encrypted);
        if !encrypted {
            return None;
        }
        if verdict_ca.is_empty() && !named {
            let text = "is needed: no public authority signs a certificate for \"torwart-verdict\" \
                        (or tell the certificate's name by --verdict-server-name)";
            self.mistake("--verdict-ca", text);
        }
        if self.mistakes.len() == before {
            for error in ClientTls::load(files.clone(), server_name).err().into_iter().flatten() {
                self.mistake("--verdict-ca/--verdict-cert/--verdict-key", error.to_string());
            }
        }
        Some(files)
    }
}
