//! The small parts of JSON: what is kept of a key, number or label; spaces; escapes.

/// The longest key, number or label that is kept; of a longer one the rest is dropped.
const MAX_TOKEN: usize = 128;

/// A key, number or label under way.
#[derive(Clone, Copy)]
pub(super) struct Token {
    /// The first `len` bytes are set.
    bytes: [u8; MAX_TOKEN],
    len: usize,
}

impl Token {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; MAX_TOKEN],
            len: 0,
        }
    }

    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn push(&mut self, run: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let len = run.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..len), run.get(..len)) {
            to.copy_from_slice(from);
            self.len = self.len.saturating_add(len);
        }
    }
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// What a backslash and this byte stand for (RFC 8259 section 7), but for `\u`.
pub(super) const fn unescape(byte: u8) -> u8 {
    match byte {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => other,
    }
}
