//! Takes a path in a provider's JSON; says what the value found there means.

use crate::units::Tokens;

/// The members of an object that mean something, by name.
pub(super) type Members = &'static [(&'static str, Node)];

/// An object whose members mean something, and which means nothing by itself.
pub(super) const fn object(members: Members) -> Node {
    Node::Object(Mark::None, members)
}

/// A string of the model's words.
pub(super) const TEXT: Node = Node::Text(&[]);

/// What a value means. Arrays are transparent: each element means what the array means, so that a
/// lone document, an array of them and a sequence of them are read by one grammar.
#[derive(Debug)]
pub(super) enum Node {
    /// Base64 of a JSON document that is read by a grammar of its own.
    Base64(&'static Self),
    /// The name of a tool that the model calls, in its own words; a call costs so many tokens more.
    Call(Tokens),
    /// A number of tokens; the last one stands.
    Count(Count),
    /// A number of tokens; those of one report add up.
    Sum(Count),
    /// The provider says that it failed, unless the value is null.
    Error,
    /// A short string about the answer.
    Label(Label),
    /// An object in which only these members mean something.
    Object(Mark, Members),
    /// A string here is the model's words; an object here has these members.
    Text(Members),
    /// All below is the model's words: arguments of a tool call as JSON.
    Words,
}

impl Node {
    pub(super) fn member(&self, name: &[u8]) -> Option<&'static Self> {
        let members = match self {
            Self::Object(_, members) | Self::Text(members) => *members,
            _ => return None,
        };
        members
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, node)| node)
    }
}

/// What begins where an object opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mark {
    /// One of the alternatives that the caller asked for: an event with one is never dropped.
    Choice,
    /// A usage object that adds to what earlier ones said, member by member.
    Merge,
    /// Nothing.
    None,
    /// A usage object; its first number replaces all that earlier ones said.
    Report,
}

/// A number in a usage object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Count {
    /// Input; the fold knows whether it contains the cached part.
    Input,
    /// Input read from a cache.
    CacheRead,
    /// Input written to a cache.
    CacheWrite,
    /// The part of `CacheWrite` that is kept for an hour.
    CacheWriteHour,
    /// Input that came from tools, beside `Input`.
    ToolInput,
    /// Seconds or tokens of audio: some providers count it in the total alone.
    Audio,
    /// Output; the fold knows whether it contains reasoning.
    Output,
    /// Output that was reasoning.
    Reasoning,
    /// The provider's own total.
    Total,
    /// Input by a second source, for where the first says nothing.
    OtherInput,
    /// `CacheRead` by a second source.
    OtherCacheRead,
    /// `CacheWrite` by a second source.
    OtherCacheWrite,
    /// Output by a second source.
    OtherOutput,
    /// Input of the passes that one answer took.
    PassInput,
    /// `CacheRead` of the passes.
    PassCacheRead,
    /// `CacheWrite` of the passes.
    PassCacheWrite,
    /// Output of the passes.
    PassOutput,
}

/// A short string about the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Label {
    /// Why the model stopped.
    Finish,
    /// The model that answered.
    Model,
    /// What kind of pass a usage entry is about.
    PassType,
    /// The provider's name for the answer.
    ResponseId,
    /// How far the answer is.
    Status,
    /// What kind of event or document this is.
    Type,
}

/// The numbers of the last report, as the provider wrote them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) input: Option<Tokens>,
    pub(super) cache_read: Option<Tokens>,
    pub(super) cache_write: Option<Tokens>,
    pub(super) cache_write_hour: Option<Tokens>,
    pub(super) tool_input: Option<Tokens>,
    pub(super) audio: Option<Tokens>,
    pub(super) output: Option<Tokens>,
    pub(super) reasoning: Option<Tokens>,
    pub(super) total: Option<Tokens>,
    pub(super) other: Other,
    pub(super) passes: Passes,
}

/// What a second source says: metrics beside the answer, response headers, billed units.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Other {
    pub(super) input: Option<Tokens>,
    pub(super) cache_read: Option<Tokens>,
    pub(super) cache_write: Option<Tokens>,
    pub(super) output: Option<Tokens>,
}

/// What the passes of one answer add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Passes {
    pub(super) input: Option<Tokens>,
    pub(super) cache_read: Option<Tokens>,
    pub(super) cache_write: Option<Tokens>,
    pub(super) output: Option<Tokens>,
    /// Whether one of them is left out of the numbers beside them.
    pub(super) beside: bool,
}

impl Counts {
    pub(super) fn slot(&mut self, count: Count) -> &mut Option<Tokens> {
        match count {
            Count::Audio => &mut self.audio,
            Count::CacheRead => &mut self.cache_read,
            Count::CacheWrite => &mut self.cache_write,
            Count::CacheWriteHour => &mut self.cache_write_hour,
            Count::Input => &mut self.input,
            Count::OtherCacheRead => &mut self.other.cache_read,
            Count::OtherCacheWrite => &mut self.other.cache_write,
            Count::OtherInput => &mut self.other.input,
            Count::OtherOutput => &mut self.other.output,
            Count::Output => &mut self.output,
            Count::PassCacheRead => &mut self.passes.cache_read,
            Count::PassCacheWrite => &mut self.passes.cache_write,
            Count::PassInput => &mut self.passes.input,
            Count::PassOutput => &mut self.passes.output,
            Count::Reasoning => &mut self.reasoning,
            Count::ToolInput => &mut self.tool_input,
            Count::Total => &mut self.total,
        }
    }
}
