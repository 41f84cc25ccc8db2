//! `$NAME`, `${NAME}` and `${NAME…}` with its operators.

use super::pattern::Pattern;
use super::scan::Scan;
use super::{Error, MAX_EXPANDED};

impl Scan<'_> {
    /// What stands after a `$`, which is the next character.
    pub(super) fn dollar(&mut self) -> Result<String, Error> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match self.value(&name) {
                _ if name.is_empty() => "$".to_owned(),
                Some(value) => value,
                None if self.lexer.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(Error::Brace),
            Some('{' | '}' | ':') => return Err(Error::Name),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(Error::Brace),
            Some('}') => Ok(match self.value(&name) {
                Some(value) => value,
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => self.choose(&name, operator, true),
                None => Err(Error::Brace),
                Some(other) => Err(Error::Operator { name, operator: format!(":{other}") }),
            },
            Some(operator @ ('-' | '+' | '?')) => self.choose(&name, operator, false),
            Some(operator @ ('#' | '%')) => self.trim(&name, operator),
            Some('/') => self.replace(&name),
            Some(other) => Err(Error::Operator { name, operator: other.to_string() }),
        }
    }

    /// `-`, `+` and `?`, where an empty value may count as none.
    fn choose(&mut self, name: &str, operator: char, empty_is_unset: bool) -> Result<String, Error> {
        let word = self.nested('}', false)?;
        let value = self.value(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let missing = match &value {
            None => true,
            Some(value) => empty_is_unset && value.is_empty(),
        };
        match (operator, missing) {
            ('-', true) | ('+', false) => Ok(word),
            ('+', true) => Ok(String::new()),
            ('?', true) => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let message = if word.is_empty() { format!("must not be {state}") } else { word };
                Err(Error::Required { name: name.to_owned(), message })
            }
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// `#` and `%` remove the shortest match of a pattern from the beginning or the end, `##` and `%%` the longest.
    fn trim(&mut self, name: &str, operator: char) -> Result<String, Error> {
        let word = self.nested('}', true)?;
        let Some(value) = self.value(name) else {
            let unset = if self.lexer.keep_unset { format!("${{{name}{operator}{word}}}") } else { String::new() };
            return Ok(unset);
        };
        let (pattern, longest) = match word.strip_prefix(operator) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let pattern = Pattern::read(pattern)?;
        if operator == '#' { pattern.trim_start(&value, longest) } else { pattern.trim_end(&value, longest) }
    }

    /// `/` replaces the first match of a pattern, `//` all.
    fn replace(&mut self, name: &str) -> Result<String, Error> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.nested('/', true).map_err(|error| match error {
            Error::Brace => Error::Slash(name.to_owned()),
            other => other,
        })?;
        let replacement = self.nested('}', true)?;
        let Some(value) = self.value(name) else {
            let slashes = if all { "//" } else { "/" };
            let unset = format!("${{{name}{slashes}{pattern}/{replacement}}}");
            return Ok(if self.lexer.keep_unset { unset } else { String::new() });
        };
        let replaced = Pattern::read(&pattern)?.replace(&value, &replacement, all)?;
        if replaced.len() > MAX_EXPANDED { Err(Error::Long) } else { Ok(replaced) }
    }

    /// A name: letters, digits and `_`, or only digits, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if name.is_empty() && c.is_numeric() {
                while let Some(digit) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(digit);
                    self.next();
                }
                return name;
            }
            if name.is_empty() && "@*#?-$!".contains(c) {
                self.next();
                return c.to_string();
            }
            if !(c.is_alphanumeric() || c == '_') {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        let value = self.variables.get(name).map(str::to_owned);
        let names = if value.is_some() { &mut self.result.used } else { &mut self.result.unset };
        names.insert(name.to_owned());
        value
    }
}
