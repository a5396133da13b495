//! Every reason for which an exchange ends with an answer of ours, by the party at fault.

use std::{borrow::Cow, time::Duration};

use crate::{denial::Denial, lease::BrokerFailure};

/// Why we answer in the provider's place. Each has one status, one reason code and one text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The broker's fault.
    Broker(BrokerFailure),
    /// The caller's fault.
    Denial(Denial),
    /// The fault of who configured Envoy.
    Operator(OperatorFault),
    /// The provider's fault.
    Provider(ProviderFault),
}

/// What is wrong with the Envoy around us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OperatorFault {
    /// A host call that can't fail failed, or a callback came out of order.
    Host,
    /// A held request gets no body: `allow_on_headers_stop_iteration` is not set.
    HoldModeMissing,
    /// The route leads to a cluster that is none of the provider's.
    WrongCluster,
}

/// What is wrong with the provider.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProviderFault {
    /// It does not accept the credential.
    BadCredential,
    /// It took longer than a stream may take.
    TooLong,
}

impl Refusal {
    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Broker(failure) => failure.status(),
            Self::Denial(denial) => denial.status(),
            Self::Operator(OperatorFault::Host | OperatorFault::HoldModeMissing) => 500,
            Self::Operator(OperatorFault::WrongCluster)
            | Self::Provider(ProviderFault::BadCredential) => 502,
            Self::Provider(ProviderFault::TooLong) => 504,
        }
    }

    /// The code for the `almoner-reason` header, the metrics and the record.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Broker(failure) => failure.reason(),
            Self::Denial(denial) => denial.reason(),
            Self::Operator(OperatorFault::Host) => "host_failure",
            Self::Operator(OperatorFault::HoldModeMissing) => "hold_mode_missing",
            Self::Operator(OperatorFault::WrongCluster) => "wrong_cluster",
            Self::Provider(ProviderFault::BadCredential) => "provider_bad_credential",
            Self::Provider(ProviderFault::TooLong) => "stream_too_long",
        }
    }

    /// The text of the answer.
    #[must_use]
    pub fn message(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Denial(denial) => return denial.message(),
            Self::Broker(BrokerFailure::Refused) => {
                "The broker issues no credential to this workload for this provider."
            }
            Self::Broker(_) => "No credential can be had at this moment. Try again.",
            Self::Operator(OperatorFault::Host) => "The gateway failed inside.",
            Self::Operator(OperatorFault::HoldModeMissing) => {
                "The gateway is not set up to hold requests: the operator must set \
                 `allow_on_headers_stop_iteration: true` for this plugin."
            }
            Self::Operator(OperatorFault::WrongCluster) => {
                "The gateway's route and provider disagree. Tell its operator."
            }
            Self::Provider(ProviderFault::BadCredential) => {
                "The provider did not accept the gateway's credential. Try again."
            }
            Self::Provider(ProviderFault::TooLong) => {
                "The provider took longer than a request may take here."
            }
        })
    }

    /// How long to wait before it makes sense to try again.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Denial(denial) => denial.retry_after(),
            Self::Broker(BrokerFailure::Refused)
            | Self::Operator(_)
            | Self::Provider(ProviderFault::TooLong) => None,
            Self::Broker(_) | Self::Provider(ProviderFault::BadCredential) => {
                Some(Duration::from_secs(2))
            }
        }
    }

    /// Whose fault it is, as metrics and records say it.
    #[must_use]
    pub const fn fault(self) -> &'static str {
        match self {
            Self::Broker(_) => "broker",
            Self::Denial(_) => "caller",
            Self::Operator(_) => "operator",
            Self::Provider(_) => "provider",
        }
    }
}

impl From<BrokerFailure> for Refusal {
    fn from(failure: BrokerFailure) -> Self {
        Self::Broker(failure)
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denial(denial)
    }
}

impl From<OperatorFault> for Refusal {
    fn from(fault: OperatorFault) -> Self {
        Self::Operator(fault)
    }
}

impl From<ProviderFault> for Refusal {
    fn from(fault: ProviderFault) -> Self {
        Self::Provider(fault)
    }
}
