//! Anchored patterns for subjects and models: takes a pattern and a name, says whether they match.

/// An anchored pattern. `*` stands for any characters of one segment, `**` for any characters at
/// all; segments end at `/` and `:`. Everything else stands for itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Literal(u8),
    /// `**`: any bytes.
    Path,
    /// `*`: any bytes but the ends of a segment.
    Segment,
}

impl Glob {
    /// Reads a pattern. Every text is one; three stars in a row mean the same as two.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut parts: Vec<Part> = Vec::with_capacity(text.len());
        for &byte in text.as_bytes() {
            match (byte, parts.last()) {
                (b'*', Some(Part::Path)) => {}
                (b'*', Some(Part::Segment)) => {
                    parts.pop();
                    parts.push(Part::Path);
                }
                (b'*', _) => parts.push(Part::Segment),
                _ => parts.push(Part::Literal(byte)),
            }
        }
        Self {
            text: text.to_owned(),
            parts,
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `name` matches.
    ///
    /// Time is polynomial in the lengths, whatever they hold: of each kind of star only the last one
    /// that was passed is ever tried again.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let (mut part, mut at) = (0usize, 0usize);
        let mut segment_star: Option<(usize, usize)> = None;
        let mut path_star: Option<(usize, usize)> = None;
        loop {
            match (self.parts.get(part), name.get(at)) {
                (Some(Part::Path), _) => {
                    path_star = Some((part, at));
                    segment_star = None;
                    part = part.saturating_add(1);
                    continue;
                }
                (Some(Part::Segment), _) => {
                    segment_star = Some((part, at));
                    part = part.saturating_add(1);
                    continue;
                }
                (Some(Part::Literal(literal)), Some(byte)) if literal == byte => {
                    part = part.saturating_add(1);
                    at = at.saturating_add(1);
                    continue;
                }
                (None, None) => return true,
                (None | Some(Part::Literal(_)), _) => {}
            }
            // The nearest star takes one byte more, if it may.
            let longer = |star: (usize, usize)| (star.0, star.1.saturating_add(1));
            let next = match (segment_star, path_star) {
                (Some(star), _) if name.get(star.1).is_some_and(|b| !ends_segment(*b)) => {
                    segment_star = Some(longer(star));
                    longer(star)
                }
                (_, Some(star)) if star.1 < name.len() => {
                    segment_star = None;
                    path_star = Some(longer(star));
                    longer(star)
                }
                _ => return false,
            };
            (part, at) = (next.0.saturating_add(1), next.1);
        }
    }

    /// Whether every name that `other` matches is certainly matched by this pattern. A `false`
    /// may be a "don't know": it serves a warning, not a decision.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.text == other.text {
            return true;
        }
        let crosses = other.parts.contains(&Part::Path);
        (!crosses || self.parts.contains(&Part::Path)) && self.matches(&other.text)
    }
}

const fn ends_segment(byte: u8) -> bool {
    matches!(byte, b'/' | b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_names_by_segment() {
        for (pattern, name, expected) in [
            ("gpt-4o-mini", "gpt-4o-mini", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("gpt-4o*", "ft:gpt-4o", false),
            ("gpt-4o*", "gpt-4o:ft", false),
            ("*", "", true),
            ("*", "a/b", false),
            ("**", "a/b:c", true),
            ("spiffe://p/ns/*/sa/*", "spiffe://p/ns/a/sa/b", true),
            ("spiffe://p/ns/*/sa/*", "spiffe://p/ns/a/b/sa/c", false),
            ("spiffe://p/ns/**", "spiffe://p/ns/a/b/sa/c", true),
            ("spiffe://p/ns/**", "spiffe://p/nsx/a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("***", "a/b", true),
            ("**/a/*", "x/y/a/z/a/b", true),
            ("**a*b", "xa/yb/zaqb", true),
            ("**a*b", "xa/yb/zaq/b", false),
            ("*/**c", "a/b/c", true),
            ("*:x**", "a:b:x", false),
            ("**:x**", "a:b:x", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(name),
                expected,
                "{pattern} against {name}"
            );
        }
    }

    #[test]
    fn takes_no_exponential_time() {
        let pattern = Glob::new(&"a*".repeat(60));
        assert!(!pattern.matches(&format!("{}b/", "a".repeat(2000))));
    }

    #[test]
    fn knows_what_it_covers() {
        for (wide, narrow, expected) in [
            ("spiffe://p/**", "spiffe://p/ns/a/sa/*", true),
            ("spiffe://p/ns/*", "spiffe://p/ns/a", true),
            ("spiffe://p/ns/*", "spiffe://p/ns/**", false),
            ("spiffe://p/ns/a", "spiffe://p/ns/*", false),
        ] {
            assert_eq!(
                Glob::new(wide).covers(&Glob::new(narrow)),
                expected,
                "{wide} {narrow}"
            );
        }
    }
}
