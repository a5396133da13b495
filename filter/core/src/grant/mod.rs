//! The third stage: takes a [`Subject`] and what the request is about, gives a [`Grant`].
//!
//! The first policy whose subjects match decides alone. It decides twice: by the head, so that a
//! hopeless request is refused before its body is read ([`admit`]), and by the body
//! ([`Admission::grant`]). Without a body's facts there is no grant.

mod conditions;

use std::{borrow::Cow, sync::Arc};

pub use self::conditions::Surroundings;
use crate::{
    api::{Class, Endpoint, State},
    attributes::Attributes,
    body::BodyFacts,
    config::{Allow, Config, Mode, Policy, Provider, StateAccess},
    denial::Denial,
    glob::Glob,
    head::endpoint::{Body, Route},
    subject::{Subject, SubjectId},
    units::{Timestamp, Tokens},
};

/// Tiers that are what a request without any gets.
const ORDINARY_TIERS: [&str; 3] = ["auto", "default", "standard_only"];

/// The policy's yes to a request's head; its body is still unknown.
#[derive(Debug)]
pub struct Admission {
    policy: Arc<Policy>,
    provider: Arc<Provider>,
    endpoint: Endpoint,
    body: Body,
    observed: Option<Denial>,
}

/// The policy's yes.
#[derive(Debug)]
pub struct Grant {
    /// Who decided.
    pub policy: Arc<Policy>,
    /// Whom the request goes to.
    pub provider: Arc<Provider>,
    /// What is called.
    pub endpoint: Endpoint,
    /// What would have been refused if the policy enforced.
    pub observed: Option<Denial>,
    /// The most that one output may have; `None` where nothing bounds it.
    pub max_output: Option<Tokens>,
}

/// The policy that decides about a subject.
///
/// # Errors
/// [`Denial::NoPolicy`].
pub fn policy_of<'a>(config: &'a Config, subject: &SubjectId) -> Result<&'a Arc<Policy>, Denial> {
    config
        .policies
        .iter()
        .find(|policy| {
            policy
                .subjects
                .iter()
                .any(|glob| glob.matches(subject.as_str()))
        })
        .ok_or(Denial::NoPolicy)
}

/// Whether a subject may have a provider's credential at all: what the broker asks, which sees
/// neither request nor surroundings.
///
/// # Errors
/// Why not.
pub fn may_use<'a>(
    config: &'a Config,
    subject: &SubjectId,
    provider: &str,
) -> Result<&'a Arc<Policy>, Denial> {
    let policy = policy_of(config, subject)?;
    let named = policy
        .allow
        .iter()
        .any(|line| line.providers.iter().any(|p| p == provider));
    let known = config.providers.iter().any(|known| known.name == provider);
    if known && (named || policy.mode == Mode::Observe) {
        Ok(policy)
    } else {
        Err(Denial::ProviderNotAllowed)
    }
}

/// Decides by the head of a request.
///
/// # Errors
/// Why not. Where the policy only observes, what it would have refused is kept in the admission;
/// what protects other tenants is refused all the same.
pub fn admit(
    policy: &Arc<Policy>,
    subject: &Subject,
    provider: &Arc<Provider>,
    route: &Route<'_>,
    surroundings: &Surroundings<'_, impl Attributes>,
    now: Timestamp,
) -> Result<Admission, Denial> {
    check_state(provider, route.state)?;
    let mut admission = Admission {
        policy: Arc::clone(policy),
        provider: Arc::clone(provider),
        endpoint: route.endpoint,
        body: route.body,
        observed: None,
    };
    if admission.lines().next().is_none() {
        let served = policy
            .allow
            .iter()
            .any(|line| line.providers.contains(&provider.name));
        admission.refuse(if !served {
            Denial::ProviderNotAllowed
        } else if route.endpoint.class() == Class::Unmetered {
            Denial::UnmeteredEndpoint
        } else {
            Denial::EndpointNotAllowed
        })?;
    }
    if let Err(denial) = conditions::hold(&policy.conditions, subject, surroundings, now) {
        admission.refuse(denial)?;
    }
    if let Some(model) = route.model {
        let models = [Cow::Borrowed(model)];
        if let Err(denial) =
            admission.some_line(|line| all(&line.models, &models, Denial::ModelNotAllowed))
        {
            admission.refuse(denial)?;
        }
    }
    Ok(admission)
}

