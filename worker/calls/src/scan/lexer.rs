//! Finds the directives of a file.
//!
//! Sources: translation phases of C11 5.1.1.2 and C++17 [lex.phases], and `libcpp/lex.cc` of GCC for what it accepts beyond them.
//! Trigraphs are not read: gcc ignores them without an option, too.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::directives::{Body, Directives, Name, Use};

/// What a file says about others. Any bytes will do.
pub(super) fn directives(text: &[u8]) -> Directives {
    let mut lexer = Lexer {
        cursor: Cursor::new(text),
        found: Directives::default(),
        seen: BTreeSet::new(),
        conditions: 0,
        included: false,
    };
    lexer.file();
    if !lexer.included {
        lexer.found.first = lexer.found.uses.len();
    }
    // In comments too: files that have them are rare.
    lexer.found.has_incbin = contains(text, b"incbin");
    lexer.found.has_include = contains(text, b".include");
    lexer.found
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

struct Lexer<'a> {
    cursor: Cursor<'a>,
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
            b'"' | b'\'' => self.cursor.skip_quoted(byte),
            b'0'..=b'9' => self.number(),
            _ if is_word(byte) => {
                let word = self.word(byte);
                if matches!(&word[..], b"R" | b"LR" | b"uR" | b"UR" | b"u8R") && self.cursor.take(b'"') {
                    // If it is no raw string, it is a macro and a string.
                    if !self.cursor.skip_raw_string() {
                        self.cursor.skip_quoted(b'"');
                    }
                }
            }
            _ => {}
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
                let mut ahead = self.cursor;
                ahead.next();
                if !ahead.peek().is_some_and(is_word) {
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
                    b"if" | b"ifdef" | b"ifndef" => self.conditions += 1,
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
            let begin = self.cursor.at();
            self.token(byte);
            rest.push(byte);
            rest.extend_from_slice(self.cursor.written(begin..self.cursor.at()));
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
            rest = &rest[at..];
            let Some((name, used)) = PROBES.iter().find(|(name, _)| rest.starts_with(name)) else {
                rest = &rest[1..];
                continue;
            };
            rest = rest[name.len()..].trim_ascii_start();
            let Some(argument) = rest.strip_prefix(b"(") else { continue };
            let argument = argument.trim_ascii_start();
            let name = match argument.first() {
                Some(b'<') => within(argument, b'>').map(Name::Angled),
                Some(b'"') => within(argument, b'"').map(Name::Quoted),
                _ => argument.iter().position(|c| *c == b')').map(|end| name_of(&argument[..end])),
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
    let inner = text.get(1..)?;
    Some(inner[..inner.iter().position(|c| *c == close)?].to_vec())
}

/// A name as an include has it when macros have been left as they are.
pub(super) fn name_of(text: &[u8]) -> Name {
    let text = text.trim_ascii();
    let whole = |close: u8| within(text, close).filter(|name| name.len() + 2 == text.len());
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
mod tests {
    use super::*;

    fn uses(text: &str) -> Vec<String> {
        let shown = |name: &Name| match name {
            Name::Quoted(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
            Name::Angled(name) => format!("<{}>", String::from_utf8_lossy(name)),
            Name::Macro(name) => format!("macro {}", String::from_utf8_lossy(name)),
            Name::Expression(text) => format!("expression {}", String::from_utf8_lossy(text)),
        };
        directives(text.as_bytes()).uses.iter().map(|(used, name)| format!("{used:?} {}", shown(name))).collect()
    }

    #[test]
    fn includes_are_found_however_they_are_written() {
        let text = "#include \"a.h\"\n  #  include <b/c.h> // why\n#import <d.h>\n/* x */ # /* y */ include /* z */ <e.h>\n\
                    %:include <f.h>\n#include_next <g.h>\n#include\"h.h\"\n#include <a//b.h>\n#include <a/*b.h>\n#embed \"i\" limit(1)";
        let expected = "Include \"a.h\",Include <b/c.h>,Include <d.h>,Include <e.h>,Include <f.h>,IncludeNext <g.h>,Include \"h.h\",\
                        Include <a//b.h>,Include <a/*b.h>,Embed \"i\"";
        assert_eq!(uses(text).join(","), expected);
    }

    #[test]
    fn both_branches_are_taken() {
        assert_eq!(uses("#if 0\n#include <a.h>\n#else\n#include <b.h>\n#endif"), ["Include <a.h>", "Include <b.h>"]);
    }

    #[test]
    fn lines_continue_after_a_backslash() {
        assert_eq!(uses("#inc\\\nlude <a\\  \n.h>\n# \\\n include <b.h>"), ["Include <a.h>", "Include <b.h>"]);
        assert_eq!(uses("// comment \\\n#include <no.h>\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("#define X \\\n#include <no.h>\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("/\\\n* #include <x.h>\n#include <no.h> *\\\n/\n#include <a.h>"), ["Include <a.h>"]);
    }

    #[test]
    fn comments_and_strings_hide_directives_and_each_other() {
        assert_eq!(uses("/*\n#include <no.h>\n*/\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("char *s = \"/*\";\n#include <a.h>\nchar *t = \"*/\";"), ["Include <a.h>"]);
        assert_eq!(uses("char c = '\"'; char d = '\\''; /*\n#include <no.h>\n*/\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("char *s = \"a\\\"/*\";\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("#define X /* begins\n#include <no.h> */ 1\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("#error don't /* here\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("x = \"open\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("x #include <no.h>"), [""; 0]);
    }

    #[test]
    fn raw_strings_are_text() {
        let text = "auto s = R\"(\n#include <no.h>\n/* \" )\" ;\n#include <a.h>\nauto t = u8R\"x(\n#include <no.h>\n)\" )x\";\n#include <b.h>";
        assert_eq!(uses(text), ["Include <a.h>", "Include <b.h>"]);
        assert_eq!(uses("R\"(a\\\n)\"\n#include <a.h>"), ["Include <a.h>"]);
        assert_eq!(uses("#define X R\"(\n#include <no.h>\n)\"\n#include <a.h>"), ["Include <a.h>"]);
        // Not raw: no delimiter, or another identifier before it.
        assert_eq!(uses("R\"x y\"\n#include <a.h>\nFOOR\"(\"\n#include <b.h>"), ["Include <a.h>", "Include <b.h>"]);
    }

    #[test]
    fn quotes_between_digits_are_no_characters() {
        assert_eq!(
            uses("int x = 1'000'000; /* ' */ int y = 0x'ff'; int z = 1'0; char c = '/'; /*\n#include <no.h>\n*/"),
            [""; 0]
        );
        assert_eq!(uses("int x = 1'0; // '\n#include <a.h>"), ["Include <a.h>"]);
    }

    #[test]
    fn what_is_asked_for_is_found() {
        let text = "#if defined(__has_include) && __has_include(<a.h>) || __has_include ( \"b.h\" )\n#elif __has_include_next(<c.h>)\n\
                    #elif __has_embed(\"d\" limit(1))\n#endif\n#define HAS __has_include(<e.h>)\n#if __has_include(X)\n#endif";
        let expected = "Probe <a.h>,Probe \"b.h\",ProbeNext <c.h>,Embed \"d\",Probe <e.h>,Probe macro X";
        assert_eq!(uses(text).join(","), expected);
    }

    #[test]
    fn a_dependency_of_a_pragma_is_found() {
        assert_eq!(uses("#pragma GCC dependency \"a.y\"\n#pragma once\n#pragma GCC system_header"), ["Probe \"a.y\""]);
    }

    #[test]
    fn the_first_include_is_one_of_the_first() {
        let first = |text: &str| directives(text.as_bytes()).first;
        assert_eq!(first("#include <a.h>\n#include <b.h>"), 1);
        assert_eq!(first("#ifdef X\n#include <a.h>\n#else\n#include <b.h>\n#endif\n#include <c.h>\n#include <d.h>"), 3);
        assert_eq!(first("#if X\n#include <a.h>\n#endif\n#if Y\n#include <b.h>\n#endif"), 2);
    }

    #[test]
    fn computed_includes_are_told_from_names() {
        assert_eq!(
            uses("#include CONFIG\n#include MAKE(x)\n#include <a.h\n"),
            ["Include macro CONFIG", "Include expression MAKE(x)", "Include expression a.h"]
        );
        let text = "#define A \"a.h\"\n#define B <b.h> // x\n#define C A\n#define D(x) x\n#define E 1\n#define F\n#define G A B";
        let macros = directives(text.as_bytes()).macros;
        let kinds: Vec<_> = macros.iter().map(|(name, body)| (name[0] as char, *body == Body::Opaque)).collect();
        assert_eq!(kinds, [('A', false), ('B', false), ('C', false), ('D', true), ('G', true)]);
    }

    #[test]
    fn files_that_the_assembler_reads_are_noticed() {
        assert!(directives(b"asm(\".incbin \\\"x\\\"\");").has_incbin);
        assert!(directives(b"asm(\".incbin\" \" \\\"x\\\"\");").has_incbin);
        assert!(directives(b"  .include \"x.s\"").has_include);
        assert!(!directives(b"#include <x.h>").has_include);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(text: Vec<u8>) {
            directives(&text);
        }

        #[test]
        fn pieces_of_source_are_read(pieces in proptest::collection::vec("[#\"'\\\\\n /*<>()R%:0a]|include|define|__has_include", 0..40)) {
            directives(pieces.concat().as_bytes());
        }
    }
}
