//! What a provider's claims mean here, where its tokens name neither tenants nor roles: a file of rules.
//!
//! Invariants: a token that fits no rule lets nobody in, and no rule fits every token: CI systems give tokens to all the world.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Role, check_name};

/// The file: of the rules that fit a token, the first one holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Claims, and what each must be: a text in which `*` stands for a part without `/`, or several of which one will do.
    when: BTreeMap<String, Wanted>,
    /// Whose builds they are; `{CLAIM}` in it stands for a claim. Without, the default tenant's.
    #[serde(default)]
    tenant: String,
    roles: BTreeSet<Role>,
    /// What of the above is compiled.
    #[serde(skip)]
    patterns: BTreeMap<String, GlobSet>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Wanted {
    One(Word),
    Several(Vec<Word>),
}

/// Providers write ids and flags as texts, and people as what they are.
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

/// What a claim says: one text, or several where it is a list.
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
    /// Where it cannot be read, or a rule is none.
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

    /// The tenant and the roles of whoever shows these claims.
    ///
    /// # Errors
    /// In words, where no rule fits or the one that does cannot name the tenant.
    pub fn apply(&self, claims: &Value) -> Result<(String, BTreeSet<Role>), String> {
        let rule = self.rules.iter().find(|rule| rule.fits(claims)).ok_or_else(|| {
            "the token is the provider's, but no rule of this farm (`--jwt-rules`) matches its claims".to_owned()
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

    /// What is before, in and after the braces of `tenant`. One pair at most: two claims side by side could be cut in two ways.
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
            return Err(format!("the token's claim `{claim}` is not one text, and the tenant is named by it"));
        };
        let tenant = format!("{before}{value}{after}");
        check_name("tenant", &tenant)?;
        Ok(tenant)
    }
}

#[cfg(test)]
mod tests;
