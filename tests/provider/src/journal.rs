//! Takes what arrives and what is answered; gives it back as JSON to whoever asks the admin port.

use std::collections::VecDeque;

use serde::Serialize;

/// The oldest are forgotten beyond either bound.
const MOST_ENTRIES: usize = 10_000;
const MOST_BYTES: usize = 256 << 20;

/// Everything received, newest last, and totals that are never forgotten.
#[derive(Default)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    /// The number of the first of `entries`.
    first: u64,
    bytes: usize,
    pub(crate) served: Served,
}

/// One request and what became of it.
#[derive(Serialize)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) connection: u64,
    pub(crate) sni: Option<String>,
    pub(crate) protocol: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// From `:authority`; HTTP/1.1 has it as the `host` header.
    pub(crate) authority: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    /// Base64; absent until the whole body is in.
    pub(crate) body: Option<String>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) status: Option<u16>,
    pub(crate) stream: bool,
    /// What the answer cost, whether or not it was reported.
    pub(crate) spent: Usage,
    /// The last usage that went down the wire.
    pub(crate) reported: Option<Usage>,
    /// Absent while it runs.
    pub(crate) ended: Option<Ended>,
}

/// Inclusive: `input` has the cached parts in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ended {
    Complete,
    /// By a cue.
    Cut,
    /// By the other side.
    HungUp,
}

/// Totals since the start.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Served {
    pub(crate) connections: u64,
    pub(crate) requests: u64,
    pub(crate) streams: u64,
    pub(crate) complete: u64,
    pub(crate) cut: u64,
    pub(crate) hung_up: u64,
    pub(crate) spent: Usage,
    /// Of ended exchanges only.
    pub(crate) reported: Usage,
}

impl Journal {
    pub(crate) fn connection(&mut self) -> u64 {
        self.served.connections = self.served.connections.saturating_add(1);
        self.served.connections
    }

    /// Notes a request as soon as its head is in; gives its number.
    pub(crate) fn open(&mut self, mut entry: Entry) -> u64 {
        self.served.requests = self.served.requests.saturating_add(1);
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        entry.number = self.first.saturating_add(count);
        let number = entry.number;
        self.bytes = self.bytes.saturating_add(entry.size());
        self.entries.push_back(entry);
        self.forget();
        number
    }

    /// Changes what is noted of a request, unless it is forgotten.
    pub(crate) fn amend(&mut self, number: u64, change: impl FnOnce(&mut Entry, &mut Served)) {
        let index = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) else {
            return;
        };
        let before = entry.size();
        change(entry, &mut self.served);
        self.bytes = self
            .bytes
            .saturating_add(entry.size())
            .saturating_sub(before);
        self.forget();
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Forgets the requests; numbers and totals go on.
    pub(crate) fn clear(&mut self) {
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        self.first = self.first.saturating_add(count);
        self.entries.clear();
        self.bytes = 0;
    }

    fn forget(&mut self) {
        while self.entries.len() > MOST_ENTRIES || self.bytes > MOST_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.first = self.first.saturating_add(1);
            self.bytes = self.bytes.saturating_sub(oldest.size());
        }
    }
}

impl Entry {
    fn size(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len().max(value.len()));
        headers
            .fold(
                self.body.as_ref().map_or(0, String::len),
                usize::saturating_add,
            )
            .saturating_add(self.path.len())
    }
}

impl Usage {
    pub(crate) fn add(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            number: 0,
            connection: 1,
            sni: None,
            protocol: "HTTP/1.1".into(),
            method: "GET".into(),
            path: "/".into(),
            authority: None,
            headers: Vec::new(),
            body: None,
            trailers: Vec::new(),
            status: None,
            stream: false,
            spent: Usage::default(),
            reported: None,
            ended: None,
        }
    }

    #[test]
    fn forgets_the_oldest_beyond_its_bounds() {
        let mut journal = Journal::default();
        let first = journal.open(entry());
        for _ in 0..MOST_ENTRIES {
            journal.open(entry());
        }
        assert_eq!(journal.entries().count(), MOST_ENTRIES);
        journal.amend(first, |_, _| panic!("amended a forgotten entry"));
    }

    #[test]
    fn forgets_by_size_too() {
        let mut journal = Journal::default();
        let number = journal.open(entry());
        journal.open(entry());
        journal.amend(number, |entry, _| entry.body = Some("x".repeat(MOST_BYTES)));
        assert_eq!(journal.entries().count(), 1);
    }

    #[test]
    fn numbers_go_on_after_clearing() {
        let mut journal = Journal::default();
        let first = journal.open(entry());
        journal.clear();
        assert!(journal.open(entry()) > first);
    }
}
