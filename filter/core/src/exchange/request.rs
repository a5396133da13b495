//! The way up: head, body and lease of a request, each a step of its [`Exchange`].

use std::{cell::OnceCell, sync::Arc};

use super::{
    BodyEdit, BodyStep, CredentialHeader, Exchange, HeadStep, HeaderEdits, Host, LeaseFetch,
    LeaseStep, Sent, State,
};
use crate::{
    api::{Class, Endpoint},
    attributes::{Attributes, text},
    body::{self, BodyFacts},
    config::{Config, Mode, Per, Provider, Slot, StateAccess},
    denial::Denial,
    edits::{self, Edit},
    grant::{self, Admission, Grant, Surroundings},
    head::{
        Head,
        endpoint::{self, Body},
        headers::{self, Fate},
        provider, query,
    },
    lease::{self, BrokerFailure, Fetch, Found, Lease, LeaseKey, Leases, Renewal},
    meter::{self, Form, UsageEvent},
    refusal::{OperatorFault, Refusal},
    reservation::{
        self, Amounts, Ask, BudgetIndex, Clamp, Fault, OwnerId, Reason, Reservation, Store,
    },
    secret::BearerToken,
    subject::{self, Presented, Proof, Subject},
    units::Tokens,
};

/// Tokens that one embedded or linked image or file may cost, at most, beyond its bytes.
const ATTACHMENT: Tokens = Tokens(2_000);

/// A request whose head is accepted.
pub(super) struct Holding {
    subject: Subject,
    token: Option<BearerToken>,
    admission: Admission,
    provider: Arc<Provider>,
    endpoint: Endpoint,
    body: Body,
    betas: Vec<String>,
}

/// Header pairs as the host gives them: lower-case names, values of any bytes.
pub type Pairs<'a> = &'a [(&'a [u8], &'a [u8])];

struct Slots<'a>(Pairs<'a>);

impl Presented for Slots<'_> {
    fn presents(&self, slot: Slot) -> bool {
        value(self.0, slot.header()).is_some()
    }
}

fn value<'a>(pairs: Pairs<'a>, name: &str) -> Option<&'a [u8]> {
    pairs
        .iter()
        .find(|(n, _)| *n == name.as_bytes())
        .map(|(_, value)| *value)
}

