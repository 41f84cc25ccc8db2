//! `COPY` and `ADD`.

use super::flags::{Flags, Known, Takes};
use crate::error::Problem;
use crate::source::Word;
use crate::text::{Arguments, Heredoc, Node, heredoc_word};

const COPY: Known = &[
    ("from", Takes::One),
    ("chown", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Many),
];
const ADD: Known = &[
    ("chown", Takes::One),
    ("chmod", Takes::One),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::One),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Many),
];

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What is copied, in order.
    pub sources: Vec<Word>,
    /// Files that heredocs contain, which are copied after the sources.
    pub inline: Vec<InlineFile>,
    /// Where to.
    pub destination: Word,
    /// `--from`: a stage, an image, or a named context.
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub excludes: Vec<Word>,
    /// `--keep-git-dir`, if it was written.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--unpack`, if it was written.
    pub unpack: Option<bool>,
}

/// A file that a heredoc contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: Word,
    /// Its content.
    pub data: String,
    /// Whether variables in it are expanded.
    pub expands: bool,
}

pub(super) fn read(node: &Node, is_add: bool) -> Result<Copy, Problem> {
    let keyword = if is_add { "ADD" } else { "COPY" };
    let (words, is_json) = match &node.arguments {
        Arguments::Words(words) => (words.as_slice(), false),
        Arguments::Json(words) => (words.as_slice(), true),
        _ => (&[][..], false),
    };
    let [sources @ .., destination] = words else {
        return Err(too_few(node, keyword));
    };
    if sources.is_empty() {
        return Err(too_few(node, keyword));
    }
    let flags = Flags::read(keyword, &node.flags, if is_add { ADD } else { COPY })?;
    if !is_json && heredoc_word(&destination.value).is_some() {
        let problem = Problem::new(destination.span, format!("the destination of {keyword} cannot be a heredoc"));
        return Err(problem.help(format!("write the destination last: `{keyword} {} PATH`", destination.value)));
    }
    let mut copy = Copy {
        sources: Vec::new(),
        inline: Vec::new(),
        destination: destination.clone(),
        from: flags.one("from").filter(|from| !from.value.is_empty()),
        chown: flags.one("chown").filter(|chown| !chown.value.is_empty()),
        chmod: flags.one("chmod").filter(|chmod| !chmod.value.is_empty()),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        excludes: flags.many("exclude"),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.one("checksum").filter(|checksum| !checksum.value.is_empty()),
        unpack: flags.bool("unpack"),
    };
    for source in sources {
        match heredoc_word(&source.value).filter(|_| !is_json) {
            Some(heredoc) => copy.inline.push(inline(&heredoc, source, &node.heredocs)),
            None => copy.sources.push(source.clone()),
        }
    }
    Ok(copy)
}

/// The file for a heredoc's word. Of several heredocs with one name, the last one's content counts for all.
fn inline(word: &Heredoc, source: &Word, heredocs: &[Heredoc]) -> InlineFile {
    let content = heredocs.iter().rev().find(|heredoc| heredoc.name == word.name);
    let content = content.map(|heredoc| heredoc.content.clone()).unwrap_or_default();
    let data = Heredoc { content, ..word.clone() }.data();
    InlineFile { name: Word { value: word.name.clone(), span: source.span }, data, expands: word.expands }
}

fn too_few(node: &Node, keyword: &str) -> Problem {
    Problem::new(node.line_span, format!("{keyword} needs a source and a destination"))
        .help(format!("write `{keyword} SOURCE… DESTINATION`"))
}
