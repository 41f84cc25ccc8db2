//! Macros that stand for names of files.

use std::collections::{BTreeSet, HashMap};

use super::directives::{Body, Name};
use super::lexer::name_of;

/// All definitions in a closure.
#[derive(Debug, Default)]
pub(super) struct Macros(HashMap<Vec<u8>, Vec<Body>>);

/// What a macro's text could be in an include; `None` if it cannot be a name: then the include is never reached, or fails.
pub(super) fn body(text: &[u8]) -> Option<Body> {
    let text = text.trim_ascii();
    let first = *text.first()?;
    let may_expand = first == b'<'
        || first == b'"'
        || first == b'_'
        || first == b'$'
        || first.is_ascii_alphabetic()
        || first >= 0x80;
    may_expand.then(|| match name_of(text) {
        Name::Expression(_) => Body::Opaque,
        name => Body::Name(name),
    })
}

impl Macros {
    /// Adds a definition. Returns whether it is new.
    pub(super) fn add(&mut self, name: &[u8], body: &Body) -> bool {
        let bodies = self.0.entry(name.to_vec()).or_default();
        let is_new = !bodies.contains(body);
        if is_new {
            bodies.push(body.clone());
        }
        is_new
    }

    /// All names that a macro may stand for; `None` if only the preprocessor can tell.
    pub(super) fn names(&self, of: &[u8]) -> Option<BTreeSet<Name>> {
        let mut names = BTreeSet::new();
        let mut open = vec![of.to_vec()];
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop() {
            if !seen.insert(next.clone()) {
                continue;
            }
            for body in self.0.get(&next).into_iter().flatten() {
                match body {
                    Body::Name(Name::Macro(alias)) => open.push(alias.clone()),
                    Body::Name(name) => {
                        names.insert(name.clone());
                    }
                    Body::Opaque => return None,
                }
            }
        }
        Some(names)
    }
}