impl Admission {
    /// The policy that decides.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides by the facts of the body; `None` where the endpoint has no body that is read.
    ///
    /// # Errors
    /// Why not.
    pub fn grant(
        mut self,
        facts: Option<&BodyFacts<'_>>,
        head_betas: &[String],
    ) -> Result<Grant, Denial> {
        let wanted = facts.and_then(|facts| facts.max_output_tokens);
        let allowed = self.policy.max_output_tokens;
        if let Some(facts) = facts {
            check_state(&self.provider, facts.state)?;
            if facts.background {
                return Err(Denial::BackgroundNotAllowed);
            }
            if facts.models.is_empty() && self.endpoint.needs_model() {
                return Err(Denial::ModelMissing);
            }
        }
        if let Err(denial) = self.some_line(|line| self.line_allows(line, facts, head_betas)) {
            self.refuse(denial)?;
        }
        if let (Some(wanted), Some(allowed)) = (wanted, allowed)
            && wanted > allowed
        {
            self.refuse(Denial::MaxOutputTokensTooLarge { limit: allowed.0 })?;
        }
        Ok(Grant {
            policy: self.policy,
            provider: self.provider,
            endpoint: self.endpoint,
            observed: self.observed,
            max_output: wanted.or(allowed),
        })
    }

    fn line_allows(
        &self,
        line: &Allow,
        facts: Option<&BodyFacts<'_>>,
        head_betas: &[String],
    ) -> Result<(), Denial> {
        if !head_betas
            .iter()
            .all(|beta| line.betas.iter().any(|glob| glob.matches(beta)))
        {
            return Err(Denial::BetaNotAllowed);
        }
        let Some(facts) = facts else {
            let every_model = line.models.iter().any(|glob| glob.as_str() == "**");
            return if self.body != Body::Opaque || every_model {
                Ok(())
            } else {
                Err(Denial::ModelNotAllowed)
            };
        };
        all(&line.models, &facts.models, Denial::ModelNotAllowed)?;
        all(&line.tools, &facts.tools, Denial::ToolNotAllowed)?;
        all(&line.betas, &facts.betas, Denial::BetaNotAllowed)?;
        let tier = facts
            .service_tier
            .as_ref()
            .filter(|t| !ORDINARY_TIERS.contains(&t.as_ref()));
        all(&line.service_tiers, tier, Denial::ServiceTierNotAllowed)?;
        let speeds = facts.speeds.iter().filter(|speed| *speed != "standard");
        all(&line.service_tiers, speeds, Denial::SpeedNotAllowed)
    }

    /// The policy's lines for this provider and endpoint.
    fn lines(&self) -> impl Iterator<Item = &Allow> {
        self.policy.allow.iter().filter(|line| {
            line.providers.contains(&self.provider.name) && line.endpoints.contains(&self.endpoint)
        })
    }

    /// One line must allow everything: what two lines allow together is not allowed. The reason is
    /// that of the first line.
    fn some_line(&self, allows: impl Fn(&Allow) -> Result<(), Denial>) -> Result<(), Denial> {
        let mut reason = None;
        for line in self.lines() {
            match allows(line) {
                Ok(()) => return Ok(()),
                Err(denial) => reason = reason.or(Some(denial)),
            }
        }
        // Without a line the head was refused already, or the policy only observes.
        reason.map_or(Ok(()), Err)
    }

    fn refuse(&mut self, denial: Denial) -> Result<(), Denial> {
        match self.policy.mode {
            Mode::Enforce => Err(denial),
            Mode::Observe => {
                self.observed = self.observed.or(Some(denial));
                Ok(())
            }
        }
    }
}

fn check_state(provider: &Provider, used: Option<State>) -> Result<(), Denial> {
    match (provider.state, used) {
        (StateAccess::None, Some(_)) => Err(Denial::ProviderState),
        (StateAccess::None, None) | (StateAccess::Own | StateAccess::Shared, _) => Ok(()),
    }
}

fn all<'a>(
    allowed: &[Glob],
    asked: impl IntoIterator<Item = &'a Cow<'a, str>>,
    denial: Denial,
) -> Result<(), Denial> {
    let named = |name: &str| allowed.iter().any(|glob| glob.matches(name));
    if asked.into_iter().all(|name| named(name)) {
        Ok(())
    } else {
        Err(denial)
    }
}

#[cfg(test)]
mod tests;
