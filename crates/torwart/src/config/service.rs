//! The flags of the service that answers `torwart edge`.

use std::net::SocketAddr;

use torwart_proto::tls::{ServerTls, ServerTlsFiles};

use super::edge::DrainConfig;
use super::reader::Reader;
use super::values::{address, host_name};
use crate::cli::{DrainArgs, GrpcArgs};

#[derive(Debug)]
pub(crate) struct ServiceConfig {
    pub(crate) grpc_listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    /// `None`: nothing is encrypted.
    pub(crate) tls: Option<ServerTlsFiles>,
    /// Of clients; empty: whoever has a certificate.
    pub(crate) client_names: Vec<String>,
    pub(crate) drain: DrainConfig,
}

impl Reader {
    pub(super) fn service(&mut self, arguments: &GrpcArgs, drain: &DrainArgs) -> ServiceConfig {
        let grpc_listen = self.parsed("--grpc-listen", &arguments.grpc_listen, address);
        let admin_listen = self.parsed("--admin-listen", &arguments.admin_listen, address);
        self.free_of("--admin-listen", admin_listen, grpc_listen.as_slice(), "--grpc-listen");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let client_names = self.each("--grpc-client-name", &arguments.grpc_client_name, host_name);
        let client_names: Vec<String> = client_names.iter().map(ToString::to_string).collect();
        ServiceConfig {
            grpc_listen: grpc_listen.unwrap_or(nowhere),
            admin_listen: admin_listen.unwrap_or(nowhere),
            tls: self.service_tls(arguments, &client_names),
            client_names,
            drain: self.drain(drain),
        }
    }

    fn service_tls(&mut self, arguments: &GrpcArgs, client_names: &[String]) -> Option<ServerTlsFiles> {
        let GrpcArgs { grpc_cert, grpc_key, grpc_client_ca, grpc_client_name, .. } = arguments;
        let before = self.mistakes.len();
        let certificate = self.file("--grpc-cert", grpc_cert);
        let key = self.file("--grpc-key", grpc_key);
        let client_ca = self.file("--grpc-client-ca", grpc_client_ca);
        self.needs("--grpc-cert", !grpc_cert.is_empty(), "--grpc-key", !grpc_key.is_empty());
        self.needs("--grpc-key", !grpc_key.is_empty(), "--grpc-cert", !grpc_cert.is_empty());
        self.needs("--grpc-client-ca", !grpc_client_ca.is_empty(), "--grpc-cert", !grpc_cert.is_empty());
        let names = !grpc_client_name.is_empty();
        self.needs("--grpc-client-name", names, "--grpc-client-ca", !grpc_client_ca.is_empty());
        let files = ServerTlsFiles { certificate: certificate?, key: key?, client_ca };
        if self.mistakes.len() == before {
            for error in ServerTls::load(files.clone(), client_names.to_vec()).err().into_iter().flatten() {
                self.mistake("--grpc-cert/--grpc-key/--grpc-client-ca", error.to_string());
            }
        }
        Some(files)
    }
}
