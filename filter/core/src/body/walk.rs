//! One pass over a JSON body by the schema: the text in, its facts out.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    BodyFacts, Object, StreamOptions,
    keys::{self, Keys},
    limit_fields,
    schema::{self, Level, Rule},
};
use crate::{
    api::{Endpoint, State},
    denial::Denial,
    units::Tokens,
};

/// Reads the facts of `text`, whose first character that is no white space is a `{`.
pub(super) fn walk(endpoint: Endpoint, text: &str) -> Result<BodyFacts<'_>, Denial> {
    let mut walk = Walk {
        facts: BodyFacts::new(endpoint, text),
        denial: None,
        choices: 1,
        prompts: 0,
        blob_bytes: 0,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    Node {
        walk: &mut walk,
        level: Level::Top,
    }
    .deserialize(&mut json)
    .and_then(|()| json.end())
    .map_err(|error| walk.why(&error))?;

    let Walk {
        mut facts,
        choices,
        prompts,
        blob_bytes,
        ..
    } = walk;
    facts.choices = choices.saturating_mul(prompts.max(1));
    facts.input_text_bytes = (text.len() as u64).saturating_sub(blob_bytes);
    Ok(facts)
}

/// What the pass has found so far.
struct Walk<'a> {
    facts: BodyFacts<'a>,
    /// Why the pass was given up, where that is not the parser's own error.
    denial: Option<Denial>,
    /// The largest of `n` and `best_of`.
    choices: u64,
    /// How many prompts stand in `prompt`.
    prompts: u64,
    /// How many bytes of the body are media.
    blob_bytes: u64,
}

/// What one object has shown so far. It means something only when the object is complete, because
/// keys come in any order.
#[derive(Default)]
struct Seen<'a> {
    kind: Option<Cow<'a, str>>,
    has_id: bool,
    has_payload: bool,
    blob_bytes: u64,
}

/// A value to be read at a level. An array is read as what stands in it.
struct Node<'w, 'a> {
    walk: &'w mut Walk<'a>,
    level: Level,
}