impl Exchange {
    /// The head has come: proves the caller, decides what can be decided, says which headers stay.
    pub fn on_head(
        &mut self,
        pairs: Pairs<'_>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> HeadStep {
        self.record.began = host.now;
        self.record
            .policy_digest
            .clone_from(&host.config.digest_name);
        self.record.request_id = value(pairs, "x-request-id")
            .and_then(|id| str::from_utf8(id).ok())
            .filter(|id| id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic()))
            .unwrap_or_default()
            .to_owned();
        self.record.asked = value(pairs, ":method")
            .zip(value(pairs, ":path"))
            .map(asked);
        match self.read_head(pairs, host) {
            Ok((holding, edits)) => {
                self.state = State::Holding(Box::new(holding));
                HeadStep::Hold(edits)
            }
            Err(refusal) => {
                let path = value(pairs, ":path").unwrap_or_default();
                let likely = || provider::likely_api(&host.config.providers, path);
                self.api = self.api.or_else(likely);
                HeadStep::Refuse(self.refuse(refusal, host))
            }
        }
    }

    fn read_head(
        &mut self,
        pairs: Pairs<'_>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> Result<(Holding, HeaderEdits), Refusal> {
        let head = Head::read(pairs.iter().copied())?;
        let (provider, rest) = provider::find(&host.config.providers, head.authority, head.target)?;
        self.api = Some(provider.api);
        self.record.provider = Some((provider.name.clone(), provider.api));
        let subject = subject::prove(&host.config.identity, &Slots(pairs), host.attributes)?;
        self.record.subject = Some(subject.id.clone());
        let route = endpoint::resolve(provider.api, head.method, rest)?;
        self.record.endpoint = Some(route.endpoint);
        head.expect(route.body)?;
        if !leads_to(provider, host.attributes) {
            return Err(OperatorFault::WrongCluster.into());
        }
        let country = host.config.network.country_header.as_deref();
        let surroundings = Surroundings {
            attributes: host.attributes,
            country: country.and_then(|name| value(pairs, name)),
        };
        let policy = grant::policy_of(host.config, &subject.id)?;
        self.record.policy = Some(policy.name.clone());
        let admission = grant::admit(policy, &subject, provider, &route, &surroundings, host.now)?;
        let limit = host.config.limits.max_body_bytes;
        if head.content_length().is_some_and(|length| length > limit) {
            return Err(Denial::BodyTooLarge.into());
        }
        let token = match subject.proof {
            Proof::Token(slot) => value(pairs, slot.header()).and_then(BearerToken::of_header),
            Proof::Certificate | Proof::Proxy => None,
        };
        let holding = Holding {
            subject,
            token,
            admission,
            provider: Arc::clone(provider),
            endpoint: route.endpoint,
            body: route.body,
            betas: head.betas.iter().map(|beta| (*beta).to_owned()).collect(),
        };
        Ok((holding, header_edits(provider, &head, pairs)))
    }

    /// Whether a body of which `size` bytes have come is more than will be read.
    #[must_use]
    pub fn is_too_much(&self, size: usize, config: &Config) -> bool {
        let limit = usize::try_from(config.limits.max_body_bytes).unwrap_or(usize::MAX);
        matches!(self.state, State::Holding(_)) && size > limit
    }

    /// The body is complete (empty where there is none): decides, reserves, and asks for a lease.
    ///
    /// `waiter` is how the one who fetches finds this exchange again.
    pub fn on_body<W>(
        &mut self,
        bytes: &[u8],
        waiter: W,
        leases: &mut Leases<W>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> BodyStep {
        let State::Holding(holding) = std::mem::replace(&mut self.state, State::Over) else {
            return BodyStep::Refuse(self.out_of_order(host));
        };
        match self.decide(*holding, bytes, waiter, leases, host) {
            Ok(step) => step,
            Err(refusal) => BodyStep::Refuse(self.refuse(refusal, host)),
        }
    }

    fn decide<W>(
        &mut self,
        holding: Holding,
        bytes: &[u8],
        waiter: W,
        leases: &mut Leases<W>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> Result<BodyStep, Refusal> {
        let Holding {
            subject,
            token,
            admission,
            provider,
            endpoint,
            body,
            betas,
        } = holding;
        let facts = read_body(body, endpoint, bytes)?;
        if let Some(facts) = &facts {
            self.record.models = facts.models.iter().map(|model| bounded(model)).collect();
            self.record.stream = facts.stream;
        }
        let grant = admission.grant(facts.as_ref(), &betas)?;
        self.record.observed = grant.observed;
        let reserved = amounts(&grant, facts.as_ref(), bytes);
        let reservation = self.reserve(&grant, &subject, reserved, host)?;
        let edited = facts
            .as_ref()
            .and_then(|facts| edits::apply(facts, &wanted(&grant)));
        let scope = host.config.broker.scope.as_deref();
        let key = LeaseKey::of(&subject.id, &provider.name, scope, &host.config.digest);
        // Without a body nothing is made: an answer that is read again was charged when it was made.
        let answers = match body {
            Body::None => Endpoint::Models,
            Body::Json | Body::Opaque => endpoint,
        };
        let sent = Sent {
            form: Form::of(provider.api, answers),
            provider,
            reservation,
            reserved,
            input_estimate: meter::estimate_request(bytes),
            usage_event: usage_event(facts.as_ref()),
            lease: key,
            longest: grant.policy.max_stream_duration,
        };
        let asking = Asking {
            subject,
            token,
            provider: Arc::clone(&sent.provider),
            key,
        };
        self.state = State::Leasing(Box::new(sent));
        self.find_lease(asking, edited, waiter, leases, host)
    }

    /// Sends the request up with the lease that is held, or has it wait for one.
    fn find_lease<W>(
        &mut self,
        asking: Asking,
        edited: BodyEdit,
        waiter: W,
        leases: &mut Leases<W>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> Result<BodyStep, Refusal> {
        let key = asking.key;
        match leases.find(&key, host.now) {
            Found::Lease(held, renewal) => {
                let due = renewal == Renewal::Due
                    && leases.fetch(key, None, host.now) == Ok(Fetch::Start);
                let header = self.attach(&held)?;
                Ok(BodyStep::Send(
                    edited,
                    header,
                    due.then(|| asking.fetch(host.config)),
                ))
            }
            Found::Failure(failure) => Err(failure.into()),
            Found::Nothing => {
                let started = leases.fetch(key, Some(waiter), host.now)?;
                let fetch = (started == Fetch::Start).then(|| asking.fetch(host.config));
                Ok(BodyStep::Await(edited, fetch))
            }
        }
    }

    /// A fetch that this exchange may have waited for has ended.
    pub fn on_lease<W>(
        &mut self,
        leases: &Leases<W>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> LeaseStep {
        let State::Leasing(sent) = &self.state else {
            return LeaseStep::Nothing;
        };
        let header = match leases.find(&sent.lease, host.now) {
            Found::Lease(held, _) => self.attach(&held),
            Found::Failure(failure) => Err(failure.into()),
            Found::Nothing => Err(BrokerFailure::Unavailable.into()),
        };
        match header {
            Ok(header) => LeaseStep::Send(header),
            Err(refusal) => LeaseStep::Refuse(self.refuse(refusal, host)),
        }
    }

    /// Lets the request go up with a credential.
    fn attach(&mut self, lease: &Lease) -> Result<CredentialHeader, Refusal> {
        let State::Leasing(sent) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(OperatorFault::Host.into());
        };
        self.record.credential = Some(lease.credential_id.clone());
        let (name, value) = lease.header(sent.provider.api);
        self.state = State::Sent(sent);
        Ok(CredentialHeader { name, value })
    }

    /// Takes what the request may cost out of every budget of the policy, or out of none.
    fn reserve(
        &mut self,
        grant: &Grant,
        subject: &Subject,
        amounts: Amounts,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> Result<Option<Reservation>, Refusal> {
        let policy = &grant.policy;
        let subject_owner = OnceCell::new();
        let asks = policy.budgets.iter().filter_map(|&at| {
            let budget = host.config.budgets.get(at)?;
            let owner = match budget.per {
                Per::All => OwnerId::all(),
                Per::Policy => OwnerId::policy(&policy.name),
                Per::Provider => OwnerId::provider(&grant.provider.name),
                Per::Subject => {
                    *subject_owner.get_or_init(|| OwnerId::subject(subject.id.as_str()))
                }
            };
            Some(Ask {
                budget: BudgetIndex(at),
                owner,
                clamp: Clamp::NONE,
            })
        });
        let asks: Vec<Ask> = asks.collect();
        let hold = policy.max_stream_duration;
        match host
            .ledger
            .reserve(host.store, &asks, &amounts, host.now, hold)
        {
            Ok(reservation) => Ok(Some(reservation)),
            Err(refusal) if policy.mode == Mode::Observe => {
                self.record.observed = self.record.observed.or(Some(denial(refusal)));
                Ok(None)
            }
            Err(refusal) => Err(denial(refusal).into()),
        }
    }
}

/// What a lease is asked for with.
struct Asking {
    subject: Subject,
    token: Option<BearerToken>,
    provider: Arc<Provider>,
    key: LeaseKey,
}

impl Asking {
    fn fetch(self, config: &Config) -> LeaseFetch {
        let form = lease::request(&lease::Request {
            subject: &self.subject.id,
            token: self.token.as_ref(),
            provider: &self.provider.name,
            scope: config.broker.scope.as_deref(),
            policies: &config.digest,
        });
        LeaseFetch {
            key: self.key,
            subject: self.subject.id,
            form,
        }
    }
}

/// A budget's no, as the caller hears it. A balance that can't be read counts as spent.
const fn denial(refusal: reservation::Refusal) -> Denial {
    match refusal.reason {
        Reason::Spent { retry_after, .. } => Denial::BudgetSpent { retry_after },
        Reason::Fault(Fault::Contended) => Denial::BudgetContended,
        Reason::Fault(Fault::TableFull) => Denial::BudgetTableFull,
        Reason::Fault(Fault::Malformed | Fault::Missing | Fault::StoreFailed) | Reason::Lapsed => {
            Denial::BudgetUnreadable
        }
    }
}

/// Strictly, where it is JSON; a body that is none of ours to read is not read.
fn read_body(
    body: Body,
    endpoint: Endpoint,
    bytes: &[u8],
) -> Result<Option<BodyFacts<'_>>, Denial> {
    match (body, bytes) {
        (Body::Json, []) => Err(Denial::BodyMissing),
        (Body::Json, bytes) => body::read(endpoint, bytes).map(Some),
        (Body::None, []) | (Body::Opaque, _) => Ok(None),
        (Body::None, _) => Err(Denial::BodyUnexpected),
    }
}

/// What the request may cost, at most: the input by an upper bound, and all the output that it may
/// have.
fn amounts(grant: &Grant, facts: Option<&BodyFacts<'_>>, bytes: &[u8]) -> Amounts {
    let (input, output) = match (grant.endpoint.class(), facts) {
        (Class::Metered, Some(facts)) => {
            let input = meter::upper_bound(bytes).plus(ATTACHMENT.times(facts.attachments));
            let output = grant.max_output.unwrap_or_default().times(facts.choices);
            (
                input,
                if writes(grant.endpoint) {
                    output
                } else {
                    Tokens::ZERO
                },
            )
        }
        _ => (Tokens::ZERO, Tokens::ZERO),
    };
    Amounts {
        requests: 1,
        input,
        output,
        ..Amounts::ZERO
    }
}

const fn writes(endpoint: Endpoint) -> bool {
    !matches!(endpoint, Endpoint::Embeddings)
}

/// What must stand in the body that goes up; [`edits::apply`] leaves out what the endpoint has not.
fn wanted(grant: &Grant) -> Vec<Edit> {
    let mut edits = vec![Edit::IncludeUsage];
    edits.extend(grant.policy.max_output_tokens.map(Edit::MaxOutputTokens));
    if grant.provider.state == StateAccess::None {
        edits.push(Edit::NoStore);
    }
    edits
}

/// What we alone ask for is ours alone; where an API reports unasked, its events are the caller's.
fn usage_event(facts: Option<&BodyFacts<'_>>) -> UsageEvent {
    match facts {
        Some(facts) if edits::lacks_usage_event(facts) => UsageEvent::Remove,
        _ => UsageEvent::Keep,
    }
}

/// Whether Envoy's route leads to one of the provider's clusters.
pub(super) fn leads_to(provider: &Provider, attributes: &impl Attributes) -> bool {
    text(attributes, &["xds", "cluster_name"])
        .is_some_and(|cluster| provider.clusters.contains(&cluster))
}

/// A caller's text, no longer than a record should carry.
fn bounded(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Method and path for the record.
fn asked((method, path): (&[u8], &[u8])) -> (String, String) {
    let path = path
        .split(|b| matches!(b, b'?' | b'#'))
        .next()
        .unwrap_or_default();
    (
        bounded(&String::from_utf8_lossy(method)),
        bounded(&String::from_utf8_lossy(path)),
    )
}

/// Headers go up by the API's allow list; the query likewise.
fn header_edits(provider: &Provider, head: &Head<'_>, pairs: Pairs<'_>) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    for &(name, value) in pairs {
        // Envoy's router finds no route without it; the shipped routes take it off after that.
        if name == b"x-forwarded-proto" {
            if !matches!(value, b"http" | b"https") {
                edits.set(name, "https");
            }
            continue;
        }
        match headers::request_header(provider.api, &provider.pass_headers, name) {
            Fate::Keep => {}
            Fate::Set(fixed) if value == fixed.as_bytes() => {}
            Fate::Set(fixed) => edits.set(name, fixed),
            Fate::Drop => edits.remove(name),
        }
    }
    if let Some(query) = head.target.query() {
        let allowed = query::allowed(provider.api, query);
        if *allowed != *query {
            let path = head.target.path();
            let path = if allowed.is_empty() {
                path.to_owned()
            } else {
                format!("{path}?{allowed}")
            };
            edits.set.push((":path".to_owned(), path));
        }
    }
    edits
}
