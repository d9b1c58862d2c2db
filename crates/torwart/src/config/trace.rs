//! `--otlp-endpoint` and `--trace-sample-ratio`.

use std::fmt;

use http::Uri;

use super::reader::Reader;
use super::values::ratio;
use crate::cli::TraceArgs;

/// Where traces go, and how many are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TraceConfig {
    pub(crate) endpoint: OtlpEndpoint,
    /// From 0 to 1.
    pub(crate) sample_ratio: f64,
}

/// A collector of traces: OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpEndpoint {
    pub(crate) encrypted: bool,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Registered for OTLP over gRPC.
const OTLP_PORT: u16 = 4317;
const FORM: &str = "write http://HOST:4317 or https://HOST:4317";

impl Reader {
    /// `None` without an endpoint: then no trace is made at all.
    pub(super) fn trace(&mut self, arguments: &TraceArgs) -> Option<TraceConfig> {
        let flag = "--otlp-endpoint";
        let endpoint = self.once(flag, &arguments.otlp_endpoint).map(|text| endpoint(text));
        let sample_ratio =
            self.parsed("--trace-sample-ratio", &arguments.trace_sample_ratio, ratio).unwrap_or(0.0);
        match endpoint? {
            Ok(endpoint) => Some(TraceConfig { endpoint, sample_ratio }),
            Err(text) => {
                self.mistake(flag, text);
                None
            }
        }
    }
}

/// No error repeats `text`: people put passwords into URLs.
fn endpoint(text: &str) -> Result<OtlpEndpoint, String> {
    let uri: Uri = text.parse().map_err(|_| format!("is no URL; {FORM}"))?;
    let encrypted = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("has neither http:// nor https:// in front; {FORM}")),
    };
    let authority = uri.authority().ok_or_else(|| format!("names no host; {FORM}"))?;
    if authority.as_str().contains('@') {
        return Err(
            "holds a user name or password, which OTLP has no use for; headers go into the environment variable \
             OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        );
    }
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
        return Err(format!("has a path, which OTLP over gRPC has no use for; {FORM}"));
    }
    let host = authority.host();
    if host.is_empty() {
        return Err(format!("names no host; {FORM}"));
    }
    let port = match authority.as_str().strip_prefix(host).unwrap_or_default() {
        "" => OTLP_PORT,
        after => {
            let number = after.strip_prefix(':').and_then(|digits| digits.parse().ok());
            number.filter(|port| *port > 0).ok_or_else(|| format!("has no usable port; {FORM}"))?
        }
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(OtlpEndpoint { encrypted, host: host.to_owned(), port })
}

// === impl OtlpEndpoint ===

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            ("http://collector:4317", "http://collector:4317"),
            ("https://otel.example.net", "https://otel.example.net:4317"),
            ("http://127.0.0.1:1/", "http://127.0.0.1:1"),
            ("http://[::1]:4317", "http://[::1]:4317"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_endpoint_is_said_without_its_secrets() {
        for (text, said) in [
            ("collector:4317", "neither http:// nor https://"),
            ("grpc://collector:4317", "neither http:// nor https://"),
            ("http://u:hunter2@collector:4317", "a user name or password"),
            ("http://collector:4317/v1/traces", "has a path"),
            ("http://collector:4317?token=hunter2", "has a path"),
            ("http://collector:0", "no usable port"),
            ("http://collector:", "no usable port"),
            ("http://collector:99999", "no usable port"),
            ("http://:4317", "names no host"),
            ("http:// hunter2", "is no URL"),
            ("", "is no URL"),
        ] {
            let error = endpoint(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
