//! What the broker counts: takes outcomes, gives the text that Prometheus reads.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry,
};

/// The broker's metrics. Labels come from the configuration or from closed lists, never from a request.
pub(crate) struct Metrics {
    registry: Registry,
    /// Exchanges by `outcome`: `issued`, or the reason of a refusal.
    pub(crate) exchanges: IntCounterVec,
    /// How long an exchange took, in seconds.
    pub(crate) exchange_seconds: Histogram,
    /// Fetches of an issuer's keys, by `issuer` and `outcome`.
    pub(crate) jwks_refreshes: IntCounterVec,
    /// When a provider's credential expires, in Unix seconds, by `provider`.
    pub(crate) credential_expiry: GaugeVec,
    /// Audit events that could not be written: each is an exchange refused.
    pub(crate) audit_failures: IntCounter,
    /// Connections on the token listener.
    pub(crate) connections: Gauge,
    /// TLS handshakes that failed.
    pub(crate) handshake_failures: IntCounter,
    /// Exchanges whose Envoy decides by another policy document than this broker.
    pub(crate) policy_differs: IntCounter,
}

impl Metrics {
    /// Fresh metrics with a registry of their own.
    ///
    /// # Errors
    /// Where two metrics have one name: a mistake of this file.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("almoner_broker".to_owned()), None)?;
        let metrics = Self {
            exchanges: IntCounterVec::new(
                Opts::new("exchanges_total", "Token exchanges by outcome."),
                &["outcome"],
            )?,
            exchange_seconds: Histogram::with_opts(
                HistogramOpts::new("exchange_seconds", "Time of a token exchange.").buckets(vec![
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
                ]),
            )?,
            jwks_refreshes: IntCounterVec::new(
                Opts::new(
                    "jwks_refreshes_total",
                    "Fetches of an issuer's keys by outcome.",
                ),
                &["issuer", "outcome"],
            )?,
            credential_expiry: GaugeVec::new(
                Opts::new(
                    "credential_expiry_seconds",
                    "When a credential expires, Unix time.",
                ),
                &["provider"],
            )?,
            audit_failures: IntCounter::new(
                "audit_failures_total",
                "Audit events that could not be written.",
            )?,
            connections: Gauge::new("connections", "Connections on the token listener.")?,
            handshake_failures: IntCounter::new(
                "handshake_failures_total",
                "TLS handshakes that failed.",
            )?,
            policy_differs: IntCounter::new(
                "policy_differs_total",
                "Exchanges whose Envoy has another policy document.",
            )?,
            registry,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        registry.register(Box::new(self.exchanges.clone()))?;
        registry.register(Box::new(self.exchange_seconds.clone()))?;
        registry.register(Box::new(self.jwks_refreshes.clone()))?;
        registry.register(Box::new(self.credential_expiry.clone()))?;
        registry.register(Box::new(self.audit_failures.clone()))?;
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.handshake_failures.clone()))?;
        registry.register(Box::new(self.policy_differs.clone()))
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// Where a metric can't be written as text.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
