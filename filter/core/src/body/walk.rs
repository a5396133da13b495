//! One pass over a JSON body by the schema: the text in, its facts out.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    BodyFacts, Object, StreamOptions,
    keys::{self, Keys},
    limit_fields,
    schema::{self, Level, Rule},
    value::{Prompts, Text, count, flag, parse, string, strings},
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
        walk.close(level, seen)
            .or_else(|denial| walk.give_up(denial))
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

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<(), E> {
        let taken = self.walk.text(self.level, text, || Cow::Borrowed(text));
        taken.or_else(|denial| self.walk.give_up(denial))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let taken = self
            .walk
            .text(self.level, text, || Cow::Owned(text.to_owned()));
        taken.or_else(|denial| self.walk.give_up(denial))
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
            Rule::Betas => {
                for beta in strings(raw, "betas")? {
                    add(&mut facts.betas, beta, "betas")?;
                }
            }
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
            Rule::MainModel => {
                if let Some(model) = string(raw, "model")? {
                    facts.models.retain(|other| *other != model);
                    facts.models.insert(0, model.clone());
                    self.model(model)?;
                }
            }
            Rule::Model => {
                if let Some(model) = string(raw, "model")? {
                    self.model(model)?;
                }
            }
            Rule::Payload => {
                seen.has_payload |= raw != "null";
                seen.blob_bytes = seen.blob_bytes.saturating_add(raw.len() as u64);
            }
            Rule::Prompt => self.prompt(raw)?,
            Rule::Secret(field) if raw != "null" => return Err(Denial::SecretInBody { field }),
            Rule::Speed => {
                if let Some(speed) = string(raw, "speed")? {
                    add(&mut facts.speeds, speed, "speed")?;
                }
            }
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
            Rule::Tool(name) if raw != "null" => self.tool(Cow::Borrowed(name))?,
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
    fn text(
        &mut self,
        level: Level,
        text: &str,
        own: impl FnOnce() -> Cow<'a, str>,
    ) -> Result<(), Denial> {
        match level {
            Level::Container => self.state(State::Container),
            Level::Fallback => self.model(own())?,
            Level::Source => self.blob(text.len() as u64),
            Level::Tool => self.tool(own())?,
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
        Ok(())
    }

    /// Takes what a complete object has shown.
    fn close(&mut self, level: Level, seen: Seen<'a>) -> Result<(), Denial> {
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
            Level::DataSource => self.tool(Cow::Borrowed("data_sources"))?,
            Level::Server => self.tool(Cow::Borrowed("mcp"))?,
            Level::Source if kind == Some("text") => {}
            Level::Source => self.blob(seen.blob_bytes),
            Level::Tool => {
                if let Some(kind) = seen.kind.filter(|kind| !schema::is_run_by_caller(kind)) {
                    self.tool(kind)?;
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
        Ok(())
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

    fn model(&mut self, model: Cow<'a, str>) -> Result<(), Denial> {
        if model.starts_with("ft:") {
            self.state(State::FineTunedModel);
        }
        add(&mut self.facts.models, model, "model")
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

    fn tool(&mut self, kind: Cow<'a, str>) -> Result<(), Denial> {
        add(&mut self.facts.tools, kind, "tools")
    }
}

/// How many models, tools, speeds or beta flags one body may name. More is an attack on whoever
/// compares them with the policy.
const MAX_NAMES: usize = 64;

/// Adds a name to a list that has each once.
fn add<'a>(
    names: &mut Vec<Cow<'a, str>>,
    name: Cow<'a, str>,
    field: &'static str,
) -> Result<(), Denial> {
    if names.contains(&name) {
        return Ok(());
    }
    if names.len() >= MAX_NAMES {
        return Err(Denial::FieldInvalid { field });
    }
    names.push(name);
    Ok(())
}
