//! The last stage: what one exchange leaves behind, refusals included.
//!
//! Names are those of OpenTelemetry's semantic conventions for generative AI where there is one,
//! and `almoner.*` otherwise. Nothing in a record is a secret.

use std::fmt::{self, Write as _};

use crate::{
    api::{Api, Endpoint},
    denial::Denial,
    lease::Dropped,
    meter::{End, Metered},
    refusal::{OperatorFault, Refusal},
    reservation::Amounts,
    secret::CredentialId,
    settlement::Settlement,
    subject::SubjectId,
    units::{Timestamp, Tokens, millis},
};

/// What is known of an exchange when it ends. What was never learned is `None`.
#[derive(Debug, Default)]
pub struct Record {
    /// The first of [`crate::config::PolicyDigest`].
    pub policy_digest: String,
    /// Envoy's `x-request-id`.
    pub request_id: String,
    /// The method, and the path as the caller sent it, without the query: a place where keys are put.
    pub asked: Option<(String, String)>,
    /// When it began.
    pub began: Timestamp,
    /// Who called.
    pub subject: Option<SubjectId>,
    /// Which policy decided.
    pub policy: Option<String>,
    /// Which provider it was for.
    pub provider: Option<(String, Api)>,
    /// What was called.
    pub endpoint: Option<Endpoint>,
    /// The models that the request names, the first one first.
    pub models: Vec<String>,
    /// Whether the answer was to be a stream.
    pub stream: bool,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// Why it would have been refused, had the policy enforced.
    pub observed: Option<Denial>,
    /// The credential that was attached.
    pub credential: Option<CredentialId>,
    /// The provider's status.
    pub status: Option<u16>,
    /// Whether its lease was dropped because the provider refused it.
    pub dropped: Dropped,
    /// Whether the request can have reached the provider.
    pub reached: Reached,
    /// How the answer ended, or the wait for it.
    pub end_of_answer: Option<End>,
    /// What the meter found.
    pub metered: Option<Metered>,
    /// What was held for it.
    pub reserved: Option<Amounts>,
    /// What it was charged for.
    pub charged: Option<Amounts>,
    /// What became of the reservation.
    pub settlement: Option<Settlement>,
    /// How often Envoy sent the request up.
    pub attempts: Option<u64>,
    /// When it ended.
    pub end: Timestamp,
}

/// Whether a request that went up can have reached the provider.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reached {
    /// Envoy found no route or had no connection.
    Nobody,
    /// It can.
    #[default]
    Provider,
}

/// The outcome of an exchange, of a closed set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was begun and never decided: the caller went away, or Envoy answered.
    Abandoned,
    /// We answered.
    Refused,
    /// The provider answered.
    Served,
    /// The provider was asked and gave no answer.
    Unanswered,
    /// Envoy could not ask the provider.
    Unreached,
}

impl Outcome {
    /// As records and metrics say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Refused => "refused",
            Self::Served => "served",
            Self::Unanswered => "unanswered",
            Self::Unreached => "unreached",
        }
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Several texts.
    List(&'a [String]),
    /// A count.
    Number(u64),
    /// A text.
    Text(&'a str),
}

impl Value<'_> {
    /// Writes it as JSON.
    fn write(&self, to: &mut String) {
        match self {
            Self::List(texts) => {
                to.push('[');
                for (at, text) in texts.iter().enumerate() {
                    if at > 0 {
                        to.push(',');
                    }
                    Value::Text(text).write(to);
                }
                to.push(']');
            }
            Self::Number(number) => {
                // Writing to a string does not fail.
                let _ = write!(to, "{number}");
            }
            Self::Text(text) => match serde_json::to_string(text) {
                Ok(json) => to.push_str(&json),
                Err(_) => to.push_str("null"),
            },
        }
    }
}

