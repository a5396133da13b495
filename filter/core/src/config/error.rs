//! What is wrong with a document: takes serde's complaints, gives path, expected and found.

use super::document::Document;

/// Why a document is not in force.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ConfigError {
    /// Where, such as `budgets.bot-minute.window`; `document` for the whole.
    pub path: String,
    /// What was expected there, and what was found.
    pub problem: String,
}

impl ConfigError {
    /// An error at a place of the document.
    pub(super) fn at(path: impl Into<String>, expected: &str, found: &str) -> Self {
        Self {
            path: path.into(),
            problem: format!("expected {expected}, found {found}"),
        }
    }

    /// The same, with the offending text in backticks.
    pub(super) fn value(path: impl Into<String>, expected: &str, found: &str) -> Self {
        Self::at(path, expected, &format!("`{found}`"))
    }

    /// The document is no JSON at all.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self {
            path: "document".to_owned(),
            problem: format!("expected JSON, found {error}"),
        }
    }
}

/// Reads the document's structure.
pub(super) fn read(json: &[u8]) -> Result<Document, ConfigError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let document = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner();
        if inner.is_syntax() || inner.is_eof() {
            return ConfigError::json(inner);
        }
        let path = error.path().to_string();
        ConfigError {
            path: if path == "." {
                "document".to_owned()
            } else {
                path
            },
            problem: rephrase(&inner.to_string()),
        }
    })?;
    deserializer
        .end()
        .map_err(|error| ConfigError::json(&error))?;
    Ok(document)
}

/// Puts serde's sentences in the order that all our messages have: expected, then found.
fn rephrase(message: &str) -> String {
    let message = message
        .rsplit_once(" at line ")
        .map_or(message, |(text, _)| text);
    for kind in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) = message
            .strip_prefix(kind)
            .and_then(|rest| rest.split_once(", expected "))
        {
            return format!("expected {expected}, found {found}");
        }
    }
    for kind in ["unknown field ", "unknown variant "] {
        if let Some((found, expected)) = message
            .strip_prefix(kind)
            .and_then(|rest| rest.split_once(", expected "))
        {
            return format!("expected {expected}, found {found}");
        }
    }
    match message.strip_prefix("missing field ") {
        Some(field) => format!("expected a field {field}, found none"),
        None => message.to_owned(),
    }
}
