//! What Envoy knows about a request beside its headers: attributes, read by path.
//!
//! Names are those of Envoy's documentation, section "Attributes".

/// Reads Envoy's attributes. The plugin asks its host; a test asks a map.
pub trait Attributes {
    /// The serialized value at a path: text as it is, numbers as little-endian 64 bits, booleans as
    /// one byte, lists and maps as proxy-wasm pairs. `None` where there is none, or where the host
    /// can't say.
    fn attribute(&self, path: &[&str]) -> Option<Vec<u8>>;
}

/// The attribute as text, if it is UTF-8 and not empty.
pub(crate) fn text(attributes: &impl Attributes, path: &[&str]) -> Option<String> {
    let value = String::from_utf8(attributes.attribute(path)?).ok()?;
    (!value.is_empty()).then_some(value)
}

/// The attribute as a boolean; absent and malformed are `false`.
pub(crate) fn flag(attributes: &impl Attributes, path: &[&str]) -> bool {
    attributes.attribute(path).is_some_and(|value| value == [1])
}

/// The attribute as an unsigned number; absent, negative and malformed are `None`.
#[must_use]
pub fn number(attributes: &impl Attributes, path: &[&str]) -> Option<u64> {
    let value = attributes.attribute(path)?;
    let number = i64::from_le_bytes(value.as_slice().try_into().ok()?);
    u64::try_from(number).ok()
}

/// The strings of a pairs-encoded list or map: the keys and values, in order (proxy-wasm ABI:
/// count, then each pair's two sizes, then each key and value with a zero byte behind it; all
/// numbers 32 bits little-endian). `None` where the bytes are not that.
pub(crate) fn pairs(encoded: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (count, mut sizes) = size(encoded)?;
    let header = count.checked_mul(8)?;
    let mut content = sizes.get(header..)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let (key_size, rest) = size(sizes)?;
        let (value_size, rest) = size(rest)?;
        sizes = rest;
        let (key, rest) = terminated(content, key_size)?;
        let (value, rest) = terminated(rest, value_size)?;
        content = rest;
        pairs.push((key, value));
    }
    content.is_empty().then_some(pairs)
}

fn size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

fn terminated(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(size)?;
    rest.split_first()
        .and_then(|(zero, rest)| (*zero == 0).then_some((text, rest)))
}