impl<'de> DeserializeSeed<'de> for Node<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, level } = self;
        let mut keys = Keys::default();
        let mut seen = Seen::default();
        while let Some(Text(key)) = map.next_key()? {
            let folded = keys::fold(&key);
            let rule = schema::rule(level, &folded);
            let exact = key == folded;
            if let Err(denial) = keys.insert(folded) {
                return walk.give_up(denial);
            }
            match rule {
                Some(Rule::Enter(level)) if exact => map.next_value_seed(Node { walk, level })?,
                Some(rule) if exact => {
                    let raw: &'de RawValue = map.next_value()?;
                    if let Err(denial) = walk.field(rule, &mut seen, raw.get()) {
                        return walk.give_up(denial);
                    }
                }
                Some(_) => return walk.give_up(Denial::KeyNotExact),
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        walk.close(level, seen);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { walk, level } = self;
        while seq
            .next_element_seed(Node {
                walk: &mut *walk,
                level,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.walk.text(self.level, text, || Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.walk
            .text(self.level, text, || Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

impl<'a> Walk<'a> {
    /// Ends the pass with a denial instead of a parser's error.
    fn give_up<E: de::Error>(&mut self, denial: Denial) -> Result<(), E> {
        self.denial = Some(denial);
        Err(E::custom("refused"))
    }

    /// Why the pass ended with `error`.
    fn why(&self, error: &serde_json::Error) -> Denial {
        // The parser's own limit of nesting, which has no category.
        let too_deep = error.to_string().starts_with("recursion limit");
        self.denial.unwrap_or(if too_deep {
            Denial::BodyTooDeep
        } else {
            Denial::BodyNotJson
        })
    }

    /// Reads the value of a field by its rule. `raw` is one JSON value without white space around.
    fn field(&mut self, rule: Rule, seen: &mut Seen<'a>, raw: &'a str) -> Result<(), Denial> {
        let place = self.place(raw);
        let facts = &mut self.facts;
        match rule {
            Rule::Background => facts.background = flag(raw, "background")? == Some(true),
            Rule::Betas => facts.betas.extend(strings(raw, "betas")?),
            Rule::Blob => seen.blob_bytes = seen.blob_bytes.saturating_add(raw.len() as u64),
            Rule::Choices(field) => {
                self.choices = self.choices.max(count(raw, field)?.unwrap_or_default());
            }
            Rule::EndUser(field) => {
                if let Some(user) = string(raw, field)? {
                    facts.end_user = Some(user);
                }
            }
            Rule::Enter(level) => self.enter(level, raw)?,
            Rule::Id => seen.has_id = raw != "null",
            Rule::IncludeUsage => {
                facts.usage_asked = flag(raw, "stream_options.include_usage")? == Some(true);
                facts.places.stream_options = StreamOptions::With(place);
            }
            Rule::Kind => seen.kind = string(raw, "type")?,
            Rule::Limit(field) => self.limit(field, raw, place)?,
            Rule::MainModel | Rule::Model => {
                let model = string(raw, "model")?;
                let at = if rule == Rule::MainModel {
                    0
                } else {
                    facts.models.len()
                };
                model.into_iter().for_each(|model| self.model(at, model));
            }
            Rule::Payload => {
                seen.has_payload |= raw != "null";
                seen.blob_bytes = seen.blob_bytes.saturating_add(raw.len() as u64);
            }
            Rule::Prompt => self.prompt(raw)?,
            Rule::Secret(field) if raw != "null" => return Err(Denial::SecretInBody { field }),
            Rule::Speed => facts.speeds.extend(string(raw, "speed")?),
            Rule::State(state) if !matches!(raw, "null" | "[]") => self.state(state),
            Rule::Store => {
                facts.places.store = Some(place);
                if flag(raw, "store")? == Some(true) {
                    self.state(State::Store);
                }
            }
            Rule::Stream => facts.stream = flag(raw, "stream")? == Some(true),
            Rule::StreamOptions => self.stream_options(raw, place)?,
            Rule::Tier => facts.service_tier = string(raw, "service_tier")?,
            Rule::Tool(name) if raw != "null" => self.tool(Cow::Borrowed(name)),
            Rule::Secret(_) | Rule::State(_) | Rule::Tool(_) => {}
        }
        Ok(())
    }

    /// Reads a value that was passed over once.
    fn enter(&mut self, level: Level, raw: &'a str) -> Result<(), Denial> {
        let mut json = serde_json::Deserializer::from_str(raw);
        let read = Node {
            walk: &mut *self,
            level,
        }
        .deserialize(&mut json);
        read.map_err(|error| self.why(&error))
    }

    /// Takes a string that stands where an object of the level could.
    fn text(&mut self, level: Level, text: &str, own: impl FnOnce() -> Cow<'a, str>) {
        match level {
            Level::Container => self.state(State::Container),
            Level::Fallback => self.model(self.facts.models.len(), own()),
            Level::Source => self.blob(text.len() as u64),
            Level::Tool => self.tool(own()),
            Level::Content
            | Level::DataSource
            | Level::Metadata
            | Level::Named
            | Level::Network
            | Level::Reference
            | Level::Server
            | Level::StreamOptions
            | Level::Top => {}
        }
    }

    /// Takes what a complete object has shown.
    fn close(&mut self, level: Level, seen: Seen<'a>) {
        let kind = seen.kind.as_deref();
        match level {
            Level::Content => {
                let bare = seen.has_id && !seen.has_payload;
                let refers = match kind {
                    Some("item_reference") => true,
                    // Looked up by their identifier where the caller leaves the rest out.
                    None | Some("image_generation_call" | "reasoning") => bare,
                    Some(_) => false,
                };
                if refers {
                    self.state(State::PreviousResponse);
                }
                if kind == Some("image_generation_call") {
                    self.blob(seen.blob_bytes);
                }
            }
            Level::DataSource => self.tool(Cow::Borrowed("data_sources")),
            Level::Server => self.tool(Cow::Borrowed("mcp")),
            Level::Source if kind == Some("text") => {}
            Level::Source => self.blob(seen.blob_bytes),
            Level::Tool => {
                if let Some(kind) = seen.kind.filter(|kind| !schema::is_run_by_caller(kind)) {
                    self.tool(kind);
                }
            }
            Level::Container
            | Level::Fallback
            | Level::Metadata
            | Level::Named
            | Level::Network
            | Level::Reference
            | Level::StreamOptions
            | Level::Top => {}
        }
    }

    fn blob(&mut self, bytes: u64) {
        self.blob_bytes = self.blob_bytes.saturating_add(bytes);
        self.facts.attachments = self.facts.attachments.saturating_add(1);
    }

    fn limit(&mut self, field: &'static str, raw: &str, place: Range<usize>) -> Result<(), Denial> {
        let fields = limit_fields(self.facts.endpoint);
        let of_fallback = field == schema::FALLBACK_LIMIT;
        if !of_fallback && !fields.contains(&field) {
            return Ok(());
        }
        match count(raw, field)? {
            Some(limit) => {
                self.facts.max_output_tokens =
                    self.facts.max_output_tokens.max(Some(Tokens(limit)));
                self.facts.places.is_limited |= !of_fallback;
            }
            None if fields.first() == Some(&field) => self.facts.places.null_limit = Some(place),
            None => {}
        }
        Ok(())
    }

    fn model(&mut self, at: usize, model: Cow<'a, str>) {
        if model.starts_with("ft:") {
            self.state(State::FineTunedModel);
        }
        self.facts.models.insert(at, model);
    }

    /// Where in the body `raw`, a part of it, stands.
    fn place(&self, raw: &str) -> Range<usize> {
        let start = raw
            .as_ptr()
            .addr()
            .saturating_sub(self.facts.text.as_ptr().addr());
        start..start.saturating_add(raw.len())
    }

    fn prompt(&mut self, raw: &'a str) -> Result<(), Denial> {
        match raw.as_bytes().first() {
            Some(b'{') => self.state(State::StoredPrompt),
            Some(b'[') => {
                let Prompts(prompts) = parse(raw, "prompt")?;
                self.prompts = prompts;
            }
            _ => {}
        }
        Ok(())
    }

    fn state(&mut self, state: State) {
        self.facts.state.get_or_insert(state);
    }

    fn stream_options(&mut self, raw: &'a str, place: Range<usize>) -> Result<(), Denial> {
        match raw.as_bytes().first() {
            Some(b'{') => {
                let object = Object::new(self.facts.text, place.start);
                self.facts.places.stream_options = StreamOptions::Without(object);
                self.enter(Level::StreamOptions, raw)
            }
            _ if raw == "null" => {
                self.facts.places.stream_options = StreamOptions::Null(place);
                Ok(())
            }
            _ => Err(Denial::FieldInvalid {
                field: "stream_options",
            }),
        }
    }

    fn tool(&mut self, tool: Cow<'a, str>) {
        if !self.facts.tools.contains(&tool) {
            self.facts.tools.push(tool);
        }
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// How many prompts an array holds: strings or arrays of tokens; tokens alone are one.
struct Prompts(u64);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Count;

        impl<'de> Visitor<'de> for Count {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
                let mut count: u64 = 0;
                while let Some(prompt) = seq.next_element::<&RawValue>()? {
                    if prompt.get().starts_with(['"', '[']) {
                        count = count.saturating_add(1);
                    }
                }
                Ok(Prompts(count))
            }
        }

        json.deserialize_seq(Count)
    }
}

fn parse<'a, T: Deserialize<'a>>(raw: &'a str, field: &'static str) -> Result<T, Denial> {
    serde_json::from_str(raw).map_err(|_| Denial::FieldInvalid { field })
}

/// `true`, `false`, or nothing where it is `null`.
fn flag(raw: &str, field: &'static str) -> Result<Option<bool>, Denial> {
    parse(raw, field)
}

/// A whole number that every parser holds exactly, written without fraction and exponent.
fn count(raw: &str, field: &'static str) -> Result<Option<u64>, Denial> {
    Ok(parse::<Option<u32>>(raw, field)?.map(u64::from))
}

fn string<'a>(raw: &'a str, field: &'static str) -> Result<Option<Cow<'a, str>>, Denial> {
    Ok(parse::<Option<Text<'a>>>(raw, field)?.map(|Text(text)| text))
}

fn strings<'a>(raw: &'a str, field: &'static str) -> Result<Vec<Cow<'a, str>>, Denial> {
    let texts = parse::<Option<Vec<Text<'a>>>>(raw, field)?.unwrap_or_default();
    Ok(texts.into_iter().map(|Text(text)| text).collect())
}
