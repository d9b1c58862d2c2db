//! The server's metrics. Label sets are closed; children are looked up once.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug)]
pub(super) struct GrpcMetrics {
    connections: IntGauge,
    connections_refused: Vec<IntCounter>,
    calls_refused: Vec<IntCounter>,
}

/// Why a call was not carried out: the label `why` of `torwart_verdict_calls_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallRefused {
    /// Too many at once.
    Overload,
    /// None has been loaded yet.
    NoPolicy,
    /// The request is malformed.
    Invalid,
    /// No policy has the route.
    UnknownRoute,
    /// It was begun, but its time was over.
    Deadline,
}

/// Why a connection ended before its first call: the label `why` of `torwart_verdict_connections_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionRefused {
    /// Too many at once.
    Limit,
    /// TLS failed, or its certificate was not accepted.
    Tls,
    /// Nothing was heard from it.
    Silent,
}

/// Counts a connection until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a IntGauge);

// === impl GrpcMetrics ===

impl GrpcMetrics {
    /// Errs if one of the names is taken in `registry`.
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        let connections = IntGauge::new(
            "torwart_verdict_connections",
            "gRPC connections that are open, handshakes included",
        )?;
        registry.register(Box::new(connections.clone()))?;
        let connections_refused = IntCounterVec::new(
            Opts::new("torwart_verdict_connections_refused_total", "gRPC connections that came to nothing"),
            &["why"],
        )?;
        registry.register(Box::new(connections_refused.clone()))?;
        let calls_refused = IntCounterVec::new(
            Opts::new("torwart_verdict_calls_refused_total", "gRPC calls that were not carried out"),
            &["why"],
        )?;
        registry.register(Box::new(calls_refused.clone()))?;
        Ok(Self {
            connections,
            connections_refused: ConnectionRefused::ALL
                .iter()
                .map(|why| connections_refused.with_label_values(&[why.as_str()]))
                .collect(),
            calls_refused: CallRefused::ALL
                .iter()
                .map(|why| calls_refused.with_label_values(&[why.as_str()]))
                .collect(),
        })
    }

    pub(super) fn call_refused(&self, why: CallRefused) {
        if let Some(counter) = self.calls_refused.get(why as usize) {
            counter.inc();
        }
    }

    pub(super) fn connection_refused(&self, why: ConnectionRefused) {
        if let Some(counter) = self.connections_refused.get(why as usize) {
            counter.inc();
        }
    }

    pub(super) fn connection(&self) -> Held<'_> {
        self.connections.inc();
        Held(&self.connections)
    }
}

// === impl CallRefused, ConnectionRefused, Held ===

impl CallRefused {
    const ALL: [Self; 5] =
        [Self::Overload, Self::NoPolicy, Self::Invalid, Self::UnknownRoute, Self::Deadline];

    fn as_str(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::NoPolicy => "no_policy",
            Self::Invalid => "invalid",
            Self::UnknownRoute => "unknown_route",
            Self::Deadline => "deadline",
        }
    }
}

impl ConnectionRefused {
    const ALL: [Self; 3] = [Self::Limit, Self::Tls, Self::Silent];

    fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Tls => "tls",
            Self::Silent => "silent",
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