impl Record {
    /// How the exchange came out.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        if self.refusal.is_some() {
            Outcome::Refused
        } else if matches!(self.reached, Reached::Nobody) {
            Outcome::Unreached
        } else if self.status.is_some() {
            Outcome::Served
        } else if self.end_of_answer.is_some() {
            Outcome::Unanswered
        } else {
            Outcome::Abandoned
        }
    }

    /// The record as a flat object: names and values, in a fixed order, without what is unknown.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, Value<'_>)> {
        let mut fields = Fields(Vec::with_capacity(40));
        fields.text("almoner.outcome", self.outcome().name());
        fields.text("almoner.policy_digest", &self.policy_digest);
        fields.text("almoner.request_id", &self.request_id);
        if let Some((method, path)) = &self.asked {
            fields.text("http.request.method", method);
            fields.text("url.path", path);
        }
        fields.maybe(
            "almoner.subject",
            self.subject.as_ref().map(SubjectId::as_str),
        );
        fields.maybe("almoner.policy", self.policy.as_deref());
        if let Some((name, api)) = &self.provider {
            fields.text("almoner.provider", name);
            fields.text("gen_ai.provider.name", api.name());
        }
        fields.maybe("gen_ai.operation.name", self.endpoint.map(Endpoint::name));
        if let Some((model, others)) = self.models.split_first() {
            fields.text("gen_ai.request.model", model);
            fields.list("almoner.request.other_models", others);
        }
        if self.stream {
            fields.text("almoner.request.stream", "true");
        }
        if let Some(refusal) = self.refusal {
            fields.text("error.type", refusal.reason());
            fields.text("almoner.fault", refusal.fault());
            fields.number("almoner.status", u64::from(refusal.status()));
        }
        fields.maybe("almoner.observed", self.observed.map(Denial::reason));
        fields.maybe(
            "almoner.credential_id",
            self.credential.as_ref().map(CredentialId::as_str),
        );
        if let Some(status) = self.status {
            fields.number("http.response.status_code", u64::from(status));
        }
        fields.maybe("almoner.ended", self.end_of_answer.map(End::name));
        self.usage_fields(&mut fields);
        if let Some(attempts) = self.attempts {
            fields.number("almoner.attempts", attempts);
        }
        fields.number("almoner.began_ms", self.began.0);
        fields.number("almoner.duration_ms", millis(self.end.since(self.began)));
        fields.0
    }

    /// The record as JSON, without the braces around it: so an access log's line is JSON also where
    /// there is no record.
    #[must_use]
    pub fn members(&self) -> String {
        let mut text = String::with_capacity(1024);
        for (name, value) in self.fields() {
            if !text.is_empty() {
                text.push(',');
            }
            text.push('"');
            text.push_str(name);
            text.push_str("\":");
            value.write(&mut text);
        }
        text
    }

    /// What this exchange adds to which counters. Names and label values are the configuration's
    /// names and closed sets alone; `;label=value` is what Envoy's `stats_tags` make labels of.
    pub fn counts(&self, mut add: impl FnMut(&str, u64)) {
        let provider = self
            .provider
            .as_ref()
            .map_or("none", |(name, _)| name.as_str());
        let policy = self.policy.as_deref().unwrap_or("none");
        let who = format!(";provider={provider};policy={policy}");
        let mut name = String::with_capacity(160);
        let mut count = |by: u64, parts: fmt::Arguments<'_>| {
            if by > 0 {
                name.clear();
                // Writing to a string does not fail.
                let _ = name.write_fmt(parts);
                add(&name, by);
            }
        };
        let outcome = self.outcome().name();
        let reason = self.refusal.map_or("none", Refusal::reason);
        count(
            1,
            format_args!("almoner_exchanges{who};outcome={outcome};reason={reason}"),
        );
        if self.refusal == Some(Refusal::Operator(OperatorFault::WrongCluster)) {
            count(1, format_args!("almoner_critical;reason=wrong_cluster"));
        }
        if let Some(denial) = self.observed {
            count(
                1,
                format_args!("almoner_observed{who};reason={}", denial.reason()),
            );
        }
        if self.dropped == Dropped::Yes {
            count(
                1,
                format_args!("almoner_leases_dropped;provider={provider}"),
            );
        }
        if let (Some(charged), Some(metered)) = (&self.charged, &self.metered) {
            let result = metered.completeness.name();
            for (kind, tokens) in [("input", charged.input), ("output", charged.output)] {
                count(
                    tokens.0,
                    format_args!("almoner_tokens{who};kind={kind};result={result}"),
                );
            }
        }
        let budgets = self
            .settlement
            .iter()
            .flat_map(|settlement| &settlement.budgets);
        for settled in budgets {
            count(
                settled.refund(),
                format_args!("almoner_settled{who};kind=refund"),
            );
            count(
                settled.overdraft(),
                format_args!("almoner_settled{who};kind=overdraft"),
            );
            if settled.fault.is_some() {
                count(1, format_args!("almoner_critical;reason=settlement_failed"));
            }
        }
    }

    fn usage_fields<'a>(&'a self, fields: &mut Fields<'a>) {
        if let Some(metered) = &self.metered {
            let usage = &metered.usage;
            fields.tokens("gen_ai.usage.input_tokens", usage.input);
            fields.tokens("gen_ai.usage.output_tokens", usage.output);
            fields.tokens("gen_ai.usage.cache_read.input_tokens", usage.cached_input);
            fields.tokens(
                "gen_ai.usage.cache_creation.input_tokens",
                usage.cache_write,
            );
            fields.tokens("almoner.usage.reasoning_tokens", usage.reasoning);
            fields.tokens("almoner.usage.reported_total_tokens", usage.total);
            fields.text("almoner.usage.completeness", metered.completeness.name());
            fields.maybe("gen_ai.response.model", metered.model.as_deref());
            fields.maybe("gen_ai.response.id", metered.response_id.as_deref());
            fields.list("gen_ai.response.finish_reasons", &metered.finish_reasons);
        }
        if let (Some(reserved), Some(charged)) = (&self.reserved, &self.charged) {
            fields.number("almoner.reserved.input_tokens", reserved.input.0);
            fields.number("almoner.reserved.output_tokens", reserved.output.0);
            fields.number("almoner.charged.input_tokens", charged.input.0);
            fields.number("almoner.charged.output_tokens", charged.output.0);
        }
    }
}

struct Fields<'a>(Vec<(&'static str, Value<'a>)>);

impl<'a> Fields<'a> {
    fn text(&mut self, name: &'static str, value: &'a str) {
        self.0.push((name, Value::Text(value)));
    }

    fn maybe(&mut self, name: &'static str, value: Option<&'a str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn list(&mut self, name: &'static str, values: &'a [String]) {
        if !values.is_empty() {
            self.0.push((name, Value::List(values)));
        }
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.0.push((name, Value::Number(value)));
    }

    fn tokens(&mut self, name: &'static str, value: Option<Tokens>) {
        if let Some(tokens) = value {
            self.number(name, tokens.0);
        }
    }
}
