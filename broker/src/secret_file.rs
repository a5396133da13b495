//! Files with secrets: gives the text, wiped on drop, if nobody but the owner can read the file.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use thiserror::Error;
use zeroize::Zeroizing;

/// Why a file with a secret was not used.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// Not UTF-8, or not readable.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner may read or write it.
    #[error(
        "{}: expected a file that only its owner can use, found mode {mode:04o}: `chmod 600` it \
         (in Kubernetes: `defaultMode: 0400`)",
        path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Too large to be what it should be.
    #[error("{}: expected at most {MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

const MAX_BYTES: u64 = 1024 * 1024;

/// Reads a file that holds a secret, if only its owner can.
///
/// # Errors
/// [`SecretFileError`]; the permissions are those of the open file, so that nobody can swap it
/// between check and use.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let failed = |source| SecretFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.len() > MAX_BYTES {
        return Err(SecretFileError::TooLarge {
            path: path.to_owned(),
        });
    }
    // The whole capacity at once: a buffer that grows leaves unwiped copies behind.
    let capacity = usize::try_from(metadata.len().saturating_add(1)).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn refuses_a_file_that_others_can_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        fs::write(&path, "sk-planted").expect("written");
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode set");
            let refused = read(&path).expect_err("refused").to_string();
            assert!(
                refused.contains(&format!("found mode {mode:04o}")),
                "{refused}"
            );
            assert!(!refused.contains("planted"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("mode set");
        assert_eq!(read(&path).expect("accepted").as_str(), "sk-planted");
    }
}
