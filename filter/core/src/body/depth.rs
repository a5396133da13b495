//! The nesting of a JSON text: the text in, a refusal where it is too deep out.

use memchr::memchr2;

use crate::denial::Denial;

/// How many arrays and objects may stand in each other.
const MAX_DEPTH: usize = 128;

/// Refuses what nests deeper than [`MAX_DEPTH`]. The text need not be JSON: in JSON a bracket
/// outside a string is structure, and what is not JSON is refused by the parser.
pub(super) fn check(text: &str) -> Result<(), Denial> {
    let mut depth: usize = 0;
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'"' => rest = after_string(rest),
            b'{' | b'[' if depth == MAX_DEPTH => return Err(Denial::BodyTooDeep),
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// What follows the string whose content `rest` begins with.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let escape = rest.get(at) == Some(&b'\\');
        rest = rest
            .get(at.saturating_add(if escape { 2 } else { 1 })..)
            .unwrap_or_default();
        if !escape {
            return rest;
        }
    }
    &[]
}
