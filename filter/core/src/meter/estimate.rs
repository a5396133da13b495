//! Takes text; says about how many tokens a model reads or writes for it.
//!
//! No tokenizer table: a byte costs what the change from the class of the byte before it usually
//! costs. Most tokens begin where a class changes (a word after a space, a digit after a letter), and
//! long words, numbers and foreign scripts cost a little more with each character. The sum depends on
//! the text alone, not on the pieces in which it comes.

use memchr::memchr;

use super::token::unescape;
use crate::units::Tokens;

/// About how many tokens `text` is.
#[must_use]
pub fn estimate(text: &[u8]) -> Tokens {
    let mut estimator = Estimator::default();
    estimator.push(text);
    estimator.tokens()
}

/// The classes of bytes that tokenizers tell apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
enum Class {
    /// Nothing yet, or inside a character of several bytes.
    #[default]
    None,
    Space,
    Newline,
    Lower,
    Upper,
    Digit,
    Mark,
    /// The first byte of a character of two bytes: Latin with accents, Greek, Cyrillic, Arabic, ...
    Two,
    /// Of three bytes: Chinese, Japanese, Korean, Thai, Devanagari, ...
    Three,
    /// Of four bytes: emoji and rare scripts.
    Four,
}

const CLASSES: usize = 10;

/// What a byte of a class costs after one of another, in thousandths of a token. One row for each
/// class before, one column for each class that comes, in the order of `Class`.
static COST: [[u16; CLASSES]; CLASSES] = [
    // none space newl lower upper digit mark two three four
    [0, 300, 320, 1040, 1010, 500, 1060, 900, 800, 2000],
    [0, 150, 530, 830, 980, 1110, 960, 900, 800, 2000],
    [0, 330, 70, 970, 1030, 700, 910, 900, 800, 2000],
    [0, 0, 520, 56, 380, 500, 850, 500, 800, 2000],
    [0, 40, 490, 230, 280, 500, 570, 500, 800, 2000],
    [0, 270, 510, 690, 700, 470, 740, 700, 800, 2000],
    [0, 190, 470, 790, 640, 700, 400, 700, 800, 2000],
    [0, 0, 500, 300, 400, 500, 600, 350, 800, 2000],
    [0, 100, 500, 700, 700, 500, 500, 700, 700, 2000],
    [0, 100, 500, 800, 800, 500, 500, 700, 800, 2000],
];

static CLASS: [Class; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where it can't trap"
)]
const fn classes() -> [Class; 256] {
    let mut classes = [Class::Mark; 256];
    let mut byte = 0u8;
    loop {
        classes[byte as usize] = match byte {
            b' ' | b'\t' | b'\r' => Class::Space,
            b'\n' => Class::Newline,
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Digit,
            0x80..=0xbf => Class::None,
            0xc0..=0xdf => Class::Two,
            0xe0..=0xef => Class::Three,
            0xf0..=0xff => Class::Four,
            _ => Class::Mark,
        };
        if byte == u8::MAX {
            return classes;
        }
        byte = byte.saturating_add(1);
    }
}

/// The estimate of a text that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimator {
    before: Class,
    thousandths: u64,
}

impl Estimator {
    pub(super) fn push(&mut self, text: &[u8]) {
        for &byte in text {
            self.step(CLASS.get(usize::from(byte)).copied().unwrap_or_default());
        }
    }

    /// Takes the inside of a JSON string, escapes and all (RFC 8259 section 7).
    pub(super) fn push_json(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some((run, after)) = memchr(b'\\', rest).and_then(|at| rest.split_at_checked(at))
        {
            self.push(run);
            rest = match after {
                [_, b'u', digits @ ..] => {
                    let (digits, rest) = digits.split_at_checked(4).unwrap_or((digits, b""));
                    let unit = str::from_utf8(digits).ok();
                    let unit = unit.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                    self.push_code_unit(unit.unwrap_or_default());
                    rest
                }
                [_, byte, rest @ ..] => {
                    self.push(&[unescape(*byte)]);
                    rest
                }
                _ => b"",
            };
        }
        self.push(rest);
    }

    /// Takes one UTF-16 code unit, as JSON escapes it.
    pub(super) fn push_code_unit(&mut self, unit: u16) {
        match unit {
            0..=0x7f => self.push(&[u8::try_from(unit).unwrap_or_default()]),
            0x80..=0x7ff => self.step(Class::Two),
            // The second half of a pair belongs to the first.
            0xdc00..=0xdfff => {}
            0xd800..=0xdbff => self.step(Class::Four),
            _ => self.step(Class::Three),
        }
    }

    /// Adds what costs tokens and is not text.
    pub(super) fn add(&mut self, tokens: Tokens) {
        self.thousandths = self.thousandths.saturating_add(tokens.times(1000).0);
    }

    fn step(&mut self, class: Class) {
        if class == Class::None {
            return;
        }
        let row = COST.get(self.before as usize);
        let cost = row
            .and_then(|row| row.get(class as usize))
            .copied()
            .unwrap_or_default();
        self.thousandths = self.thousandths.saturating_add(u64::from(cost));
        self.before = class;
    }

    pub(super) const fn tokens(&self) -> Tokens {
        Tokens(self.thousandths.div_ceil(1000))
    }
}
