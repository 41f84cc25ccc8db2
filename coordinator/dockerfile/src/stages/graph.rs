//! The graph of stages, and of the images and contexts that they take files from.

use std::collections::BTreeSet;

use crate::bases::{BaseImage, Resolved};
use crate::error::{Problem, shown};
use crate::file::Dockerfile;
use crate::instruction::Instruction;
use crate::lint::Lints;
use crate::options::GlobalArgs;
use crate::platform::Platform;
use crate::source::Span;

/// The graph of a build.
pub(crate) struct Graph {
    /// The file's stages in order, and then images and contexts that stages take files from.
    pub(crate) nodes: Vec<Node>,
    /// How many of them are stages of the file.
    pub(crate) stages: usize,
    /// The stage that is built.
    pub(crate) target: usize,
    /// Images that the caller must fetch before the graph is complete.
    pub(crate) wanted: Vec<BaseImage>,
    pub(crate) args: GlobalArgs,
    pub(crate) lints: Lints,
}

/// A stage, an image, or a context.
pub(crate) struct Node {
    /// The name, in lower case, of a stage that has one.
    pub(crate) name: Option<String>,
    /// The name for people: `stage-0` of one without a name; empty of images and contexts.
    pub(crate) title: String,
    /// Where it is named.
    pub(crate) span: Span,
    /// What it is based on.
    pub(crate) origin: Origin,
    /// The platform of its base, if it names one.
    pub(crate) platform: Option<Platform>,
    /// Its instructions, with those that its base has stored for it.
    pub(crate) steps: Vec<Step>,
    /// Whether results of earlier builds are not used.
    pub(crate) no_cache: bool,
    /// Whether a named context takes its place.
    pub(crate) is_replaced: bool,
    /// Whether the target needs it.
    pub(crate) is_needed: bool,
}

/// What a stage is based on.
pub(crate) enum Origin {
    /// Nothing.
    Scratch,
    /// A stage before it.
    Stage(usize),
    /// An image; `None` while its configuration is not known. The text is what the file says, and the name is a named context's
    /// that takes the place of what the file says.
    Image(BaseImage, Option<Box<Resolved>>, String, Option<String>),
    /// The files of a named context.
    Context(String),
    /// An image that is not needed, whose name is not looked at.
    Unneeded(String),
}

/// An instruction of a stage.
pub(crate) struct Step {
    pub(crate) instruction: Instruction,
    /// Whether the base has stored it.
    pub(crate) is_trigger: bool,
    /// The nodes that it takes files from: of `COPY` one, of `RUN` one for each mount.
    pub(crate) sources: Vec<Option<usize>>,
}

impl Graph {
    /// A node.
    #[expect(
        clippy::indexing_slicing,
        reason = "numbers of nodes are those at which they were added, and none is removed"
    )]
    pub(crate) fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// A node, to be changed.
    #[expect(
        clippy::indexing_slicing,
        reason = "numbers of nodes are those at which they were added, and none is removed"
    )]
    pub(super) fn node_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }

    /// Marks what the target needs.
    pub(super) fn mark(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.is_needed = false);
        let mut open = vec![self.target];
        while let Some(at) = open.pop() {
            let node = self.node_mut(at);
            if !std::mem::replace(&mut node.is_needed, true) {
                open.extend(node.inputs().map(|(input, _)| input));
            }
        }
    }

    /// Where an image is named first: a `FROM`, `COPY --from` or a mount.
    pub(crate) fn place_of(&self, file: &Dockerfile, image: &BaseImage) -> Option<Span> {
        let places = self.nodes.iter().enumerate().filter_map(|(at, node)| match &node.origin {
            Origin::Image(known, ..) if known == image => {
                Some(file.stages.get(at).map_or(node.span, |stage| stage.from.base.span))
            }
            _ => None,
        });
        places.min_by_key(|span| span.start)
    }

    /// Refuses stages that need each other.
    pub(super) fn check_cycles(&self) -> Result<(), Problem> {
        // Those that were seen, and those of them that are done.
        let (mut seen, mut done) = (BTreeSet::new(), BTreeSet::new());
        for (start, node) in self.nodes.iter().enumerate() {
            if !seen.insert(start) {
                continue;
            }
            let mut way = vec![(start, node.inputs().collect::<Vec<_>>())];
            while let Some((at, open)) = way.last_mut() {
                let Some((next, span)) = open.pop() else {
                    done.insert(*at);
                    way.pop();
                    continue;
                };
                if seen.insert(next) {
                    way.push((next, self.node(next).inputs().collect()));
                } else if !done.contains(&next) {
                    return Err(self.cycle(&way, next, span));
                }
            }
        }
        Ok(())
    }

    fn cycle(&self, way: &[(usize, Vec<(usize, Span)>)], next: usize, span: Span) -> Problem {
        let title = |at: usize| shown(&self.node(at).title);
        let around = way.iter().map(|(at, _)| *at).skip_while(|at| *at != next);
        let mut names: Vec<String> = around.chain([next]).map(title).collect();
        if let [name, _] = names.as_slice() {
            return Problem::new(span, format!("the stage {name} takes files from itself"))
                .help("name another stage, or an image");
        }
        names.truncate(12);
        Problem::new(span, format!("stages need each other: {}", names.join(" → ")))
            .help("move what both need to a stage of its own")
    }
}

impl Node {
    /// The nodes that it needs, and where it says so.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (usize, Span)> {
        let base = match self.origin {
            Origin::Stage(at) => Some((at, self.span)),
            _ => None,
        };
        let sources = self
            .steps
            .iter()
            .flat_map(|step| step.sources.iter().flatten().map(|source| (*source, step.instruction.span)));
        base.into_iter().chain(sources)
    }
}
