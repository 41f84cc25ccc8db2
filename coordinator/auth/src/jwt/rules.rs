//! Maps a provider's claims to tenants and roles, for tokens that name neither.
//!
//! Invariants: a token that matches no rule is refused, and no rule matches every token, because public CI systems
//! issue tokens to anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Role, check_name, check_scope};

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
    /// The branch scope that the holder is confined to; `{CLAIM}` in it is replaced by that claim.
    #[serde(default)]
    scope: String,
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

    /// The branch scope for these claims, if the rule that matches confines them to one.
    ///
    /// # Errors
    /// If the rule cannot determine the scope.
    pub fn scope(&self, claims: &Value) -> Result<Option<String>, String> {
        match self.rules.iter().find(|rule| rule.fits(claims)) {
            Some(rule) if !rule.scope.is_empty() => {
                let scope = filled("scope", &rule.scope, claims)?;
                check_scope(&scope)?;
                Ok(Some(scope))
            }
            _ => Ok(None),
        }
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
        placeholder("scope", &self.scope)?;
        match placeholder("tenant", &self.tenant)? {
            Some(_) => Ok(()),
            None if self.tenant.is_empty() => Ok(()),
            None => check_name("tenant", &self.tenant),
        }
    }

    fn fits(&self, claims: &Value) -> bool {
        self.patterns.iter().all(|(claim, patterns)| texts(&claims[claim]).iter().any(|text| patterns.is_match(text)))
    }

    fn tenant(&self, claims: &Value) -> Result<String, String> {
        let tenant = filled("tenant", &self.tenant, claims)?;
        if tenant != self.tenant {
            check_name("tenant", &tenant)?;
        }
        Ok(tenant)
    }
}

/// The parts of a field before, in and after the braces. At most one pair: the boundary between two claims would be
/// ambiguous.
fn placeholder<'a>(field: &str, text: &'a str) -> Result<Option<(&'a str, &'a str, &'a str)>, String> {
    let wrong = || format!("`{field} = \"{text}\"`: expected a name with at most one `{{CLAIM}}` in it");
    let Some((before, rest)) = text.split_once('{') else {
        return if text.contains('}') { Err(wrong()) } else { Ok(None) };
    };
    let (claim, after) = rest.split_once('}').ok_or_else(wrong)?;
    if claim.is_empty() || after.contains(['{', '}']) || before.contains('}') {
        return Err(wrong());
    }
    Ok(Some((before, claim, after)))
}

/// A field with the claim in place of the braces.
fn filled(field: &str, text: &str, claims: &Value) -> Result<String, String> {
    let Some((before, claim, after)) = placeholder(field, text)? else { return Ok(text.to_owned()) };
    let values = texts(&claims[claim]);
    let [value] = values.iter().map(String::as_str).filter(|text| !text.is_empty()).collect::<Vec<_>>()[..] else {
        return Err(format!("the token's claim `{claim}`, which names the {field}, is not a single string"));
    };
    Ok(format!("{before}{value}{after}"))
}

#[cfg(test)]
mod tests;
