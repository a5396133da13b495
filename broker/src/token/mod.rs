//! The token endpoint (RFC 8693): takes a form from a TLS peer, gives a credential or a refusal.
//!
//! `TLS identity ▸ listed Envoy ▸ form ▸ subject ▸ may speak for it ▸ policy ▸ credential ▸ audit
//! ▸ answer`, in this order and each step once: [`TokenEndpoint::exchange`] is the only place that
//! takes them all. Nothing is answered before its event is written.

mod answer;
mod form;
mod refusal;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use almoner_core::{subject::SubjectId, units::Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::error;

pub(crate) use self::{answer::Answer, form::MEDIA_TYPE, refusal::Refusal};
use self::{
    answer::Issued,
    form::{Form, SubjectToken},
};
use crate::{
    audit::{self, Audit},
    clock,
    credential::{Credentials, StoredCredential},
    envoys::{Envoys, Listed, SpiffeId},
    jwt::{Proven, Verifier},
    metrics::Metrics,
    policy::Policies,
    rate::RateLimit,
};

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub(crate) address: SocketAddr,
    /// The one URI SAN of its certificate, which TLS verified; `None` where it showed none.
    pub(crate) identity: Option<SpiffeId>,
}

/// Everything that an exchange needs.
pub(crate) struct TokenEndpoint {
    pub(crate) envoys: Envoys,
    pub(crate) verifier: Verifier,
    pub(crate) policies: Policies,
    pub(crate) credentials: Credentials,
    pub(crate) audit: Audit,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rate: RateLimit,
    pub(crate) running: Semaphore,
    pub(crate) max_lease: Duration,
    pub(crate) boot: String,
    pub(crate) sequence: AtomicU64,
}

/// What is learnt about an exchange on its way, for its audit event.
#[derive(Default)]
struct Trace {
    subject: Option<SubjectId>,
    provider: Option<String>,
    policy: Option<String>,
    envoy_policy_digest: Option<String>,
}

impl TokenEndpoint {
    /// Whether the peer is a listed Envoy.
    pub(crate) fn knows(&self, peer: &Peer) -> bool {
        peer.identity
            .as_ref()
            .is_some_and(|id| self.envoys.listed(id).is_some())
    }

