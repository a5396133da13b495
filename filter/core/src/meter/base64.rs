//! Takes base64 in pieces of any size; gives the bytes it stands for, in constant memory.

/// RFC 4648 section 4. What is not of its alphabet is passed over: what comes out must still be JSON.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decoder {
    bits: u32,
    /// How many of `bits` are set: 0, 2, 4 or 6 between two bytes.
    len: u32,
}

impl Decoder {
    pub(super) fn push(&mut self, run: &[u8], mut sink: impl FnMut(&[u8])) {
        let mut bytes = [0; 256];
        // Each piece gives fewer bytes than it has characters.
        for piece in run.chunks(bytes.len()) {
            let mut decoded = 0usize;
            for value in piece.iter().filter_map(|&byte| value(byte)) {
                self.bits = (self.bits << 6) | u32::from(value);
                self.len = self.len.saturating_add(6);
                if let Some(len) = self.len.checked_sub(8) {
                    self.len = len;
                    let [.., byte] = self.bits.checked_shr(len).unwrap_or_default().to_be_bytes();
                    if let Some(slot) = bytes.get_mut(decoded) {
                        *slot = byte;
                        decoded = decoded.saturating_add(1);
                    }
                }
            }
            sink(bytes.get(..decoded).unwrap_or_default());
        }
    }
}

const fn value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => byte.checked_sub(b'A'),
        b'a'..=b'z' => byte.checked_sub(b'a' - 26),
        b'0'..=b'9' => byte.checked_add(52 - b'0'),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}
