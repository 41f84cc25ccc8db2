//! Response files: `@file` stands for the arguments in it.
//!
//! Source: `buildargv` of libiberty, which gcc uses, and LLVM's tokenizer, which clang uses. What the two, or two versions of one,
//! read differently is refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::invocation::Files;
use crate::paths::absolute;
use crate::refusal::Refusal;

/// How deep response files may name others.
const MAX_DEPTH: usize = 8;
/// How many arguments a call may have.
const MAX_ARGUMENTS: usize = 100_000;

/// The arguments with all response files expanded.
pub(super) fn expand(arguments: &[OsString], directory: &Path, files: &dyn Files) -> Result<Vec<OsString>, Refusal> {
    let mut expanded = Vec::with_capacity(arguments.len());
    expand_into(&mut expanded, arguments, directory, files, 0)?;
    Ok(expanded)
}

fn expand_into(
    expanded: &mut Vec<OsString>,
    arguments: &[OsString],
    directory: &Path,
    files: &dyn Files,
    depth: usize,
) -> Result<(), Refusal> {
    for argument in arguments {
        let Some(name) = argument.as_bytes().strip_prefix(b"@") else {
            expanded.push(argument.clone());
            continue;
        };
        let path = absolute(directory, Path::new(OsStr::from_bytes(name)));
        let refuse = |reason| Refusal::ResponseFile { path: path.clone(), reason };
        if depth == MAX_DEPTH || expanded.len() > MAX_ARGUMENTS {
            return Err(refuse("response files are nested too deeply, or too long"));
        }
        let content = files.read(&path).ok_or_else(|| refuse("it cannot be read"))?;
        let words =
            words(&content).ok_or_else(|| refuse("compilers differ in how they read its quotes and backslashes"))?;
        expand_into(expanded, &words, directory, files, depth.saturating_add(1))?;
    }
    Ok(())
}

/// The arguments in a response file; `None` where compilers would not agree.
fn words(content: &[u8]) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = content.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (0, _) => return None,
            (b'\\', Some(b'\'')) => return None,
            (b'\\', _) => match bytes.next()? {
                escaped if quote.is_some() && !matches!(escaped, b'"' | b'\\') => return None,
                b'\n' | b'\r' => return None,
                escaped => word.get_or_insert_default().push(escaped),
            },
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (_, Some(open)) if byte == open => quote = None,
            (b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    quote.is_none().then(|| words.into_iter().map(OsString::from_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_compilers_read_them() {
        let read = |text: &str| words(text.as_bytes()).map(|words| words.join(OsStr::new("|")));
        assert_eq!(read("-c a.c\n\t-o  'b c.o' "), Some("-c|a.c|-o|b c.o".into()));
        assert_eq!(read(r#"-DX=\"a\ b\" "-DY=\"q\"" '' -I"d e"f"#), Some(r#"-DX="a b"|-DY="q"||-Id ef"#.into()));
        assert_eq!(read(""), Some("".into()));
    }

    #[test]
    fn what_compilers_read_differently_is_refused() {
        for text in [r#""a\nb""#, r"'a\b'", "a\\\nb", "'open", "\"open", "end\\", "nul\0"] {
            assert_eq!(words(text.as_bytes()), None, "{text}");
        }
    }
}
