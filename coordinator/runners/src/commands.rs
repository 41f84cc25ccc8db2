//! The commands of a shell's text: as much of its grammar as it takes to find a test runner among them.
//!
//! Invariant: what is not understood, such as a here-document or a command within quotes, has no commands.

/// A word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Where it begins.
    pub(crate) at: usize,
    /// The word as it is written.
    pub(crate) text: String,
}

/// The simple commands of a text, each as its words.
pub(crate) fn commands(text: &str) -> Vec<Vec<Word>> {
    if text.contains("<<") {
        return Vec::new();
    }
    let (mut all, mut words) = (Vec::new(), Vec::new());
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut comment = false;
    for (at, c) in text.char_indices() {
        if comment && c != '\n' {
            continue;
        }
        comment = false;
        let is_plain = quote.is_none() && !escaped;
        match c {
            '#' if is_plain && word.is_none() => {
                comment = true;
                continue;
            }
            ';' | '&' | '|' | '(' | ')' | '\n' | '`' if is_plain => {
                words.extend(word.take());
                if !words.is_empty() {
                    all.push(std::mem::take(&mut words));
                }
                continue;
            }
            ' ' | '\t' | '\r' if is_plain => {
                words.extend(word.take());
                continue;
            }
            // The end of a line that goes on in the next.
            '\n' if escaped => {
                escaped = false;
                if let Some(word) = word.take_if(|word| word.text == "\\") {
                    drop(word);
                } else if let Some(word) = &mut word {
                    word.text.pop();
                }
                continue;
            }
            '\'' | '"' if !escaped && quote.is_none_or(|open| open == c) => {
                quote = if quote.is_some() { None } else { Some(c) };
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped && quote != Some('\'');
        word.get_or_insert_with(|| Word { at, text: String::new() }).text.push(c);
    }
    // A quote that does not end.
    if quote.is_some() {
        return Vec::new();
    }
    words.extend(word);
    if !words.is_empty() {
        all.push(words);
    }
    all
}

/// Whether a word sets a variable for the command behind it.
pub(crate) fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let words = |command: &Vec<Word>| command.iter().map(|word| word.text.clone()).collect();
        commands(text).iter().map(words).collect()
    }

    #[test]
    fn commands_end_where_the_shell_ends_them() {
        assert_eq!(
            words("a b; c && (d 'e f' | g) # h; i\nj"),
            [&["a", "b"][..], &["c"], &["d", "'e f'"], &["g"], &["j"]]
        );
        assert_eq!(words("a \\\n  b\\ c\nd"), [&["a", "b\\ c"][..], &["d"]]);
        assert_eq!(words("sh -c \"a; b\""), [["sh", "-c", "\"a; b\""]]);
        assert!(words("cat <<E\ncargo test\nE").is_empty() && words("echo 'open").is_empty() && words("").is_empty());
        assert!(is_assignment("A_1=x y") && !is_assignment("1=x") && !is_assignment("--a=b") && !is_assignment("a"));
    }
}
