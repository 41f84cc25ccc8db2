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
/// How many response files a call may read: a few that name one another again and again would be read without end.
const MAX_FILES: usize = 1_000;

/// The arguments with all response files expanded.
pub(super) fn expand(arguments: &[OsString], directory: &Path, files: &dyn Files) -> Result<Vec<OsString>, Refusal> {
    let arguments_in_all = Vec::with_capacity(arguments.len());
    let mut expansion = Expansion { directory, files, arguments: arguments_in_all, read: 0 };
    expansion.add(arguments, 0)?;
    Ok(expansion.arguments)
}

struct Expansion<'a> {
    directory: &'a Path,
    files: &'a dyn Files,
    arguments: Vec<OsString>,
    /// Response files that were read.
    read: usize,
}

impl Expansion<'_> {
    fn add(&mut self, arguments: &[OsString], depth: usize) -> Result<(), Refusal> {
        for argument in arguments {
            let Some(name) = argument.as_bytes().strip_prefix(b"@") else {
                self.arguments.push(argument.clone());
                continue;
            };
            let path = absolute(self.directory, Path::new(OsStr::from_bytes(name)));
            let refuse = |reason| Refusal::ResponseFile { path: path.clone(), reason };
            if depth == MAX_DEPTH || self.arguments.len() > MAX_ARGUMENTS || self.read == MAX_FILES {
                return Err(refuse("response files are nested too deeply, or too long"));
            }
            self.read = self.read.saturating_add(1);
            let content = self.files.read(&path).ok_or_else(|| refuse("it cannot be read"))?;
            let words = words(&content)
                .ok_or_else(|| refuse("compilers differ in how they read its quotes and backslashes"))?;
            self.add(&words, depth.saturating_add(1))?;
        }
        Ok(())
    }
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
    use crate::invocation::Kind;

    #[test]
    fn words_are_read_as_compilers_read_them() {
        let read = |text: &str| words(text.as_bytes()).map(|words| words.join(OsStr::new("|")));
        assert_eq!(read("-c a.c\n\t-o  'b c.o' "), Some("-c|a.c|-o|b c.o".into()));
        assert_eq!(read(r#"-DX=\"a\ b\" "-DY=\"q\"" '' -I"d e"f"#), Some(r#"-DX="a b"|-DY="q"||-Id ef"#.into()));
        assert_eq!(read(""), Some("".into()));
    }

    #[test]
    fn files_that_name_one_another_many_times_are_refused() {
        #[derive(Debug)]
        struct Chain;
        impl Files for Chain {
            fn read(&self, path: &Path) -> Option<Vec<u8>> {
                let level: u32 = path.file_name()?.to_str()?.parse().ok()?;
                Some(format!("@{} ", level + 1).repeat(500).into_bytes())
            }

            fn kind(&self, _: &Path) -> Option<Kind> {
                None
            }
        }
        let refused = expand(&["@1".into()], Path::new("/src"), &Chain).unwrap_err();
        assert!(refused.to_string().contains("nested too deeply"), "{refused}");
    }

    #[test]
    fn what_compilers_read_differently_is_refused() {
        for text in [r#""a\nb""#, r"'a\b'", "a\\\nb", "'open", "\"open", "end\\", "nul\0"] {
            assert_eq!(words(text.as_bytes()), None, "{text}");
        }
    }
}
