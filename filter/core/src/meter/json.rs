//! Takes JSON in pieces of any size; tells the tally what its grammar finds, in constant memory.
//!
//! RFC 8259, read leniently: the scanner must never refuse what a provider's own SDK accepts, and it
//! decides nothing but a count. It keeps no value but the short ones that it looks for, and no
//! nesting but what its grammar knows: a string, a document or a depth without end costs nothing.

use memchr::memchr2;

use super::{
    base64::Decoder,
    grammar::{Label, Mark, Node},
    tally::Tally,
    token::{Token, is_space, unescape},
};

/// How deep the grammars may reach, arrays included; what lies deeper is passed over.
const MAX_DEPTH: usize = 12;

#[derive(Clone, Copy)]
struct Frame {
    node: &'static Node,
    array: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Not JSON: nothing more is read until the next document.
    Broken,
    /// Between a key and its value.
    Colon,
    /// After a backslash.
    Escape(Use),
    /// Where a key or the end of an object may stand.
    Key,
    /// Inside a key.
    Name,
    /// Inside a number or a literal.
    Scalar,
    /// Inside a value that means nothing, or means words as a whole.
    Skip,
    SkipEscape,
    SkipString,
    /// Inside a string.
    String(Use),
    /// Inside the four digits of `\uXXXX`, of the model's words.
    Unicode {
        left: u8,
        code: u16,
    },
    /// Where a value, or the end of an array, may stand.
    Value,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Use {
    Base64,
    Error,
    Ignore,
    Label(Label),
    Name,
    Text,
}

/// A document in base64, inside a string of another.
#[derive(Clone)]
struct Inner {
    decoder: Decoder,
    scanner: Scanner,
}

/// Where in a document the scanner is, as far as its grammar knows.
#[derive(Clone, Copy)]
pub(super) struct Position {
    state: State,
    /// The containers that the grammar knows, outermost first; `depth` of them are open.
    stack: [Option<Frame>; MAX_DEPTH],
    depth: usize,
    /// What the value to come means.
    next: Option<&'static Node>,
}

impl Position {
    pub(super) const fn start(root: &'static Node) -> Self {
        Self {
            state: State::Value,
            stack: [None; MAX_DEPTH],
            depth: 0,
            next: Some(root),
        }
    }
}

/// An incremental reader of one grammar.
#[derive(Clone)]
pub(super) struct Scanner {
    root: &'static Node,
    at: Position,
    /// Containers open inside a value that is passed over, and whether it counts as words.
    skip_depth: u32,
    spoken: bool,
    token: Token,
    /// The reader of a document inside this one.
    inner: Option<Box<Inner>>,
    /// Whether a document has been read to its end.
    closed: bool,
}

impl Scanner {
    pub(super) const fn new(root: &'static Node) -> Self {
        Self {
            root,
            at: Position::start(root),
            skip_depth: 0,
            spoken: false,
            token: Token::new(),
            inner: None,
            closed: false,
        }
    }

    /// Begins a new document, whatever became of the one before.
    pub(super) fn restart(&mut self, tally: &mut Tally) {
        if self.at.state == State::Scalar {
            self.end_scalar(tally);
        }
        self.at.state = State::Value;
        self.at.depth = 0;
        self.at.next = Some(self.root);
    }

    /// Whether a document was read to its end and none has begun since.
    pub(super) const fn has_closed(&self) -> bool {
        self.closed && self.at.depth == 0 && matches!(self.at.state, State::Value)
    }

