//! One pass over a text: quotes, escapes, and where words begin and end.

use super::{Error, Expanded, Lexer, MAX_EXPANDED, Variables};

/// Maximum number of `${…}` within each other.
const MAX_DEPTH: usize = 64;

/// The state of a pass.
pub(super) struct Scan<'a> {
    pub(super) lexer: Lexer,
    pub(super) variables: &'a dyn Variables,
    rest: std::str::Chars<'a>,
    depth: usize,
    /// The names that were asked for.
    pub(super) result: Expanded,
}

/// Words as they are collected.
#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
}

impl Words {
    fn push(&mut self, c: char) {
        if c.is_whitespace() { self.end() } else { self.word.push(c) }
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Scan<'a> {
    pub(super) fn new(lexer: Lexer, text: &'a str, variables: &'a dyn Variables) -> Self {
        Self { lexer, variables, rest: text.chars(), depth: 0, result: Expanded::default() }
    }

    pub(super) fn run(mut self) -> Result<Expanded, Error> {
        let (text, words) = self.until(None, self.lexer.keep_escapes)?;
        Ok(Expanded { text, words, ..self.result })
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    /// A text within `${…}`, up to a character, which is consumed.
    pub(super) fn nested(&mut self, stop: char, keep_escapes: bool) -> Result<String, Error> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            return Err(Error::Deep(MAX_DEPTH));
        }
        let (text, _) = self.until(Some(stop), keep_escapes)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(text)
    }

    /// Everything up to a character, which is consumed, or up to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<(String, Vec<String>), Error> {
        let mut text = String::new();
        let mut words = Words::default();
        let quotes = !self.lexer.ignore_quotes;
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                words.end();
                return Ok((text, words.words));
            }
            match c {
                '\'' if quotes => {
                    let raw = self.single_quoted()?;
                    text.push_str(&raw);
                    words.word.push_str(&raw);
                }
                '"' if quotes => {
                    let raw = self.double_quoted(keep_escapes)?;
                    text.push_str(&raw);
                    words.word.push_str(&raw);
                }
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(c));
                    text.push_str(&value);
                }
                '<' => {
                    let raw = self.less_than();
                    text.push_str(&raw);
                    words.word.push_str(&raw);
                }
                _ => {
                    self.next();
                    self.plain(c, keep_escapes, &mut text, &mut words);
                }
            }
            if text.len() > MAX_EXPANDED {
                return Err(Error::Long);
            }
        }
        words.end();
        if stop.is_some() { Err(Error::Brace) } else { Ok((text, words.words)) }
    }

    fn plain(&mut self, c: char, keep_escapes: bool, text: &mut String, words: &mut Words) {
        if c != self.lexer.escape {
            text.push(c);
            words.push(c);
            return;
        }
        if keep_escapes {
            text.push(c);
            words.word.push(c);
        }
        // An escape character at the very end is dropped.
        if let Some(escaped) = self.next() {
            text.push(escaped);
            words.word.push(escaped);
        }
    }

    /// `'…'`: nothing in it has a meaning.
    fn single_quoted(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        text.extend(self.next().filter(|_| self.lexer.keep_quotes));
        loop {
            match self.next() {
                None => return Err(Error::Quote("single")),
                Some('\'') => {
                    text.extend(self.lexer.keep_quotes.then_some('\''));
                    return Ok(text);
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// `"…"`: variables are expanded, and a quote, a `$` and the escape character can be escaped.
    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, Error> {
        let mut text = String::new();
        text.extend(self.next().filter(|_| self.lexer.keep_quotes));
        loop {
            match self.peek() {
                None => return Err(Error::Quote("double")),
                Some('"') => {
                    text.extend(self.next().filter(|_| self.lexer.keep_quotes));
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    if c == self.lexer.escape {
                        text.extend(keep_escapes.then_some(c));
                        match self.peek() {
                            // At the end, the missing quote is reported.
                            None => {}
                            Some(escaped) if matches!(escaped, '"' | '$') || escaped == c => {
                                text.push(escaped);
                                self.next();
                            }
                            Some(_) => text.push(c),
                        }
                    } else {
                        text.push(c);
                    }
                }
            }
            if text.len() > MAX_EXPANDED {
                return Err(Error::Long);
            }
        }
    }

    /// `<<` and the white space after it belong to the word that follows, which may name a heredoc.
    fn less_than(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut text = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            text.push(c);
            self.next();
        }
        text
    }
}
