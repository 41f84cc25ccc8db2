//! Instructions as text again, in one form: a line each, without comments.

use crate::text::{Arguments, Node, Text};

/// The text of a list of instructions. Read again, it gives the same instructions.
pub fn print(text: &Text) -> String {
    let escape = text.directives.escape;
    let mut printed = String::new();
    if escape != '\\' {
        printed.push_str(&format!("# escape={escape}\n"));
    }
    for node in &text.nodes {
        let mut line = line(node, escape);
        if line.is_empty() {
            // Only a line that was to be continued, and was not, has nothing in it. An empty line would be no instruction.
            line.push(escape);
        } else if line.trim_end_matches([' ', '\t']).ends_with(escape) {
            // It would join the line with the next one; this white space is not part of the line.
            line.push('\u{b}');
        }
        printed.push_str(&line);
        printed.push('\n');
        for heredoc in &node.heredocs {
            printed.push_str(&format!("{}{}\n", heredoc.content, heredoc.name));
        }
    }
    if printed.starts_with('\u{feff}') {
        // As the first character of a file it would be a mark of the encoding, and no letter.
        printed.insert(0, '\n');
    }
    printed
}

fn line(node: &Node, escape: char) -> String {
    let mut parts = vec![node.keyword.value.clone()];
    parts.extend(node.flags.iter().map(|flag| quoted(&flag.value, escape)));
    let arguments = match (&node.trigger, &node.arguments) {
        (Some(trigger), _) => line(trigger, escape),
        (None, Arguments::Text(word)) => word.value.clone(),
        (None, Arguments::Words(words)) => words.iter().map(|word| word.value.as_str()).collect::<Vec<_>>().join(" "),
        (None, Arguments::Json(words)) => {
            serde_json::to_string(&words.iter().map(|word| &word.value).collect::<Vec<_>>()).unwrap_or_default()
        }
        (None, Arguments::Pairs(pairs)) => {
            let pair = |pair: &crate::text::Pair| {
                let between = if pair.is_legacy { " " } else { "=" };
                format!("{}{between}{}", pair.name.value, pair.value.value)
            };
            pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
    };
    let first = node.check.as_ref().map_or(arguments.as_str(), |check| check.value.as_str());
    if first.starts_with("--") {
        parts.push("--".to_owned());
    }
    parts.extend(node.check.iter().map(|check| check.value.clone()));
    parts.extend(Some(arguments).filter(|arguments| !arguments.is_empty()));
    parts.join(" ")
}

/// A flag, in quotes if it contains what would end it.
fn quoted(flag: &str, escape: char) -> String {
    let is_plain = !flag.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'') || c == escape);
    if is_plain && flag != "--" && !flag.is_empty() {
        return flag.to_owned();
    }
    // The two dashes are outside, so that it is seen as a flag.
    let rest = flag.strip_prefix("--").unwrap_or(flag);
    let mut quoted = "--\"".to_owned();
    for c in rest.chars() {
        if c == '"' || c == escape {
            quoted.push(escape);
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
