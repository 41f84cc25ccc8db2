//! As much of XML as a `pom.xml` needs: where the text of each element stands.
//!
//! Invariant: comments, processing instructions and character data are no elements; a text that is no XML yields what
//! was read before it went wrong.

use std::ops::Range;

/// An element that holds nothing but text: the names from the root to it, and where its text is.
pub struct Leaf<'a> {
    /// The names of the elements around it and its own.
    pub path: Vec<&'a str>,
    /// The bytes between its tags.
    pub text: Range<usize>,
    /// Where the element around it starts: leaves of one element have this in common.
    pub parent: usize,
}

/// Every element that holds nothing but text, in order.
pub fn leaves(text: &str) -> Vec<Leaf<'_>> {
    let mut found = Vec::new();
    // Name, start of the element, start of its text, whether an element was in it.
    let mut open: Vec<(&str, usize, usize, bool)> = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find('<').map(|n| at + n) {
        let rest = &text[start..];
        let skip = |end: &str| rest.find(end).map_or(text.len(), |n| start + n + end.len());
        if rest.starts_with("<!--") {
            at = skip("-->");
        } else if rest.starts_with("<![CDATA[") {
            at = skip("]]>");
        } else if rest.starts_with("<?") || rest.starts_with("<!") {
            at = skip(">");
        } else {
            let end = skip(">");
            let tag = text[start + 1..end].trim_end_matches('>');
            if tag.starts_with('/') {
                let path: Vec<&str> = open.iter().map(|o| o.0).collect();
                if let Some((_, _, inner, false)) = open.pop() {
                    let parent = open.last().map_or(0, |o| o.1);
                    found.push(Leaf { path, text: inner..start, parent });
                }
            } else {
                if let Some(outer) = open.last_mut() {
                    outer.3 = true;
                }
                if !tag.ends_with('/') {
                    let name = tag.split_whitespace().next().unwrap_or_default();
                    open.push((name, start, end, false));
                }
            }
            at = end;
        }
    }
    found
}

/// The text of the first element of that path.
pub fn value<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    leaves(text).into_iter().find(|leaf| leaf.path == path).map(|leaf| text[leaf.text].trim())
}
