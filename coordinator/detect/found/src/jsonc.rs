//! JSON as tools for JavaScript write it: with comments, and with commas after the last element.

/// The same text as plain JSON: what is no JSON becomes spaces, so that places in error messages stay right.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    // The byte of a comma that may turn out to be the last one.
    let mut comma: Option<usize> = None;
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('"', _) => {
                comma = None;
                out.push('"');
                string(&mut rest, &mut out);
            }
            ('/', Some('/')) => {
                out.push(' ');
                while let Some(c) = rest.next_if(|c| *c != '\n') {
                    out.push(if c.is_whitespace() { c } else { ' ' });
                }
            }
            ('/', Some('*')) => {
                out.push(' ');
                let mut last = ' ';
                for c in rest.by_ref() {
                    out.push(if c == '\n' { '\n' } else { ' ' });
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            (',', _) => {
                comma = Some(out.len());
                out.push(',');
            }
            (']' | '}', _) => {
                if let Some(at) = comma.take() {
                    out.replace_range(at..=at, " ");
                }
                out.push(c);
            }
            _ => {
                if !c.is_whitespace() {
                    comma = None;
                }
                out.push(c);
            }
        }
    }
    out
}

/// The rest of a string.
fn string(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    while let Some(c) = rest.next() {
        out.push(c);
        match c {
            '\\' => out.extend(rest.next()),
            '"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn comments_and_last_commas_go_and_strings_stay() {
        let text = "{ // ä, comment\n \"a//b\": [1, 2, /* x, */ ], \"c\\\"\": \"/*,]*/\",\n}";
        let value: serde_json::Value = serde_json::from_str(&plain(text)).unwrap();
        assert_eq!(value, serde_json::json!({ "a//b": [1, 2], "c\"": "/*,]*/" }));
        for broken in ["", "/*", "//", "\"\\", "{\"a\": 1,, }"] {
            assert!(serde_json::from_str::<serde_json::Value>(&plain(broken)).is_err(), "{broken}");
        }
    }
}
