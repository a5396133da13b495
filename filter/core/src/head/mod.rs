//! The head of a request: header pairs as Envoy gives them in, the parts that decide out.

pub mod endpoint;
pub mod headers;
pub mod provider;
pub mod query;
mod target;

pub use target::Target;

use crate::denial::Denial;

/// The parts of a request's head that decide, borrowed from the header pairs.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method: upper-case letters, neither `CONNECT` nor `TRACE`.
    pub method: &'a str,
    /// The path and query, in their one normal spelling.
    pub target: Target<'a>,
    /// The authority as sent (port, letter case): letters, digits and `-._:[]`; may be empty.
    pub authority: &'a str,
    /// The flags of `anthropic-beta` and `openai-beta`, in the order in which they stand.
    pub betas: Vec<&'a str>,
    content_type: Option<&'a [u8]>,
    content_length: Option<u64>,
}

impl<'a> Head<'a> {
    /// Reads the pairs once. Names are lower-case, as Envoy has them; a repeated header is
    /// repeated pairs.
    ///
    /// # Errors
    /// A method, path, authority or framing that can be read in more than one way; an upgrade; a
    /// `content-encoding`.
    pub fn read<I>(pairs: I) -> Result<Self, Denial>
    where
        I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
    {
        let mut raw = Raw::default();
        for (name, value) in pairs {
            raw.take(name, value)?;
        }
        let method = raw
            .method
            .and_then(method)
            .ok_or(Denial::MethodUnsupported)?;
        if raw.transfer_encoding.is_some() && raw.content_length.is_some() {
            return Err(Denial::FramingAmbiguous);
        }
        Ok(Self {
            method,
            target: Target::parse(raw.path.unwrap_or_default())?,
            authority: authority(raw.authority.unwrap_or_default())?,
            betas: raw.betas,
            content_type: raw.content_type,
            content_length: raw.content_length.map(content_length).transpose()?,
        })
    }

    /// The length of the body, where the head says it.
    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Checks that the body will be what `body` says, as far as the head can tell.
    ///
    /// # Errors
    /// A media type other than JSON in UTF-8 where JSON is expected; a body where none is.
    pub fn expect(&self, body: endpoint::Body) -> Result<(), Denial> {
        match body {
            endpoint::Body::Json if !self.content_type.is_some_and(is_json) => {
                Err(Denial::ContentTypeUnsupported)
            }
            endpoint::Body::None if self.content_length.is_some_and(|length| length > 0) => {
                Err(Denial::BodyUnexpected)
            }
            endpoint::Body::Json | endpoint::Body::None | endpoint::Body::Opaque => Ok(()),
        }
    }
}

/// The values of the headers that decide, before they are looked at.
#[derive(Default)]
struct Raw<'a> {
    method: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    betas: Vec<&'a str>,
}

impl<'a> Raw<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Denial> {
        let (slot, name) = match name {
            b":method" => (&mut self.method, ":method"),
            b":path" => (&mut self.path, ":path"),
            b":authority" => (&mut self.authority, ":authority"),
            b"content-type" => (&mut self.content_type, "content-type"),
            b"content-length" => (&mut self.content_length, "content-length"),
            b"transfer-encoding" if !value.eq_ignore_ascii_case(b"chunked") => {
                return Err(Denial::FramingAmbiguous);
            }
            b"transfer-encoding" => (&mut self.transfer_encoding, "transfer-encoding"),
            // Extended CONNECT (RFC 8441) shows as a GET with `upgrade`.
            b":protocol" | b"upgrade" => return Err(Denial::UpgradeUnsupported),
            b"content-encoding" if !value.eq_ignore_ascii_case(b"identity") => {
                return Err(Denial::ContentEncodingUnsupported);
            }
            b"anthropic-beta" => return self.take_betas("anthropic-beta", value),
            b"openai-beta" => return self.take_betas("openai-beta", value),
            _ => return Ok(()),
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) if matches!(name, "content-length" | "transfer-encoding") => {
                Err(Denial::FramingAmbiguous)
            }
            Some(_) => Err(Denial::HeaderInvalid { name }),
        }
    }

    fn take_betas(&mut self, name: &'static str, value: &'a [u8]) -> Result<(), Denial> {
        let value = str::from_utf8(value).map_err(|_| Denial::HeaderInvalid { name })?;
        for flag in value.split(',').map(|flag| flag.trim_matches([' ', '\t'])) {
            if !flag.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Denial::HeaderInvalid { name });
            }
            if !flag.is_empty() {
                self.betas.push(flag);
            }
        }
        Ok(())
    }
}

fn method(value: &[u8]) -> Option<&str> {
    let method = str::from_utf8(value).ok()?;
    let usable = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    (usable && !matches!(method, "CONNECT" | "TRACE")).then_some(method)
}

fn authority(value: &[u8]) -> Result<&str, Denial> {
    // No userinfo: what stands before an `@` is a secret as often as not.
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(b);
    let invalid = Denial::HeaderInvalid { name: ":authority" };
    if !value.iter().all(plain) {
        return Err(invalid);
    }
    str::from_utf8(value).map_err(|_| invalid)
}

fn content_length(value: &[u8]) -> Result<u64, Denial> {
    // `parse` takes a sign, which `content-length` has not (RFC 9110, section 8.6).
    let digits = value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|value| value.parse().ok())
        .ok_or(Denial::FramingAmbiguous)
}

/// Whether a `content-type` is JSON in UTF-8: `application/json`, with no parameter but
/// `charset=utf-8` (RFC 8259, section 8.1 knows no other).
fn is_json(value: &[u8]) -> bool {
    let Ok(value) = str::from_utf8(value) else {
        return false;
    };
    let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
    let is_charset = |part: &str| {
        ["charset=utf-8", "charset=\"utf-8\""]
            .iter()
            .any(|utf8| part.eq_ignore_ascii_case(utf8))
    };
    parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
        && parts.next().is_none_or(is_charset)
        && parts.next().is_none()
}
