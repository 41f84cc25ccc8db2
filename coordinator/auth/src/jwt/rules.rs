//! Maps a provider's claims to tenants and roles, for tokens that name neither.
//!
//! Invariants: a token that matches no rule is refused, and no rule matches every token, because public CI systems
//! issue tokens to anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Role, check_name};

/// The rules, in order: the first that matches a token applies.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Claims, and what each must match: a pattern in which `*` stands for any characters except `/`, or a list of
    /// which one must match.
    when: BTreeMap<String, Wanted>,
    /// The tenant; `{CLAIM}` in it is replaced by that claim. The default tenant if absent.
    #[serde(default)]
    tenant: String,
    roles: BTreeSet<Role>,
    /// Compiled patterns of `when`.
    #[serde(skip)]
    patterns: BTreeMap<String, GlobSet>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Wanted {
    One(Word),
    Several(Vec<Word>),
}

/// Providers write ids and flags as strings, and people write them as numbers and booleans.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl Wanted {
    fn patterns(&self) -> Vec<String> {
        let words = match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Several(words) => words,
        };
        let text = |word: &Word| match word {
            Word::Text(text) => text.clone(),
            Word::Number(number) => number.to_string(),
            Word::Flag(flag) => flag.to_string(),
        };
        words.iter().map(text).collect()
    }
}

/// The values of a claim: one text, or several if it is a list.
fn texts(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) => vec![text.clone()],
        Value::Number(_) | Value::Bool(_) => vec![claim.to_string()],
        Value::Array(list) => list.iter().filter(|value| !value.is_array()).flat_map(texts).collect(),
        Value::Null | Value::Object(_) => Vec::new(),
    }
}

impl Rules {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, or a rule is invalid.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let mut rules: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if rules.rules.is_empty() {
            return Err(wrong("it has no `[[rule]]`, so nobody would be accepted".to_owned()));
        }
        for (number, rule) in (1..).zip(&mut rules.rules) {
            rule.check().map_err(|reason| wrong(format!("rule {number}: {reason}")))?;
        }
        Ok(rules)
    }

    /// The tenant and the roles for these claims.
    ///
    /// # Errors
    /// If no rule matches, or the matching one cannot determine the tenant.
    pub fn apply(&self, claims: &Value) -> Result<(String, BTreeSet<Role>), String> {
        let rule = self.rules.iter().find(|rule| rule.fits(claims)).ok_or_else(|| {
            "the token is valid, but no rule of this farm (`--jwt-rules`) matches its claims".to_owned()
        })?;
        Ok((rule.tenant(claims)?, rule.roles.clone()))
    }
}

impl Rule {
    fn check(&mut self) -> Result<(), String> {
        if self.when.is_empty() {
            return Err(
                "`when` is empty, so everyone with a token from the provider would be accepted; expected claims such as \
                 `repository_owner`"
                    .to_owned(),
            );
        }
        if self.roles.is_empty() {
            return Err("`roles` is empty; expected for example `[\"builder\"]`".to_owned());
        }
        for (claim, wanted) in &self.when {
            let mut set = GlobSetBuilder::new();
            for pattern in wanted.patterns() {
                let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
                set.add(glob.map_err(|error| format!("`{claim}`: invalid pattern `{pattern}`: {}", error.kind()))?);
            }
            let set = set.build().map_err(|error| format!("`{claim}`: {error}"))?;
            if set.is_empty() {
                return Err(format!("`{claim}` lists no values"));
            }
            self.patterns.insert(claim.clone(), set);
        }
        match self.placeholder()? {
            Some(_) => Ok(()),
            None if self.tenant.is_empty() => Ok(()),
            None => check_name("tenant", &self.tenant),
        }
    }

    fn fits(&self, claims: &Value) -> bool {
        self.patterns.iter().all(|(claim, patterns)| texts(&claims[claim]).iter().any(|text| patterns.is_match(text)))
    }

    /// The parts of `tenant` before, in and after the braces. At most one pair: the boundary between two claims would
    /// be ambiguous.
    fn placeholder(&self) -> Result<Option<(&str, &str, &str)>, String> {
        let wrong = || format!("`tenant = \"{}\"`: expected a name with at most one `{{CLAIM}}` in it", self.tenant);
        let Some((before, rest)) = self.tenant.split_once('{') else {
            return if self.tenant.contains('}') { Err(wrong()) } else { Ok(None) };
        };
        let (claim, after) = rest.split_once('}').ok_or_else(wrong)?;
        if claim.is_empty() || after.contains(['{', '}']) || before.contains('}') {
            return Err(wrong());
        }
        Ok(Some((before, claim, after)))
    }

    fn tenant(&self, claims: &Value) -> Result<String, String> {
        let Some((before, claim, after)) = self.placeholder()? else { return Ok(self.tenant.clone()) };
        let values = texts(&claims[claim]);
        let [value] = values.iter().map(String::as_str).filter(|text| !text.is_empty()).collect::<Vec<_>>()[..] else {
            return Err(format!("the token's claim `{claim}`, which names the tenant, is not a single string"));
        };
        let tenant = format!("{before}{value}{after}");
        check_name("tenant", &tenant)?;
        Ok(tenant)
    }
}

#[cfg(test)]
mod tests;
