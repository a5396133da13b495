//! A place in an Envoy configuration: takes field names, gives values that know their path.
//!
//! Envoy reads its YAML as protobuf's JSON: a field may be written `snake_case` or `lowerCamelCase`.

use std::net::IpAddr;

use serde_json::Value;

const SHOWN: usize = 60;

/// A place that may hold a value.
#[derive(Clone)]
pub(super) struct Node<'a> {
    path: String,
    value: Option<&'a Value>,
}

impl<'a> Node<'a> {
    /// The whole document.
    pub(super) const fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value: Some(value),
        }
    }

    /// The place of a field; it may be empty.
    pub(super) fn at(&self, field: &str) -> Self {
        let camel = camel_case(field);
        let fields = self.value.and_then(Value::as_object);
        let (name, value) = match fields.map(|fields| (fields.get(field), fields.get(&camel))) {
            Some((None, Some(value))) => (camel.as_str(), Some(value)),
            Some((value, _)) => (field, value),
            None => (field, None),
        };
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Self {
            path,
            value: value.filter(|value| !value.is_null()),
        }
    }

    /// The place under several fields.
    pub(super) fn down(&self, fields: &[&str]) -> Self {
        fields
            .iter()
            .fold(self.clone(), |node, field| node.at(field))
    }

    /// The elements of a list; none where there is no list.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self
            .value
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate();
        items
            .map(|(index, value)| Self {
                path: format!("{}[{index}]", self.path),
                value: Some(value),
            })
            .collect()
    }

    /// The entries of a map, by key; none where there is no map.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let entries = self.value.and_then(Value::as_object).into_iter().flatten();
        entries
            .map(|(key, value)| {
                (
                    key.as_str(),
                    Self {
                        path: format!("{}.{key}", self.path),
                        value: Some(value),
                    },
                )
            })
            .collect()
    }

    /// This place and all below it that hold a map.
    pub(super) fn maps(&self) -> Vec<Self> {
        let mut found = Vec::new();
        let mut open = vec![self.clone()];
        while let Some(node) = open.pop() {
            open.extend(node.items());
            open.extend(node.entries().into_iter().map(|(_, child)| child));
            if node.value.is_some_and(Value::is_object) {
                found.push(node);
            }
        }
        found
    }

    pub(super) fn path(&self) -> &str {
        if self.path.is_empty() {
            "."
        } else {
            &self.path
        }
    }

    pub(super) const fn is_there(&self) -> bool {
        self.value.is_some()
    }

    /// Whether a map or list is there and has something in it.
    pub(super) fn holds_any(&self) -> bool {
        !self.items().is_empty() || !self.entries().is_empty()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    pub(super) fn is_text(&self, text: &str) -> bool {
        self.text() == Some(text)
    }

    pub(super) fn is_true(&self) -> bool {
        self.value.and_then(Value::as_bool) == Some(true)
    }

    pub(super) fn number(&self) -> Option<u64> {
        let value = self.value?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    /// A protobuf duration such as `0.050s`, in seconds.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.text()?.strip_suffix('s')?.parse().ok()
    }

    /// Whether the `@type` of this message is the one whose full name ends like this.
    pub(super) fn is_message(&self, name: &str) -> bool {
        let kind = self.at("@type").text().unwrap_or_default();
        kind.strip_suffix(name)
            .is_some_and(|rest| rest.ends_with(['.', '/']))
    }

    /// Whether the address at this place is reached from this machine alone.
    pub(super) fn is_local_address(&self) -> bool {
        let host = self.down(&["socket_address", "address"]).text();
        let loopback = host.is_some_and(|host| {
            host.parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
        });
        loopback || self.at("pipe").is_there() || self.at("envoy_internal_address").is_there()
    }

    /// What stands here, short, and never the content of a map or list: it may hold a secret.
    pub(super) fn shown(&self) -> String {
        match self.value {
            None => "none".to_owned(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(Value::Object(_)) => "a map".to_owned(),
            Some(Value::String(text)) => {
                let short: String = text.chars().take(SHOWN).collect();
                format!("`{}`", short.escape_debug())
            }
            Some(value) => format!("`{value}`"),
        }
    }
}

fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
