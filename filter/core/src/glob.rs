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
    /// Time is at most the product of both lengths: the reachable positions of the pattern are
    /// carried along the name, so no choice of name makes it backtrack.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let prefix = self.text.split('*').next().unwrap_or("");
        if prefix.len() == self.text.len() {
            return name == self.text;
        }
        if !name.starts_with(prefix) {
            return false;
        }
        let width = self.parts.len().saturating_add(1);
        let mut reached = vec![false; width];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        self.skip_stars(&mut reached);
        let mut next = vec![false; width];
        for &byte in name.as_bytes() {
            next.fill(false);
            for (at, part) in self.parts.iter().enumerate() {
                if !reached.get(at).copied().unwrap_or(false) {
                    continue;
                }
                let target = match part {
                    Part::Literal(literal) if *literal == byte => at.saturating_add(1),
                    Part::Path => at,
                    Part::Segment if !ends_segment(byte) => at,
                    Part::Literal(_) | Part::Segment => continue,
                };
                if let Some(slot) = next.get_mut(target) {
                    *slot = true;
                }
            }
            self.skip_stars(&mut next);
            std::mem::swap(&mut reached, &mut next);
        }
        reached.last().copied().unwrap_or(false)
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

    /// A star may stand for nothing: whoever reached it has reached what follows, too.
    fn skip_stars(&self, reached: &mut [bool]) {
        for (at, part) in self.parts.iter().enumerate() {
            let here = reached.get(at).copied().unwrap_or(false);
            if here
                && !matches!(part, Part::Literal(_))
                && let Some(slot) = reached.get_mut(at.saturating_add(1))
            {
                *slot = true;
            }
        }
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
