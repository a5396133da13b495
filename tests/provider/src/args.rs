//! Takes the command line; gives the simulator's settings.

use std::path::PathBuf;

use crate::answer::Api;

const USAGE: &str = "usage: almoner-provider-sim --accept-key openai=KEY|anthropic=KEY ... \
                     [--tls-cert PEM --tls-key PEM] [--ready-file FILE]";

pub(crate) struct Args {
    pub(crate) accept_keys: Vec<(Api, String)>,
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) ready_file: Option<PathBuf>,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut accept_keys, mut cert, mut key, mut ready_file) = (Vec::new(), None, None, None);
        while let Some(option) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match option.as_str() {
                "--accept-key" => accept_keys.push(parse_key(&value)?),
                "--tls-cert" => cert = Some(PathBuf::from(value)),
                "--tls-key" => key = Some(PathBuf::from(value)),
                "--ready-file" => ready_file = Some(PathBuf::from(value)),
                _ => return Err(format!("unknown option `{option}`; {USAGE}")),
            }
        }
        if cert.is_some() != key.is_some() {
            return Err(format!("--tls-cert and --tls-key go together; {USAGE}"));
        }
        Ok(Self {
            accept_keys,
            tls: cert.zip(key),
            ready_file,
        })
    }
}

fn parse_key(value: &str) -> Result<(Api, String), String> {
    match value.split_once('=') {
        Some(("openai", key)) => Ok((Api::OpenAi, key.to_owned())),
        Some(("anthropic", key)) => Ok((Api::Anthropic, key.to_owned())),
        _ => Err(format!(
            "--accept-key: expected openai=KEY or anthropic=KEY; {USAGE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_keys_and_files() {
        let args = parse("--accept-key openai=a=b --tls-cert c --tls-key k").unwrap();
        assert!(matches!(args.accept_keys.as_slice(), [(Api::OpenAi, key)] if key == "a=b"));
        assert_eq!(args.tls, Some(("c".into(), "k".into())));
    }

    #[test]
    fn refuses_half_a_key_pair_and_unknown_words() {
        assert!(parse("--tls-cert c").is_err());
        assert!(parse("--port 1").is_err());
        assert!(parse("--accept-key other=k").is_err());
    }
}
