//! Names of steps for people: an instruction of a Dockerfile may be pages long.

/// Longest name of a step in a line or a table, in characters.
const LONGEST: usize = 60;

/// A step's name in one short piece: the instruction's place, and how it begins.
pub fn brief(step: &str) -> String {
    // The place is kept as it is: numbers in it are aligned.
    let at = title(step).map_or(0, str::len);
    let (place, rest) = step.split_at(at);
    let words: Vec<&str> = rest.split_whitespace().collect();
    let space = if at > 0 && !words.is_empty() { " " } else { "" };
    let name = format!("{place}{space}{}", words.join(" "));
    match name.char_indices().nth(LONGEST) {
        None => name,
        Some(_) => {
            let end = name.char_indices().nth(LONGEST - 1).map_or(name.len(), |(end, _)| end);
            format!("{}…", name[..end].trim_end())
        }
    }
}

/// Whether a step is the one that was asked for: by its name, or an instruction's by its place alone, as in `[build 2/5]`.
pub fn is_called(step: &str, asked: &str) -> bool {
    step == asked || title(step).is_some_and(|title| title == asked)
}

/// What to write in a shell for a step: an instruction's place, or the name.
pub fn in_shell(step: &str) -> String {
    let name = title(step).unwrap_or(step);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '+');
    if !name.is_empty() && name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

/// The place of an instruction, in brackets.
fn title(step: &str) -> Option<&str> {
    let end = step.find("] ")?;
    step.starts_with('[').then(|| &step[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_short_and_is_found_by_its_place() {
        let name =
            "[build  2/12] RUN set -eux; \tapt-get update;\n apt-get install --yes --no-install-recommends gcc make";
        assert_eq!(brief(name), "[build  2/12] RUN set -eux; apt-get update; apt-get install…");
        assert_eq!(brief("compile"), "compile");
        assert_eq!(brief(&"é".repeat(61)), format!("{}…", "é".repeat(59)));
        assert!(is_called(name, name) && is_called(name, "[build  2/12]") && is_called("compile", "compile"));
        assert!(!is_called(name, "[build  2/1") && !is_called("compile", "comp"));
        assert_eq!((in_shell(name), in_shell("compile")), ("'[build  2/12]'".into(), "compile".into()));
        assert_eq!(in_shell("it's"), "'it'\\''s'");
    }
}
