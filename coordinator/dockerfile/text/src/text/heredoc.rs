//! Heredocs: `<<NAME`, and the lines that follow up to `NAME`.

use super::lines::{Line, Lines};
use crate::error::{Problem, shown};
use crate::source::Span;
use crate::words::{Lexer, NoVariables};

/// Maximum number of heredocs of one instruction.
const MAX_HEREDOCS: usize = 1_000;

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name, without quotes.
    pub name: String,
    /// The number before `<<`, or 0.
    pub descriptor: u32,
    /// Whether variables in it are expanded: no part of the name is quoted.
    pub expands: bool,
    /// Whether `<<-` was written: tabs at the beginning of its lines do not count.
    pub strips_tabs: bool,
    /// Its lines as they are in the file.
    pub content: String,
    /// Where the content is.
    pub span: Span,
}

impl Heredoc {
    /// What the file contains that the heredoc stands for: without leading tabs if it was written with `<<-`.
    pub fn data(&self) -> String {
        if self.strips_tabs { without_leading_tabs(&self.content) } else { self.content.clone() }
    }

    fn is_end(&self, line: &Line<'_>) -> bool {
        let text = line.text();
        self.name == if self.strips_tabs { text.trim_start_matches('\t') } else { text }
    }
}

/// Lines without the tabs at their beginning.
pub fn without_leading_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// The heredoc that a word begins, without content: digits, `<<`, perhaps `-`, and a name.
pub fn heredoc_word(word: &str) -> Option<Heredoc> {
    let (digits, rest) = word.split_once("<<").filter(|(digits, _)| digits.bytes().all(|c| c.is_ascii_digit()))?;
    let (strips_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    // The name may contain line breaks in quotes only; there are none in an instruction.
    let name = rest.trim_start();
    if name.is_empty() || name.contains('<') {
        return None;
    }
    // Names are always read with `\`, whatever the file's escape character is.
    let plain = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let [unquoted] = <[String; 1]>::try_from(plain.expand(name, &NoVariables).ok()?.words).ok()?;
    let quoted = Lexer { keep_quotes: true, ..plain }.expand(name, &NoVariables).ok()?.words.concat();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Heredoc {
        expands: quotes(&unquoted) == quotes(&quoted),
        name: unquoted,
        descriptor: digits.parse().unwrap_or(0),
        strips_tabs,
        content: String::new(),
        span: Span::default(),
    })
}

/// The heredocs that an instruction's line begins, without content.
pub(super) fn heredocs_of(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let lexer = Lexer { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    // A line that the shell could not read either, such as one with a lone quote, has none.
    let words = lexer.expand(line, &NoVariables).map(|expanded| expanded.words).unwrap_or_default();
    words.iter().filter_map(|word| heredoc_word(word)).collect()
}

/// Reads the contents of heredocs from the lines that follow.
pub(super) fn read(lines: &mut Lines<'_>, heredocs: &mut [Heredoc], instruction: Span) -> Result<(), Problem> {
    if heredocs.len() > MAX_HEREDOCS {
        return Err(Problem::new(instruction, format!("more than {MAX_HEREDOCS} heredocs in one instruction")));
    }
    for heredoc in heredocs {
        let start = lines.at();
        loop {
            let Some(line) = lines.next()? else {
                return Err(Problem::new(instruction, format!("the heredoc {} has no end", shown(&heredoc.name)))
                    .help(format!("add a line that consists of {} alone", shown(&heredoc.name))));
            };
            if heredoc.is_end(&line) {
                heredoc.span = Span::new(start, line.start);
                break;
            }
            heredoc.content.push_str(line.raw);
        }
    }
    Ok(())
}
