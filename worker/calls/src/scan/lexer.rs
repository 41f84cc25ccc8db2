//! Finds the directives of a file.
//!
//! Sources: translation phases of C11 5.1.1.2 and C++17 [lex.phases], and `libcpp/lex.cc` of GCC for what it accepts beyond them.
//! Trigraphs are not read: gcc ignores them without an option, too.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::directives::{Body, Directives, Name, Use};

/// What a file says about others. Any bytes will do.
///
/// Standards of C split some texts differently: then the file is read by each, and all that is found counts. For C++, literals are
/// those of C++14 and later.
pub(super) fn directives(text: &[u8], is_cxx: bool) -> Directives {
    let (mut found, is_ambiguous) = read(text, Dialect::Modern);
    if is_ambiguous && !is_cxx {
        for dialect in [Dialect::Gnu, Dialect::Plain] {
            let (other, _) = read(text, dialect);
            found.uses.extend(other.uses);
            found.macros.extend(other.macros);
        }
        let mut seen = BTreeSet::new();
        found.uses.retain(|named| seen.insert(named.clone()));
        found.first = found.uses.len();
    }
    // In comments too: files that have them are rare.
    found.has_incbin = contains(text, b"incbin");
    found.has_include = contains(text, b".include");
    found
}

/// What a file says in one dialect, and whether another would split it differently.
fn read(text: &[u8], dialect: Dialect) -> (Directives, bool) {
    let mut lexer = Lexer {
        cursor: Cursor::new(text),
        dialect,
        is_ambiguous: false,
        found: Directives::default(),
        seen: BTreeSet::new(),
        conditions: 0,
        included: false,
    };
    lexer.file();
    if !lexer.included {
        lexer.found.first = lexer.found.uses.len();
    }
    (lexer.found, lexer.is_ambiguous)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

/// What literals there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Raw strings, quotes between digits and suffixes: C++14 and later. C23 has the quotes.
    Modern,
    /// Raw strings: GNU C.
    Gnu,
    /// None of them: standard C.
    Plain,
}

struct Lexer<'a> {
    cursor: Cursor<'a>,
    dialect: Dialect,
    is_ambiguous: bool,
    found: Directives,
    seen: BTreeSet<(Use, Name)>,
    /// How many conditions are open.
    conditions: usize,
    /// Whether there was an include outside of conditions.
    included: bool,
}

