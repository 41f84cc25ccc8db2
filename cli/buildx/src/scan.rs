//! How flags are written: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abn value`; `--` ends them. Flags and arguments can be
//! mixed.

use crate::csv::boolean;
use crate::error::{Error, hint};
use crate::flags::{FLAGS, Flag, Takes, by_letter, by_name};

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The flags in order, each with its value; `true` or `false` for those without one.
    pub(crate) flags: Vec<(&'static Flag, String)>,
    /// What is not a flag.
    pub(crate) arguments: Vec<String>,
    /// Whether help is wanted.
    pub(crate) help: bool,
}

/// Reads arguments.
pub(crate) fn scan(arguments: &[String]) -> Result<Given, Error> {
    let mut given = Given::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = |shown: String| rest.next().cloned().ok_or(Error::NoValue { flag: shown });
        if argument == "--" {
            given.arguments.extend(rest.by_ref().cloned());
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, own) = long.split_once('=').map_or((long, None), |(name, own)| (name, Some(own.to_owned())));
            if name == "help" {
                given.help = true;
                continue;
            }
            let flag = by_name(name).ok_or_else(|| unknown_name(name))?;
            let value = match (flag.takes, own) {
                (Takes::Value, Some(own)) => own,
                (Takes::Value, None) => value(format!("--{name}"))?,
                (Takes::Bool, own) => truth(flag, own.as_deref().unwrap_or("true"))?,
            };
            given.flags.push((flag, value));
        } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                if letter == 'h' {
                    given.help = true;
                    continue;
                }
                let flag = by_letter(letter)
                    .ok_or_else(|| Error::UnknownFlag { flag: format!("-{letter}"), hint: String::new() })?;
                let following = letters.as_str();
                if flag.takes == Takes::Value {
                    let own = following.strip_prefix('=').unwrap_or(following);
                    let own = if following.is_empty() { value(format!("-{letter}"))? } else { own.to_owned() };
                    given.flags.push((flag, own));
                    break;
                }
                if let Some(own) = following.strip_prefix('=') {
                    given.flags.push((flag, truth(flag, own)?));
                    break;
                }
                given.flags.push((flag, "true".to_owned()));
            }
        } else {
            given.arguments.push(argument.clone());
        }
    }
    Ok(given)
}

fn unknown_name(name: &str) -> Error {
    let hint = hint(name, FLAGS.iter().map(|flag| flag.name)).replace("mean `", "mean `--");
    Error::UnknownFlag { flag: format!("--{name}"), hint }
}

/// A truth value, in one notation.
fn truth(flag: &Flag, text: &str) -> Result<String, Error> {
    boolean(text).map(|value| value.to_string()).ok_or_else(|| Error::Malformed {
        flag: format!("--{}", flag.name),
        value: text.to_owned(),
        reason: "expected `true` or `false`".to_owned(),
    })
}
