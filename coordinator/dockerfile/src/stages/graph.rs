//! The graph of stages, and of the images and contexts that they take files from.

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
    /// Which nodes it needs.
    pub(crate) reachable: Vec<bool>,
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
    /// Marks what the target needs.
    pub(super) fn mark(&mut self) {
        self.reachable = vec![false; self.nodes.len()];
        let mut open = vec![self.target];
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut self.reachable[at], true) {
                open.extend(self.nodes[at].inputs().map(|(input, _)| input));
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
        // 0: not seen; 1: on the way; 2: done.
        let mut seen = vec![0_u8; self.nodes.len()];
        for start in 0..self.nodes.len() {
            let mut way = vec![(start, self.nodes[start].inputs().collect::<Vec<_>>())];
            if seen[start] != 0 {
                continue;
            }
            seen[start] = 1;
            while let Some((at, open)) = way.last_mut() {
                let Some((next, span)) = open.pop() else {
                    seen[*at] = 2;
                    way.pop();
                    continue;
                };
                match seen[next] {
                    0 => {
                        seen[next] = 1;
                        way.push((next, self.nodes[next].inputs().collect()));
                    }
                    1 => return Err(self.cycle(&way, next, span)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn cycle(&self, way: &[(usize, Vec<(usize, Span)>)], next: usize, span: Span) -> Problem {
        let from = way.iter().position(|(at, _)| *at == next).unwrap_or(0);
        let mut names: Vec<String> = way[from..].iter().map(|(at, _)| shown(&self.nodes[*at].title)).collect();
        names.push(shown(&self.nodes[next].title));
        if names.len() == 2 {
            return Problem::new(span, format!("the stage {} takes files from itself", names[0]))
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