impl Lexer<'_> {
    fn file(&mut self) {
        let mut at_line_start = true;
        while let Some(byte) = self.cursor.next() {
            match byte {
                b'\n' => at_line_start = true,
                b'#' if at_line_start => self.directive(),
                b'%' if at_line_start && self.cursor.take(b':') => self.directive(),
                b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c' => {}
                b'/' if self.cursor.peek() == Some(b'*') || self.cursor.peek() == Some(b'/') => self.comment(),
                _ => {
                    at_line_start = false;
                    self.token(byte);
                }
            }
        }
    }

    /// Takes a comment whose first slash has been taken.
    fn comment(&mut self) {
        if self.cursor.take(b'*') {
            self.cursor.skip_comment();
        } else {
            self.cursor.skip_line();
        }
    }

    /// Takes a token that begins with `byte`. Only strings, characters and numbers matter: they may have quotes and slashes in them.
    fn token(&mut self, byte: u8) {
        match byte {
            b'"' | b'\'' => self.quoted(byte),
            b'0'..=b'9' => self.number(),
            _ if is_word(byte) => {
                let word = self.word(byte);
                if matches!(&word[..], b"R" | b"LR" | b"uR" | b"UR" | b"u8R") && self.cursor.take(b'"') {
                    self.is_ambiguous = true;
                    if self.dialect != Dialect::Plain && self.cursor.skip_raw_string() {
                        self.suffix();
                    } else {
                        self.quoted(b'"');
                    }
                }
            }
            _ => {}
        }
    }

    /// A string or character whose quote has been taken.
    fn quoted(&mut self, quote: u8) {
        if self.cursor.skip_quoted(quote) {
            self.suffix();
        }
    }

    /// The suffix of a literal. It does not begin a raw string.
    fn suffix(&mut self) {
        while self.dialect == Dialect::Modern && self.cursor.peek().is_some_and(is_word) {
            self.cursor.next();
            self.is_ambiguous |= self.cursor.peek() == Some(b'"');
        }
    }

    /// The rest of a word.
    fn word(&mut self, first: u8) -> Vec<u8> {
        let mut word = vec![first];
        while let Some(byte) = self.cursor.peek().filter(|byte| is_word(*byte)) {
            self.cursor.next();
            word.push(byte);
        }
        word
    }

    /// A number may have single quotes between its digits.
    fn number(&mut self) {
        while let Some(byte) = self.cursor.peek() {
            if byte == b'\'' {
                self.is_ambiguous = true;
                let mut ahead = self.cursor;
                ahead.next();
                if self.dialect != Dialect::Modern || !ahead.peek().is_some_and(is_word) {
                    return;
                }
            } else if !is_word(byte) && byte != b'.' {
                return;
            }
            self.cursor.next();
        }
    }

    /// Takes blanks and comments within a line.
    fn blanks(&mut self) {
        loop {
            match self.cursor.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c') => {
                    self.cursor.next();
                }
                Some(b'/') => {
                    let mut ahead = self.cursor;
                    ahead.next();
                    if !ahead.take(b'*') {
                        return;
                    }
                    ahead.skip_comment();
                    self.cursor = ahead;
                }
                _ => return,
            }
        }
    }

    /// Takes a directive up to the end of its line.
    fn directive(&mut self) {
        self.blanks();
        let Some(first) = self.cursor.peek().filter(|byte| is_word(*byte)) else {
            self.rest();
            return;
        };
        self.cursor.next();
        let name = self.word(first);
        self.blanks();
        match &name[..] {
            b"include" | b"import" => self.include(Use::Include),
            b"include_next" => self.include(Use::IncludeNext),
            b"embed" => self.include(Use::Embed),
            b"define" => self.define(),
            b"pragma" => {
                let rest = self.rest();
                if let Some(dependency) = after_words(&rest, &[b"GCC", b"dependency"]) {
                    self.add(Use::Probe, name_of(dependency));
                }
            }
            other => {
                match other {
                    b"if" | b"ifdef" | b"ifndef" => self.conditions = self.conditions.saturating_add(1),
                    b"endif" => self.conditions = self.conditions.saturating_sub(1),
                    _ => {}
                }
                let rest = self.rest();
                self.probes(&rest);
            }
        }
    }

    fn include(&mut self, used: Use) {
        let name = match self.cursor.peek() {
            Some(open @ (b'<' | b'"')) => {
                self.cursor.next();
                self.header(if open == b'<' { b'>' } else { b'"' })
            }
            _ => name_of(&self.rest()),
        };
        self.add(used, name);
        self.rest();
        if self.conditions == 0 && !self.included && used != Use::Embed {
            self.included = true;
            self.found.first = self.found.uses.len();
        }
    }

    /// A header's name that has begun. In it, nothing is a comment or an escape.
    fn header(&mut self, close: u8) -> Name {
        let mut name = Vec::new();
        while let Some(byte) = self.cursor.peek().filter(|byte| *byte != b'\n') {
            self.cursor.next();
            if byte == close {
                return if close == b'>' { Name::Angled(name) } else { Name::Quoted(name) };
            }
            name.push(byte);
        }
        Name::Expression(name)
    }

    fn define(&mut self) {
        let Some(first) = self.cursor.peek().filter(|byte| is_word(*byte)) else {
            self.rest();
            return;
        };
        self.cursor.next();
        let name = self.word(first);
        let has_parameters = self.cursor.peek() == Some(b'(');
        let body = self.rest();
        self.probes(&body);
        if has_parameters {
            self.found.macros.push((name, Body::Opaque));
        } else if let Some(body) = super::macros::body(&body) {
            self.found.macros.push((name, body));
        }
    }

    /// The rest of the line, with each comment as a blank.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        while let Some(byte) = self.cursor.peek().filter(|byte| *byte != b'\n') {
            self.cursor.next();
            if byte == b'/' && matches!(self.cursor.peek(), Some(b'*' | b'/')) {
                self.comment();
                rest.push(b' ');
                continue;
            }
            let begin = self.cursor;
            self.token(byte);
            rest.push(byte);
            rest.extend_from_slice(self.cursor.since(begin));
        }
        rest
    }

    /// Adds what `__has_include` and its like ask for.
    fn probes(&mut self, text: &[u8]) {
        const PROBES: [(&[u8], Use); 4] = [
            (b"__has_include_next", Use::ProbeNext),
            (b"__has_include__", Use::Probe),
            (b"__has_include", Use::Probe),
            (b"__has_embed", Use::Embed),
        ];
        let mut rest = text;
        while let Some(at) = rest.windows(6).position(|part| part == b"__has_") {
            let (_, probe) = rest.split_at_checked(at).unwrap_or_default();
            let known = PROBES.iter().find_map(|(name, used)| Some((probe.strip_prefix(*name)?, used)));
            let Some((after, used)) = known else {
                rest = probe.get(1..).unwrap_or_default();
                continue;
            };
            rest = after.trim_ascii_start();
            let Some(argument) = rest.strip_prefix(b"(") else { continue };
            let argument = argument.trim_ascii_start();
            let name = match argument.first() {
                Some(b'<') => within(argument, b'>').map(Name::Angled),
                Some(b'"') => within(argument, b'"').map(Name::Quoted),
                _ => up_to(argument, b')').map(name_of),
            };
            self.add(*used, name.unwrap_or_else(|| Name::Expression(argument.to_vec())));
        }
    }

    fn add(&mut self, used: Use, name: Name) {
        if self.seen.insert((used, name.clone())) {
            self.found.uses.push((used, name));
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// What is between the first byte and the next `close`.
fn within(text: &[u8], close: u8) -> Option<Vec<u8>> {
    up_to(text.get(1..)?, close).map(<[u8]>::to_vec)
}

/// What is before the first `close`.
fn up_to(text: &[u8], close: u8) -> Option<&[u8]> {
    text.get(..text.iter().position(|c| *c == close)?)
}

/// A name as an include has it when macros have been left as they are.
pub(super) fn name_of(text: &[u8]) -> Name {
    let text = text.trim_ascii();
    let whole = |close: u8| within(text, close).filter(|name| name.len().saturating_add(2) == text.len());
    match text.first() {
        Some(b'<') => whole(b'>').map(Name::Angled),
        Some(b'"') => whole(b'"').map(Name::Quoted),
        Some(first) if is_word(*first) && !first.is_ascii_digit() && text.iter().all(|c| is_word(*c)) => {
            Some(Name::Macro(text.to_vec()))
        }
        _ => None,
    }
    .unwrap_or_else(|| Name::Expression(text.to_vec()))
}

/// What follows these words.
fn after_words<'a>(text: &'a [u8], words: &[&[u8]]) -> Option<&'a [u8]> {
    words.iter().try_fold(text, |rest, word| rest.trim_ascii_start().strip_prefix(*word))
}

#[cfg(test)]
mod tests;
