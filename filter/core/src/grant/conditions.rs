//! A policy's conditions: takes what is known around a request, says which one fails.

use std::net::IpAddr;

use crate::{
    attributes::{Attributes, text},
    config::Conditions,
    denial::Denial,
    subject::{Subject, claim},
    units::Timestamp,
};

/// What is known around a request beside its head and body.
pub struct Surroundings<'a, A> {
    /// What Envoy knows.
    pub attributes: &'a A,
    /// What the geoip filter wrote, if it wrote anything.
    pub country: Option<&'a [u8]>,
}

/// Checks each condition; one whose fact is unknown has failed.
pub(super) fn hold(
    conditions: &Conditions,
    subject: &Subject,
    surroundings: &Surroundings<'_, impl Attributes>,
    now: Timestamp,
) -> Result<(), Denial> {
    if let Some(countries) = &conditions.countries {
        let is = |code: &String| surroundings.country == Some(code.as_bytes());
        require(countries.iter().any(is), Denial::ConditionCountry)?;
    }
    if let Some(networks) = &conditions.cidrs {
        let address = text(surroundings.attributes, &["source", "address"]);
        let address = address
            .as_deref()
            .and_then(ip)
            .ok_or(Denial::ConditionAddress)?;
        require(
            networks.iter().any(|net| net.contains(&address)),
            Denial::ConditionAddress,
        )?;
    }
    if let Some((from, to)) = conditions.utc_hours {
        let hour = (now.as_secs() / 3600) % 24;
        let (from, to) = (u64::from(from), u64::from(to));
        let within = if from < to {
            (from..to).contains(&hour)
        } else {
            hour >= from || hour < to
        };
        require(within, Denial::ConditionHour)?;
    }
    for (name, glob) in &conditions.claims {
        let value = subject
            .claims_in
            .and_then(|slot| claim(surroundings.attributes, slot, name));
        require(
            value.is_some_and(|value| glob.matches(&value)),
            Denial::ConditionClaim,
        )?;
    }
    Ok(())
}

fn require(holds: bool, otherwise: Denial) -> Result<(), Denial> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// The address in Envoy's `address:port`; a v4 address in v6 form is the v4 address.
fn ip(address: &str) -> Option<IpAddr> {
    let socket: std::net::SocketAddr = address.parse().ok()?;
    Some(socket.ip().to_canonical())
}
