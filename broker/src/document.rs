//! Reads a YAML or JSON file: gives the value, or an error that names the file and the path in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// Why a file could not be read as what it should be.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// The file can't be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not YAML.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What stands where, without the text of the line.
        reason: String,
    },
    /// The document does not have the shape that it should.
    #[error("{}: {at}: {reason}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The place in the document, as in `issuers[0].audiences`.
        at: String,
        /// What was found and what was expected.
        reason: String,
    },
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// [`DocumentError::Read`].
pub fn read_text(path: &Path) -> Result<String, DocumentError> {
    fs::read_to_string(path).map_err(|source| DocumentError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads the file at `path` as YAML, of which JSON is a part.
///
/// # Errors
/// [`DocumentError::Read`] and [`DocumentError::Syntax`].
pub fn read(path: &Path) -> Result<Value, DocumentError> {
    parse(path, &read_text(path)?)
}

/// Reads `text`, which came from `path`, as YAML.
///
/// # Errors
/// [`DocumentError::Syntax`]. It never quotes the text: a line of it may be a secret.
pub fn parse(path: &Path, text: &str) -> Result<Value, DocumentError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|e| syntax(path, &e))
}

/// Reads all YAML documents of the file at `path`.
///
/// # Errors
/// [`DocumentError::Read`] and [`DocumentError::Syntax`].
pub fn read_all(path: &Path) -> Result<Vec<Value>, DocumentError> {
    let text = read_text(path)?;
    serde_saphyr::from_multiple_with_options(&text, options()).map_err(|e| syntax(path, &e))
}

/// YAML 1.2: `NO` is a country, not a boolean.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn syntax(path: &Path, error: &serde_saphyr::Error) -> DocumentError {
    let reason = error.without_snippet().to_string();
    DocumentError::Syntax {
        path: path.to_owned(),
        reason,
    }
}

/// Gives the document that was read from `path` its type.
///
/// # Errors
/// [`DocumentError::Shape`], which quotes what was found: not for documents that hold secrets.
pub fn typed<T: DeserializeOwned>(path: &Path, document: Value) -> Result<T, DocumentError> {
    serde_path_to_error::deserialize(document).map_err(|error| DocumentError::Shape {
        path: path.to_owned(),
        at: error.path().to_string(),
        reason: error.inner().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its shape matters")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its shape matters")]
        limit: u32,
    }

    fn refusal(text: &str) -> String {
        let path = Path::new("f.yaml");
        match parse(path, text).and_then(|value| typed::<Outer>(path, value)) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_path_expected_and_found() {
        assert_eq!(
            refusal("inner: [{limit: 1}, {limit: x}]"),
            "f.yaml: inner[1].limit: invalid type: string \"x\", expected u32"
        );
        assert_eq!(
            refusal("inner: [{limits: 1}]"),
            "f.yaml: inner[0].limits: unknown field `limits`, expected `limit`"
        );
    }

    #[test]
    fn refuses_a_key_that_stands_twice() {
        assert!(refusal("inner: []\ninner: []").contains("duplicate mapping key"));
    }

    #[test]
    fn never_quotes_a_line_that_is_not_yaml() {
        let refused = refusal("a: [1\nkey: sk-planted");
        assert!(
            refused.contains("line 2") && !refused.contains("planted"),
            "{refused}"
        );
    }

    #[test]
    fn reads_no_as_a_country() {
        let value = parse(Path::new("f"), "[NO, DE, true]").expect("yaml");
        assert_eq!(value, serde_json::json!(["NO", "DE", true]));
    }
}
