//! Typed access to a table of `kiln.toml`.
//!
//! Invariant: every error has the line number of the text it is about.

use std::collections::BTreeMap;

use kiln_plan::Split;
use toml_edit::{Item, TableLike, Value};

use super::Error;

/// A table of the document, with its name in errors.
pub(super) struct Reader<'a> {
    text: &'a str,
    table: &'a dyn TableLike,
    name: String,
    offset: usize,
    left_out: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// The whole document.
    pub(super) fn root(text: &'a str, table: &'a dyn TableLike) -> Self {
        Reader { text, table, name: "the top level".to_owned(), offset: 0, left_out: None }
    }

    /// Rejects keys that are not in `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Error> {
        for (key, item) in self.table.iter() {
            if known.contains(&key) {
                continue;
            }
            let hint = match kiln_plan::nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", kiln_plan::list(known.iter().copied())),
            };
            return Err(self.unknown(key, item, hint));
        }
        Ok(())
    }

    /// Rejects the keys in `others`, which are valid elsewhere; `hint` says where.
    pub(super) fn none_of(&self, others: &[&str], hint: &str) -> Result<(), Error> {
        match self.table.iter().find(|(key, _)| others.contains(key)) {
            Some((key, item)) => Err(self.unknown(key, item, hint.to_owned())),
            None => Ok(()),
        }
    }

    fn unknown(&self, key: &str, item: &Item, hint: String) -> Error {
        let span = self.table.key(key).and_then(|k| k.span()).or_else(|| item.span());
        Error::UnknownKey {
            line: line(self.text, span.map_or(self.offset, |s| s.start)),
            key: key.to_owned(),
            table: self.name.clone(),
            hint,
        }
    }

    /// The table at `key`, if there is one.
    pub(super) fn table(&self, key: &str) -> Result<Option<Reader<'a>>, Error> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        let table = item.as_table_like().ok_or_else(|| self.wrong(key, item, "a table"))?;
        let span = self.table.key(key).and_then(|k| k.span()).or_else(|| item.span());
        let offset = span.map_or(self.offset, |s| s.start);
        Ok(Some(Reader { text: self.text, table, name: format!("`[{key}]`"), offset, left_out: None }))
    }

    /// The tables under `key` in order, each with its name.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<(String, Reader<'a>)>, Error> {
        let Some(item) = self.table.get(key) else {
            return Ok(Vec::new());
        };
        let table = item.as_table_like().ok_or_else(|| self.wrong(key, item, "a table of tables"))?;
        let mut tables = Vec::new();
        for (name, item) in table.iter() {
            let inner = item.as_table_like().ok_or_else(|| self.wrong(&format!("{key}.{name}"), item, "a table"))?;
            let span = table.key(name).and_then(|k| k.span()).or_else(|| item.span());
            tables.push((
                name.to_owned(),
                Reader {
                    text: self.text,
                    table: inner,
                    name: format!("`[{key}.{name}]`"),
                    offset: span.map_or(self.offset, |s| s.start),
                    left_out: None,
                },
            ));
        }
        Ok(tables)
    }

    /// The same table, of which a key is read in another way.
    pub(super) fn without(&self, key: &'a str) -> Self {
        Reader { text: self.text, table: self.table, name: self.name.clone(), offset: self.offset, left_out: Some(key) }
    }

    /// Whether the value of the key is a string.
    pub(super) fn is_string(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Item::is_str)
    }

    /// Whether the key exists, with any value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<String>, Error> {
        self.get(key, "a string", |item| item.as_str().map(str::to_owned))
    }

    pub(super) fn required_string(&self, key: &str) -> Result<String, Error> {
        self.string(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        Error::MissingKey { line: line(self.text, self.offset), table: self.name.clone(), key: key.to_owned() }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.get(key, "`true` or `false`", Item::as_bool)
    }

    /// `false` is another word for `"off"`, `true` for `"auto"`.
    pub(super) fn split(&self, key: &str) -> Result<Option<Split>, Error> {
        self.get(key, "`\"auto\"`, `\"cache\"` or `false`", |item| match (item.as_bool(), item.as_str()) {
            (Some(on), _) => Some(if on { Split::Auto } else { Split::Off }),
            (None, name) => Split::ALL.into_iter().find(|split| Some(split.name()) == name),
        })
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Error> {
        self.get(key, "an integer", Item::as_integer)
    }

    /// An integer, or this word: then it is `None` within.
    pub(super) fn integer_or(&self, key: &str, word: &str) -> Result<Option<Option<i64>>, Error> {
        self.get(key, "an integer or `\"auto\"`", |item| {
            item.as_integer().map(Some).or_else(|| (item.as_str() == Some(word)).then_some(None))
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.get(key, "a number", |item| item.as_float().or_else(|| item.as_integer().map(|n| n as f64)))
    }

    /// A list of strings; a single string is a list of one.
    pub(super) fn strings(&self, key: &str) -> Result<Vec<String>, Error> {
        let strings = self.get(key, "a list of strings", |item| match item.as_str() {
            Some(one) => Some(vec![one.to_owned()]),
            None => item.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        })?;
        Ok(strings.unwrap_or_default())
    }

    /// A table of strings; integers and booleans are converted to strings.
    pub(super) fn string_map(&self, key: &str) -> Result<BTreeMap<String, String>, Error> {
        let map = self.get(key, "a table of strings", |item| {
            item.as_table_like()?
                .iter()
                .map(|(name, value)| {
                    let text = match value.as_value()? {
                        Value::String(s) => s.value().clone(),
                        Value::Integer(n) => n.value().to_string(),
                        Value::Boolean(b) => b.value().to_string(),
                        _ => return None,
                    };
                    Some((name.to_owned(), text))
                })
                .collect()
        })?;
        Ok(map.unwrap_or_default())
    }

    /// The values of a list whose elements `read` accepts.
    pub(super) fn list<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let list = self.get(key, expected, |item| match item.as_array() {
            Some(array) => array.iter().map(&read).collect(),
            None => item.as_value().and_then(&read).map(|one| vec![one]),
        })?;
        Ok(list.unwrap_or_default())
    }

    /// The error for an invalid value of `key`.
    pub(super) fn bad(&self, key: &str, value: impl ToString, expected: impl Into<String>) -> Error {
        Error::BadValue {
            line: self.line_of(key),
            key: key.to_owned(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    fn get<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Item) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.table.get(key).filter(|_| self.left_out != Some(key)) {
            None => Ok(None),
            Some(item) => read(item).map(Some).ok_or_else(|| self.wrong(key, item, expected)),
        }
    }

    fn wrong(&self, key: &str, item: &Item, expected: &'static str) -> Error {
        let found = match item.type_name() {
            "string" => "a string",
            "integer" => "an integer",
            "float" => "a float",
            "boolean" => "a boolean",
            "array" => "a list with something else in it",
            "datetime" => "a date",
            _ => "a table",
        };
        let found = match (found, expected.contains("list")) {
            ("a list with something else in it", false) => "a list",
            _ => found,
        };
        let at = item.span().map_or(self.offset, |s| s.start);
        Error::WrongType { line: line(self.text, at), key: key.to_owned(), expected, found }
    }

    fn line_of(&self, key: &str) -> usize {
        let span = self.table.get(key).and_then(Item::span);
        line(self.text, span.map_or(self.offset, |s| s.start))
    }
}

/// The line number, from 1, of a byte offset in `text`.
pub(super) fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count().saturating_add(1)
}