    /// Who the peer is, if it is a listed Envoy that is within its rate, and there is room. Asked
    /// before the body is read: what is held of bodies is bounded by that room.
    pub(crate) fn admit<'a>(
        &'a self,
        peer: &'a Peer,
        now: Timestamp,
    ) -> Result<Caller<'a>, Refusal> {
        let id = peer.identity.as_ref().ok_or(Refusal::NoIdentity)?;
        let listed = self.envoys.listed(id).ok_or(Refusal::NotListed)?;
        if !self.rate.take(id, now) {
            return Err(Refusal::RateLimited);
        }
        let place = self.running.try_acquire().map_err(|_| Refusal::Busy)?;
        Ok(Caller {
            id,
            listed,
            _place: place,
        })
    }

    /// Exchanges what the form asks for.
    pub(crate) async fn exchange(
        &self,
        peer: &Peer,
        caller: &Caller<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Answer {
        let mut trace = Trace::default();
        match self.decide(caller, body, now, &mut trace).await {
            Ok(issued) => self.issue(peer, &trace, issued, now).await,
            Err(refusal) => self.record_refusal(peer, &trace, refusal, now).await,
        }
    }

    /// Refuses an exchange of which only the peer is known.
    pub(crate) async fn refuse(&self, peer: &Peer, refusal: Refusal, now: Timestamp) -> Answer {
        self.record_refusal(peer, &Trace::default(), refusal, now)
            .await
    }

    async fn decide<'a>(
        &'a self,
        caller: &Caller<'_>,
        body: &[u8],
        now: Timestamp,
        trace: &mut Trace,
    ) -> Result<Issued<'a>, Refusal> {
        let form = Form::parse(body)?;
        trace.provider = Some(form.audience.clone());
        let ours = self.policies.digest();
        trace.envoy_policy_digest = form.policy_digest.filter(|theirs| *theirs != ours);

        let proven = self.prove(&form.subject, now).await?;
        let subject = trace.subject.insert(proven.subject).clone();
        if !caller.listed.may_speak_for(caller.id, &subject) {
            return Err(Refusal::NotItsSubject);
        }

        let policy = self
            .policies
            .grant(&subject, &form.audience)
            .map_err(Refusal::Policy)?;
        trace.policy = Some(policy.name.clone());

        let credential = self
            .credentials
            .of(&form.audience)
            .ok_or(Refusal::NoCredential)?;
        if policy.environment.is_some() && policy.environment != credential.environment {
            return Err(Refusal::OtherEnvironment);
        }
        let expires_in = self.lifetime(credential, proven.expires, now)?;
        Ok(Issued {
            subject,
            credential,
            expires_in,
        })
    }

    async fn prove(&self, token: &SubjectToken, now: Timestamp) -> Result<Proven, Refusal> {
        match token {
            SubjectToken::Jwt(token) => self
                .verifier
                .verify(token, now)
                .await
                .map_err(Refusal::Token),
            SubjectToken::SpiffeId(id) => Ok(Proven {
                subject: SubjectId::vouched(id.as_str()),
                // The certificate that proved it ended at Envoy: only Envoy knows its expiry.
                expires: Timestamp(u64::MAX),
            }),
        }
    }

    /// Whole seconds to the first of all expiries.
    fn lifetime(
        &self,
        credential: &StoredCredential,
        token_expires: Timestamp,
        now: Timestamp,
    ) -> Result<u64, Refusal> {
        if credential.expires <= now {
            return Err(Refusal::CredentialExpired);
        }
        let end = credential
            .expires
            .min(token_expires)
            .min(now.after(self.max_lease));
        match end.since(now).as_secs() {
            0 => Err(Refusal::TooShort),
            seconds => Ok(seconds),
        }
    }

    async fn issue(
        &self,
        peer: &Peer,
        trace: &Trace,
        issued: Issued<'_>,
        now: Timestamp,
    ) -> Answer {
        let mut event = self.event(peer, trace, now);
        event.event = audit::Kind::CredentialIssued;
        event.credential_id = Some(issued.credential.id.as_str());
        event.owner = issued.credential.owner.as_deref();
        event.expires_in = Some(issued.expires_in);
        if self.write(&event).await {
            self.count("issued", trace);
            return issued.answer();
        }
        self.count(Refusal::NotAudited.reason(), trace);
        Refusal::NotAudited.answer()
    }

    async fn record_refusal(
        &self,
        peer: &Peer,
        trace: &Trace,
        refusal: Refusal,
        now: Timestamp,
    ) -> Answer {
        let mut event = self.event(peer, trace, now);
        event.reason = Some(refusal.reason());
        self.write(&event).await;
        self.count(refusal.reason(), trace);
        refusal.answer()
    }

    fn event<'a>(&'a self, peer: &'a Peer, trace: &'a Trace, now: Timestamp) -> audit::Event<'a> {
        audit::Event {
            time: clock::rfc3339(now),
            event: audit::Kind::ExchangeRefused,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            boot: &self.boot,
            envoy: peer.identity.as_ref().map(SpiffeId::as_str),
            address: peer.address.ip().to_string(),
            subject: trace.subject.as_ref().map(SubjectId::as_str),
            provider: trace.provider.as_deref(),
            policy: trace.policy.as_deref(),
            policy_digest: self.policies.digest(),
            envoy_policy_digest: trace.envoy_policy_digest.as_deref(),
            credential_id: None,
            owner: None,
            expires_in: None,
            reason: None,
        }
    }

    /// Writes an event; says whether it is written.
    async fn write(&self, event: &audit::Event<'_>) -> bool {
        let written = self.audit.write(event).await;
        if let Err(problem) = &written {
            self.metrics.audit_failures.inc();
            error!(%problem, "audit failure");
        }
        written.is_ok()
    }

    fn count(&self, outcome: &str, trace: &Trace) {
        self.metrics.exchanges.with_label_values(&[outcome]).inc();
        if trace.envoy_policy_digest.is_some() {
            self.metrics.policy_differs.inc();
        }
    }
}

/// A listed Envoy that asks, and its place among the exchanges that run.
pub(crate) struct Caller<'a> {
    id: &'a SpiffeId,
    listed: &'a Listed,
    _place: SemaphorePermit<'a>,
}
