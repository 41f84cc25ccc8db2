//! `# check=skip=A,B;error=true;experimental=C`: for the whole file on its first lines, for one instruction in a comment before it.

use std::collections::BTreeSet;

use super::Rule;
use crate::error::{shown, suggestion};

/// Which rules run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    skip: Rules,
    experimental: Rules,
    error: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rules {
    all: bool,
    names: BTreeSet<String>,
}

impl Rules {
    fn read(list: &str) -> Self {
        match list.trim() {
            "all" => Self { all: true, names: BTreeSet::new() },
            list => Self { all: false, names: list.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.contains(rule.name())
    }

    fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.names.extend(other.names);
    }
}

impl Config {
    /// Reads the value of `# check=`. Names of rules that do not exist have no effect.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for option in text.splitn(3, ';') {
            let (key, value) =
                option.split_once('=').ok_or_else(|| format!("the option {} has no `=`", shown(option)))?;
            match key.trim() {
                "skip" => config.skip = Rules::read(value),
                "experimental" => config.experimental = Rules::read(value),
                "error" => {
                    config.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        other => return Err(format!("`error` takes `true` or `false`, found {}", shown(other))),
                    }
                }
                other => {
                    let near = suggestion(other, ["skip", "experimental", "error"]);
                    let help = near.unwrap_or_else(|| "known are `skip`, `experimental` and `error`".to_owned());
                    return Err(format!("unknown option {}; {help}", shown(other)));
                }
            }
        }
        Ok(config)
    }

    /// The same, with the options of an instruction's comments. Options that are wrong have no effect there.
    #[must_use]
    pub fn with(&self, comments: &[String]) -> Self {
        let mut config = self.clone();
        let mut checks = comments.iter().filter_map(|comment| crate::text::assignment(comment));
        let check = checks.find(|(name, _)| name.eq_ignore_ascii_case("check"));
        if let Some(own) = check.and_then(|(_, value)| Self::read(value.split(' ').next().unwrap_or_default()).ok()) {
            config.skip.add(own.skip);
            config.experimental.add(own.experimental);
        }
        config
    }

    /// Whether a rule runs.
    pub fn runs(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.has(rule) } else { !self.skip.has(rule) }
    }

    /// Whether findings make a build fail.
    pub fn is_error(&self) -> bool {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_file_and_of_an_instruction_add_up() {
        let config = Config::read("skip=StageNameCasing,FromAsCasing;error=true").unwrap();
        assert!(config.is_error() && !config.runs(Rule::FromAsCasing) && config.runs(Rule::UndefinedVar));
        let own = config.with(&["x".to_owned(), "check=skip=UndefinedVar".to_owned()]);
        assert!(!own.runs(Rule::UndefinedVar) && !own.runs(Rule::StageNameCasing) && own.is_error());
        assert!(!Config::read("skip=all").unwrap().runs(Rule::ExposeProtoCasing));
        let experimental = Config::read("skip=all;experimental=InvalidDefinitionDescription").unwrap();
        assert!(experimental.runs(Rule::InvalidDefinitionDescription));
        assert!(!Config::default().runs(Rule::InvalidDefinitionDescription));
        for text in ["skip", "skipp=all", "error=x", "skip=a;;"] {
            assert!(Config::read(text).is_err(), "{text}");
        }
    }
}
