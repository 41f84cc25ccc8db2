//! Words of a POSIX shell.

use std::path::Path;

use kiln_proto::channel::TokenPlace;

use super::Token;

/// A text as one word, whatever is in it.
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A path as one word.
pub(super) fn path(path: &Path) -> String {
    word(&path.display().to_string())
}

/// A token, to be put between words without a blank.
pub(super) fn token(token: &Token) -> String {
    match token {
        Token::Shown(token) => word(token),
        Token::At(TokenPlace::Variable(name)) => format!("\"${name}\""),
        Token::At(TokenPlace::File(file)) => format!("\"$(cat {})\"", path(file)),
    }
}

/// `export NAME=VALUE`, whose value is already in the shell's words.
pub(super) fn export(name: &str, value: &str) -> String {
    format!("export {name}={value}\n")
}