    /// Whether what came is not JSON.
    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.at.state, State::Broken)
    }

    /// Whether the next byte is the first of the model's words.
    const fn is_at_text(&self) -> bool {
        matches!(self.at.state, State::String(Use::Text))
    }

    /// Bytes of memory, itself included.
    pub(super) fn kept(&self) -> usize {
        let inner = self.inner.as_ref().map_or(0, |inner| inner.scanner.kept());
        size_of::<Self>().saturating_add(inner)
    }

    /// Where the scanner is, if the next byte is the first of the model's words.
    pub(super) const fn text_position(&self) -> Option<Position> {
        if self.is_at_text() {
            Some(self.at)
        } else {
            None
        }
    }

    /// Goes on from where another document was: at the model's words nothing else is under way.
    pub(super) const fn resume(&mut self, text: Position) {
        self.at = text;
    }

    /// Reads all of `bytes`.
    pub(super) fn push(&mut self, mut bytes: &[u8], tally: &mut Tally) {
        while !bytes.is_empty() && !self.is_broken() {
            bytes = self.step(bytes, tally);
        }
    }

    /// Reads up to the first of the model's words and gives the rest.
    pub(super) fn push_to_text<'a>(&mut self, mut bytes: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        while !bytes.is_empty() && !self.is_broken() && !self.is_at_text() {
            bytes = self.step(bytes, tally);
        }
        bytes
    }

    /// Reads at least one byte and gives what it did not read. `bytes` is not empty.
    fn step<'a>(&mut self, bytes: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        let Some((&byte, rest)) = bytes.split_first() else {
            return bytes;
        };
        match self.at.state {
            State::Broken => return &[],
            State::Colon => match byte {
                b':' => self.at.state = State::Value,
                _ if is_space(byte) => {}
                _ => self.at.state = State::Broken,
            },
            State::Escape(used) => self.escape(byte, used, tally),
            State::Key => match byte {
                b'"' => {
                    self.token.clear();
                    self.at.state = State::Name;
                }
                b'}' => self.close(),
                b',' => {}
                _ if is_space(byte) => {}
                _ => self.at.state = State::Broken,
            },
            State::Name => return self.string(bytes, Use::Name, tally),
            State::Scalar => return self.scalar(bytes, tally),
            State::Skip => return self.skip(bytes, tally),
            State::SkipEscape => {
                self.speak(&[byte], tally);
                self.at.state = State::SkipString;
            }
            State::SkipString => return self.skip_string(bytes, tally),
            State::String(used) => return self.string(bytes, used, tally),
            State::Unicode { left, code } => self.unicode(byte, left, code, tally),
            State::Value => return self.value(byte, bytes, rest, tally),
        }
        rest
    }

    fn value<'a>(
        &mut self,
        byte: u8,
        bytes: &'a [u8],
        rest: &'a [u8],
        tally: &mut Tally,
    ) -> &'a [u8] {
        match byte {
            // Every answer is an object or an array of them.
            _ if self.at.depth == 0 && !matches!(byte, b'{' | b'[' | b',') && !is_space(byte) => {
                self.at.state = State::Broken;
            }
            b'"' => {
                let used = self.at.next.map_or(Use::Ignore, string_use);
                if let Some(Node::Base64(root)) = self.at.next {
                    self.begin_inner(root, tally);
                }
                self.token.clear();
                self.at.state = State::String(used);
            }
            b'{' | b'[' => self.open(byte, tally),
            b']' => self.close(),
            b',' => {}
            _ if is_space(byte) => {}
            b'}' | b':' => self.at.state = State::Broken,
            _ => {
                self.token.clear();
                self.at.state = State::Scalar;
                return bytes;
            }
        }
        rest
    }

    fn open(&mut self, byte: u8, tally: &mut Tally) {
        let array = byte == b'[';
        let Some(node) = self.at.next else {
            return self.pass_over(false);
        };
        match node {
            Node::Words => {
                tally.text(&[byte]);
                return self.pass_over(true);
            }
            Node::Error => {
                tally.error();
                return self.pass_over(false);
            }
            Node::Object(mark, _) if !array => tally.mark(*mark),
            _ => {}
        }
        let Some(slot) = self.at.stack.get_mut(self.at.depth) else {
            return self.pass_over(false);
        };
        *slot = Some(Frame { node, array });
        self.at.depth = self.at.depth.saturating_add(1);
        self.at.state = if array { State::Value } else { State::Key };
    }

    fn pass_over(&mut self, spoken: bool) {
        self.skip_depth = 1;
        self.spoken = spoken;
        self.at.state = State::Skip;
    }

    fn close(&mut self) {
        if self.at.depth == 0 {
            self.at.state = State::Broken;
            return;
        }
        self.at.depth = self.at.depth.saturating_sub(1);
        self.closed = self.at.depth == 0;
        self.end_value();
    }

    fn end_value(&mut self) {
        match self.top() {
            None => {
                self.at.next = Some(self.root);
                self.at.state = State::Value;
            }
            Some(Frame { node, array: true }) => {
                self.at.next = Some(node);
                self.at.state = State::Value;
            }
            Some(Frame { array: false, .. }) => self.at.state = State::Key,
        }
    }

    fn top(&self) -> Option<Frame> {
        self.at
            .stack
            .get(self.at.depth.checked_sub(1)?)
            .copied()
            .flatten()
    }

    fn string<'a>(&mut self, bytes: &'a [u8], used: Use, tally: &mut Tally) -> &'a [u8] {
        let end = memchr2(b'"', b'\\', bytes);
        let (run, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or((bytes, &[]));
        match used {
            Use::Base64 => self.push_inner(run, tally),
            Use::Error | Use::Label(_) => self.token.push(run),
            Use::Ignore => {}
            Use::Name => {
                // The usual key lies in one piece and need not be copied.
                if self.token.is_empty() && rest.first() == Some(&b'"') {
                    self.enter(run);
                    return rest.get(1..).unwrap_or_default();
                }
                self.token.push(run);
            }
            Use::Text => tally.text(run),
        }
        match rest.first() {
            None => return rest,
            Some(b'"') => self.end_string(used, tally),
            Some(_) => self.at.state = State::Escape(used),
        }
        rest.get(1..).unwrap_or_default()
    }

    fn begin_inner(&mut self, root: &'static Node, tally: &mut Tally) {
        let fresh = || {
            Box::new(Inner {
                decoder: Decoder::default(),
                scanner: Self::new(root),
            })
        };
        let inner = self.inner.get_or_insert_with(fresh);
        inner.decoder = Decoder::default();
        inner.scanner.restart(tally);
    }

    fn push_inner(&mut self, run: &[u8], tally: &mut Tally) {
        if let Some(inner) = &mut self.inner {
            let Inner { decoder, scanner } = inner.as_mut();
            decoder.push(run, |bytes| scanner.push(bytes, tally));
        }
    }

    fn end_string(&mut self, used: Use, tally: &mut Tally) {
        match used {
            Use::Error if !self.token.is_empty() => tally.error(),
            Use::Label(label) => tally.label(label, self.token.bytes()),
            Use::Name => {
                let name = self.token;
                return self.enter(name.bytes());
            }
            Use::Text => {
                if let Some(Node::Call(cost)) = self.at.next {
                    tally.text.add(*cost);
                }
            }
            Use::Base64 | Use::Error | Use::Ignore => {}
        }
        self.end_value();
    }

    fn enter(&mut self, name: &[u8]) {
        self.at.next = self.top().and_then(|frame| frame.node.member(name));
        self.at.state = State::Colon;
    }

    fn escape(&mut self, byte: u8, used: Use, tally: &mut Tally) {
        self.at.state = match used {
            Use::Name => State::Name,
            _ => State::String(used),
        };
        match used {
            Use::Text if byte == b'u' => self.at.state = State::Unicode { left: 4, code: 0 },
            Use::Text => tally.text(&[unescape(byte)]),
            Use::Base64 => self.push_inner(&[byte], tally),
            Use::Error | Use::Ignore | Use::Label(_) | Use::Name => {
                self.token.push(&[unescape(byte)]);
            }
        }
    }

    fn unicode(&mut self, byte: u8, left: u8, code: u16, tally: &mut Tally) {
        let digit = char::from(byte)
            .to_digit(16)
            .and_then(|digit| u16::try_from(digit).ok());
        let code = (code << 4) | digit.unwrap_or_default();
        let left = left.saturating_sub(1);
        self.at.state = State::Unicode { left, code };
        if left == 0 {
            tally.code_unit(code);
            self.at.state = State::String(Use::Text);
        }
    }

    fn scalar<'a>(&mut self, bytes: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        let end = bytes
            .iter()
            .position(|&b| is_space(b) || matches!(b, b',' | b']' | b'}'));
        let (run, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or((bytes, &[]));
        self.token.push(run);
        if end.is_some() {
            self.end_scalar(tally);
        }
        rest
    }

    fn end_scalar(&mut self, tally: &mut Tally) {
        match self.at.next {
            Some(Node::Count(count)) => tally.count(*count, self.token.bytes()),
            Some(Node::Sum(count)) => tally.add(*count, self.token.bytes()),
            // Some say enumerations as numbers.
            Some(Node::Label(label)) if self.token.bytes().iter().all(u8::is_ascii_digit) => {
                tally.label(*label, self.token.bytes());
            }
            Some(Node::Object(Mark::None, _)) if self.token.bytes() == b"DONE" => tally.done(),
            _ => {}
        }
        self.end_value();
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => self.at.state = State::SkipString,
                b'{' | b'[' => {
                    self.skip_depth = self.skip_depth.saturating_add(1);
                    continue;
                }
                b'}' | b']' => {
                    self.skip_depth = self.skip_depth.saturating_sub(1);
                    if self.skip_depth > 0 {
                        continue;
                    }
                    self.end_value();
                }
                _ => continue,
            }
            let (run, rest) = bytes
                .split_at_checked(at.saturating_add(1))
                .unwrap_or((bytes, &[]));
            self.speak(run, tally);
            return rest;
        }
        self.speak(bytes, tally);
        &[]
    }

    fn skip_string<'a>(&mut self, bytes: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        let end = memchr2(b'"', b'\\', bytes);
        let past = end.map_or(bytes.len(), |end| end.saturating_add(1));
        let (run, rest) = bytes.split_at_checked(past).unwrap_or((bytes, &[]));
        self.speak(run, tally);
        self.at.state = match run.last() {
            Some(b'"') => State::Skip,
            Some(b'\\') => State::SkipEscape,
            _ => State::SkipString,
        };
        rest
    }

    fn speak(&self, run: &[u8], tally: &mut Tally) {
        if self.spoken {
            tally.text(run);
        }
    }
}

fn string_use(node: &'static Node) -> Use {
    match node {
        Node::Base64(_) => Use::Base64,
        Node::Error => Use::Error,
        Node::Label(label) => Use::Label(*label),
        Node::Call(_) | Node::Text(_) | Node::Words => Use::Text,
        Node::Count(_) | Node::Object(..) | Node::Sum(_) => Use::Ignore,
    }
}
