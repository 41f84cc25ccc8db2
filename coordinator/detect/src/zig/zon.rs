//! Parses Zig's object notation (`build.zig.zon`), as far as a manifest uses it.
//!
//! Invariant: reading ends for every input, and never deeper than [`DEEPEST`].

use std::collections::BTreeMap;

/// Nesting that no manifest reaches.
const DEEPEST: usize = 32;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A string, an enum literal, a number or a word.
    Text(String),
    /// A struct.
    Table(BTreeMap<String, Value>),
    /// A tuple.
    List(Vec<Value>),
}

impl Value {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Table(table) => table.get(key),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads a file.
///
/// # Errors
/// What was expected, and at which line.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.rest().is_empty() { Ok(value) } else { Err(reader.expected("the end")) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn expected(&self, what: &str) -> String {
        let line = self.text.bytes().take(self.at).filter(|byte| *byte == b'\n').count().saturating_add(1);
        format!("line {line}: expected {what}")
    }

    /// Skips white space and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.skip(rest.len().saturating_sub(trimmed.len()));
            if !trimmed.starts_with("//") {
                return;
            }
            self.skip(trimmed.find('\n').unwrap_or(trimmed.len()));
        }
    }

    fn takes(&mut self, word: &str) -> bool {
        self.space();
        let there = self.rest().starts_with(word);
        self.skip(if there { word.len() } else { 0 });
        there
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(self.expected("fewer levels"));
        }
        if self.takes(".{") {
            return self.inside(depth);
        }
        if self.takes("\"") {
            return Ok(Value::Text(self.string()?));
        }
        if self.rest().starts_with("\\\\") {
            return Err(self.expected("a string on one line"));
        }
        let _ = self.takes(".");
        Ok(Value::Text(self.word()?))
    }

    /// The rest of a struct or tuple.
    fn inside(&mut self, depth: usize) -> Result<Value, String> {
        let (mut table, mut list) = (BTreeMap::new(), Vec::new());
        while !self.takes("}") {
            let begin = self.at;
            let key = if self.takes(".") && !self.rest().starts_with('{') { self.word().ok() } else { None };
            match key.filter(|_| self.takes("=")) {
                Some(key) => {
                    table.insert(key, self.value(depth.saturating_add(1))?);
                }
                None => {
                    self.at = begin;
                    list.push(self.value(depth.saturating_add(1))?);
                }
            }
            if !self.takes(",")
                && !{
                    self.space();
                    self.rest().starts_with('}')
                }
            {
                return Err(self.expected("`,` or `}`"));
            }
        }
        Ok(if list.is_empty() { Value::Table(table) } else { Value::List(list) })
    }

    /// An identifier, a number, or `@"any name"`.
    fn word(&mut self) -> Result<String, String> {
        if self.takes("@\"") {
            return self.string();
        }
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
        self.skip(end);
        if end == 0 { Err(self.expected("a value")) } else { Ok(rest.split_at(end).0.to_owned()) }
    }

    /// The rest of a string.
    fn string(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.skip(at.saturating_add(1));
                    return Ok(out);
                }
                '\\' => out.extend(chars.next().map(|(_, c)| if c == 'n' { '\n' } else { c })),
                '\n' => break,
                c => out.push(c),
            }
        }
        Err(self.expected("the end of a string"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_and_what_is_none_is_refused_with_its_line() {
        let text = ".{\n  .name = .clock, // a name\n  .version = \"1.4.0\",\n  .fingerprint = 0xbe7b,\n  \
                    .dependencies = .{ .@\"a b\" = .{ .path = \"x\\\"y\" }, },\n  .paths = .{ \"src\", .{} },\n}\n";
        let root = read(text).unwrap();
        assert_eq!(root.get("name").and_then(Value::text), Some("clock"));
        let dependency = root.get("dependencies").and_then(|all| all.get("a b"));
        assert_eq!(dependency.and_then(|one| one.get("path")?.text()), Some("x\"y"));
        assert_eq!(read(".{\n.a = ,\n}"), Err("line 2: expected a value".to_owned()));
        assert_eq!(read(".{ .a = 1 .b = 2 }"), Err("line 1: expected `,` or `}`".to_owned()));
        for broken in ["", ".{", ".{ .a = \"", ".{ .a = \"\\", &".{".repeat(10_000), ".{ .a = .{ .b", "}", ".{} x"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
