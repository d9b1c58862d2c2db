//! HAProxy in TCP mode, in front of the gateway or beside it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::{Certificate, Process, endpoint, net};

/// What it tells the server about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxy {
    No,
    V1,
    V2,
}

pub struct HaProxy {
    process: Process,
    pub endpoint: SocketAddr,
    _folder: TempDir,
}

impl HaProxy {
    #[track_caller]
    pub fn start(to: SocketAddr, send: SendProxy) -> Self {
        Self::start_sized(to, send, 1000, None)
    }

    /// With room for so many client connections, and with TLS if there is a certificate for it.
    #[track_caller]
    pub fn start_sized(
        to: SocketAddr,
        send: SendProxy,
        connections: usize,
        tls: Option<&Certificate>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("haproxy.cfg");
        let endpoint = endpoint();
        let option = match send {
            SendProxy::No => "",
            SendProxy::V1 => "send-proxy",
            SendProxy::V2 => "send-proxy-v2",
        };
        let tls = tls.map_or_else(String::new, |certificate| {
            // One file with both, as HAProxy wants it.
            let pair = folder.path().join("pair.pem");
            let both = fs::read_to_string(&certificate.cert).unwrap()
                + &fs::read_to_string(&certificate.key).unwrap();
            fs::write(&pair, both).unwrap();
            format!("ssl crt {}", pair.display())
        });
        let text = format!(
            "global\n  maxconn {connections}\n\
             defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10m\n  timeout server 10m\n\
             listen smtp\n  bind {endpoint} {tls}\n  server gateway {to} {option}\n"
        );
        fs::write(&config, text).unwrap();
        let process = Process::start(Command::new("haproxy").arg("-db").arg("-f").arg(&config));
        net::wait_listening(endpoint);
        Self { process, endpoint, _folder: folder }
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
