//! The flags of an instruction.

use crate::error::{Problem, list, shown, suggestion};
use crate::source::Word;

/// What values a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `true` or `false`; without a value, `true`.
    Bool,
    /// One value.
    One,
    /// One value each time it is written.
    Many,
}

/// The flags that an instruction knows.
pub(super) type Known = &'static [(&'static str, Takes)];

/// The flags that were written.
#[derive(Debug, Default)]
pub(super) struct Flags {
    values: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Reads flags.
    pub(super) fn read(keyword: &str, written: &[Word], known: Known) -> Result<Self, Problem> {
        let mut flags = Self::default();
        for word in written {
            let (name, value) = match word.value.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.value.as_str(), None),
            };
            let bare = name.strip_prefix("--").unwrap_or(name);
            let Some((name, takes)) = known.iter().find(|(known, _)| *known == bare) else {
                return Err(unknown(keyword, bare, word, known));
            };
            if *takes != Takes::Many && flags.has(name) {
                return Err(
                    Problem::new(word.span, format!("the flag `--{name}` is repeated")).help("keep one of them")
                );
            }
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => "true".to_owned(),
                (Takes::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => "false".to_owned(),
                (Takes::Bool, Some(value)) => {
                    let found = if value.is_empty() { "nothing".to_owned() } else { shown(value) };
                    let message = format!("the flag `--{name}` takes `true` or `false`, found {found}");
                    return Err(Problem::new(word.span, message).help(format!("write `--{name}`")));
                }
                (_, Some(value)) => value.to_owned(),
                (_, None) => {
                    let problem = Problem::new(word.span, format!("the flag `--{name}` has no value"));
                    return Err(problem.help(format!("write `--{name}=VALUE`")));
                }
            };
            flags.values.push((name, Word { value, span: word.span }));
        }
        Ok(flags)
    }

    fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| *known == name)
    }

    /// The value of a flag, if it was written.
    pub(super) fn one(&self, name: &str) -> Option<Word> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// All values of a flag.
    pub(super) fn many(&self, name: &str) -> Vec<Word> {
        self.values.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a flag is true; `None` if it was not written.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.one(name).map(|word| word.value == "true")
    }
}

fn unknown(keyword: &str, name: &str, word: &Word, known: Known) -> Problem {
    let keyword = keyword.to_ascii_uppercase();
    let problem = Problem::new(word.span, format!("unknown flag {} of {keyword}", shown(&format!("--{name}"))));
    if known.is_empty() {
        return problem.help(format!("{keyword} has no flags"));
    }
    let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
    let near = suggestion(&format!("--{name}"), names.iter().map(String::as_str));
    problem.help(near.unwrap_or_else(|| format!("it has {}", list(names.iter().map(String::as_str)))))
}
