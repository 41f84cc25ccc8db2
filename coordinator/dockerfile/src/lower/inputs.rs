//! Operations, and the files that instructions take from elsewhere.

use std::collections::BTreeMap;

use super::display::Titles;
use super::operation::{Operation, Operator, Paths};
use super::stage::{Lowering, Place};
use crate::error::{Problem, shown};
use crate::golang;
use crate::options::Context;
use crate::platform::Platform;
use crate::source::Span;
use crate::stages::Origin;

impl Lowering<'_> {
    /// Adds an operation.
    pub(super) fn push(&mut self, at: usize, span: Span, kind: Operator, name: String, platform: &Platform) -> usize {
        let node = self.graph.node(at);
        let stage =
            node.name.clone().unwrap_or_else(|| if at < self.graph.stages { at.to_string() } else { String::new() });
        let is_source = matches!(kind, Operator::Base { .. } | Operator::Scratch | Operator::Context(_));
        let no_cache = node.no_cache && !is_source;
        let place = self.operations.len();
        self.operations.push(Operation {
            kind,
            name,
            span,
            lines: self.file.source.lines(span),
            stage,
            platform: platform.clone(),
            no_cache,
        });
        place
    }

    /// The operation of a context.
    pub(super) fn context(&mut self, context: Context, span: Span) -> usize {
        if let Some(known) = self.contexts.get(&context) {
            return *known;
        }
        let name = match &context {
            Context::Main => "load build context".to_owned(),
            Context::Named(name) => format!("[context {name}] load"),
        };
        let platform = self.options.target_platform().clone();
        let root = self.push(0, span, Operator::Context(context.clone()), name, &platform);
        if let Some(operation) = self.operations.get_mut(root) {
            operation.stage = String::new();
        }
        self.contexts.insert(context.clone(), root);
        self.paths.entry(context).or_insert_with(|| Paths::Some(Vec::new()));
        root
    }

    /// Notes that a path of a context is read.
    pub(super) fn read(&mut self, context: &Context, path: &str) {
        let paths = self.paths.entry(context.clone()).or_insert_with(|| Paths::Some(Vec::new()));
        let path = golang::clean(&format!("/{path}"));
        match paths {
            Paths::All => {}
            _ if path == "/" => *paths = Paths::All,
            Paths::Some(known) => known.push(path.trim_start_matches('/').to_owned()),
        }
    }

    /// The files of a node that an instruction takes files from, and the context that they are, if they are one.
    pub(super) fn files(&mut self, source: usize, place: &Place<'_>) -> Result<(usize, Option<Context>), Problem> {
        let node = self.graph.node(source);
        let context = match &node.origin {
            Origin::Context(name) if source >= self.graph.stages || node.is_replaced => {
                Some(Context::Named(name.clone()))
            }
            _ => None,
        };
        if source < self.graph.stages && !node.is_replaced {
            return self.roots.get(&source).map(|root| (*root, None)).ok_or_else(|| {
                let span = place.instruction.span;
                Problem::new(span, format!("the stage {} comes later in the file", shown(&node.title)))
                    .help("move it before the stage that takes files from it")
            });
        }
        if let Some(context) = context {
            return Ok((self.context(context.clone(), place.instruction.span), Some(context)));
        }
        if let Some(known) = self.others.get(&source).or_else(|| self.roots.get(&source)) {
            return Ok((*known, None));
        }
        let root = self.begin(
            source,
            &BTreeMap::new(),
            &mut Titles { title: String::new(), platform: None, next: 0, total: 0 },
        );
        let root = root?.root;
        self.others.insert(source, root);
        Ok((root, None))
    }
}
