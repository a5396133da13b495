//! The keys of one JSON object: each in, a refusal where two of them may be taken for one out.

use std::{borrow::Cow, collections::BTreeSet};

use crate::denial::Denial;

/// How many keys of one object are read. Documented objects have some dozens.
const MAX_KEYS: usize = 1024;

/// The folded keys of one object.
#[derive(Default)]
pub(super) struct Keys<'a>(BTreeSet<Cow<'a, str>>);

impl<'a> Keys<'a> {
    /// Takes the next key, folded.
    pub(super) fn insert(&mut self, folded: Cow<'a, str>) -> Result<(), Denial> {
        if self.0.len() == MAX_KEYS {
            return Err(Denial::TooManyKeys);
        }
        if self.0.insert(folded) {
            Ok(())
        } else {
            Err(Denial::DuplicateKey)
        }
    }
}

/// A key as a parser that ignores case reads it. Beyond ASCII there are two letters that such
/// parsers (Go's `encoding/json`) take for ASCII ones: the long s and the Kelvin sign.
pub(super) fn fold<'a>(key: &Cow<'a, str>) -> Cow<'a, str> {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    if key.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return key.clone();
    }
    Cow::Owned(key.chars().map(fold).collect())
}
