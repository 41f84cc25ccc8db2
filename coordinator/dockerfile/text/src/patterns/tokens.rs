//! Patterns as a list of tokens, and the match of a text in a time that grows with the product of both lengths at most.

use super::Invalid;

/// Maximum number of bytes of a pattern.
pub(super) const MAX_PATTERN: usize = 4 << 10;

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Char(char),
    /// A character other than `/`.
    One,
    /// Any number of characters other than `/`.
    Star,
    /// Any number of whole directories, also none. [`Token::Inside`] follows.
    Directories,
    /// The rest of `Directories`: any characters, up to a `/`.
    Inside,
    /// Anything.
    All,
    /// One of these ranges of characters, or none of them.
    Class(bool, Vec<(char, char)>),
}

/// How `**` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deep {
    /// As `*`.
    No,
    /// As any number of directories.
    Yes,
}

/// Reads a pattern.
pub(super) fn read(pattern: &str, deep: Deep) -> Result<Vec<Token>, Invalid> {
    if pattern.len() > MAX_PATTERN {
        return Err(Invalid::Long(MAX_PATTERN));
    }
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if deep == Deep::Yes && rest.peek() == Some(&'*') => {
                rest.next();
                rest.next_if_eq(&'/');
                if rest.peek().is_none() {
                    tokens.push(Token::All);
                } else {
                    tokens.extend([Token::Directories, Token::Inside]);
                }
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::One),
            '[' => tokens.push(class(&mut rest)?),
            '\\' => tokens.push(Token::Char(rest.next().ok_or(Invalid::Escape)?)),
            c => tokens.push(Token::Char(c)),
        }
    }
    Ok(tokens)
}

fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, Invalid> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let bound = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| match rest.next() {
        None | Some('-' | ']') => Err(Invalid::Class),
        Some('\\') => rest.next().ok_or(Invalid::Class),
        Some(c) => Ok(c),
    };
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Ok(Token::Class(negated, ranges));
        }
        let low = bound(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { bound(rest)? } else { low };
        ranges.push((low, high));
    }
}

/// Whether a whole text matches.
pub(super) fn matches(tokens: &[Token], text: &str) -> bool {
    // The tokens that may come next.
    let mut open = vec![false; tokens.len().saturating_add(1)];
    enter(tokens, &mut open, 0);
    for c in text.chars() {
        let mut next = vec![false; open.len()];
        let mut any = false;
        for (at, (token, _)) in (0_usize..).zip(tokens.iter().zip(&open)).filter(|(_, (_, is_open))| **is_open) {
            let (stays, leaves) = match token {
                Token::Char(expected) => (false, c == *expected),
                Token::One => (false, c != '/'),
                Token::Star => (c != '/', false),
                Token::Directories => (false, false),
                Token::Inside => (true, c == '/'),
                Token::All => (true, false),
                Token::Class(negated, ranges) => {
                    (false, ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated)
                }
            };
            if stays {
                enter(tokens, &mut next, at);
            }
            if leaves {
                enter(tokens, &mut next, at.saturating_add(1));
            }
            any |= stays || leaves;
        }
        if !any {
            return false;
        }
        open = next;
    }
    open.last() == Some(&true)
}

/// Marks a token and those that may be skipped after it.
fn enter(tokens: &[Token], open: &mut [bool], from: usize) {
    let mut at = from;
    while let Some([is_open, after @ ..]) = open.get_mut(at..) {
        if std::mem::replace(is_open, true) {
            return;
        }
        at = match (tokens.get(at), after) {
            (Some(Token::Star | Token::All), _) => at.saturating_add(1),
            (Some(Token::Directories), [inside, ..]) => {
                *inside = true;
                at.saturating_add(2)
            }
            _ => return,
        };
    }
}
