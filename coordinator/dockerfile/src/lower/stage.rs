//! One stage: its base, and its instructions one after another.

use std::collections::BTreeMap;

use super::display::Titles;
use super::operation::{Operation, Operator, Paths};
use super::state::{Budget, State};
use crate::config::{DEFAULT_PATH, Image};
use crate::error::{Problem, shown};
use crate::file::Dockerfile;
use crate::golang;
use crate::instruction::{Instruction, Kind};
use crate::lint::{Lints, Rule};
use crate::options::{Context, Options};
use crate::platform::Platform;
use crate::stages::{Graph, Node, Origin};

/// The lowering of a file.
pub(super) struct Lowering<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    pub(super) graph: &'a Graph,
    pub(super) lints: Lints,
    pub(super) budget: Budget,
    pub(super) operations: Vec<Operation>,
    /// The operations of contexts and of images that stages only take files from, by node.
    pub(super) others: BTreeMap<usize, usize>,
    /// The files of each stage, once it is lowered.
    pub(super) roots: BTreeMap<usize, usize>,
    pub(super) contexts: BTreeMap<Context, usize>,
    pub(super) paths: BTreeMap<Context, Paths>,
    /// Whether the instruction uses a variable that a base of unknown configuration may set.
    pub(super) is_guess: bool,
}

/// The instruction that is lowered, and what it needs to know of its stage.
pub(super) struct Place<'a> {
    pub(super) at: usize,
    pub(super) instruction: &'a Instruction,
    pub(super) sources: &'a [Option<usize>],
    pub(super) is_trigger: bool,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(file: &'a Dockerfile, options: &'a Options, graph: &'a Graph, lints: Lints) -> Self {
        Self {
            file,
            options,
            graph,
            lints,
            budget: Budget::new(),
            operations: Vec::new(),
            others: BTreeMap::new(),
            roots: BTreeMap::new(),
            contexts: BTreeMap::new(),
            paths: BTreeMap::new(),
            is_guess: false,
        }
    }

    /// Lowers a stage. `states` has those before it.
    pub(super) fn stage(&mut self, at: usize, states: &BTreeMap<usize, State>) -> Result<State, Problem> {
        let node = self.graph.node(at);
        let mut titles = self.titles(node);
        let mut state = self.begin(at, states, &mut titles)?;
        if node.is_replaced {
            self.roots.insert(at, state.root);
            return Ok(state);
        }
        self.inherit(&mut state, node)?;
        for step in &node.steps {
            let place =
                Place { at, instruction: &step.instruction, sources: &step.sources, is_trigger: step.is_trigger };
            self.is_guess = false;
            match self.instruction(&mut state, &place, &mut titles) {
                // With the variables of its base it may well be right.
                Err(_) if self.is_guess => {}
                lowered => lowered?,
            }
        }
        self.roots.insert(at, state.root);
        Ok(state)
    }

    fn titles(&self, node: &Node) -> Titles {
        let steps = node.steps.iter();
        let counted = steps.filter(|step| {
            step.is_trigger
                || matches!(step.instruction.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
        });
        let base = usize::from(matches!(node.origin, Origin::Image(..)));
        Titles { title: node.title.clone(), platform: None, next: 0, total: counted.count().saturating_add(base) }
    }

    /// The files and the configuration that a stage begins with.
    pub(super) fn begin(
        &mut self,
        at: usize,
        states: &BTreeMap<usize, State>,
        titles: &mut Titles,
    ) -> Result<State, Problem> {
        let node = self.graph.node(at);
        let target = self.options.target_platform();
        let platform = node.platform.clone().unwrap_or_else(|| target.clone());
        let mut state = match &node.origin {
            Origin::Stage(base) => {
                let missing = || Problem::new(node.span, "the stage's base is not lowered");
                let base = states.get(base).ok_or_else(missing)?;
                self.budget.spend(base.weight(), node.span)?;
                let mut state = base.clone();
                // What is stored for those that build on the base is not stored for those that build on this stage.
                state.image.config.on_build.clear();
                state.seen.clear();
                state
            }
            Origin::Scratch => {
                let root = self.push(at, node.span, Operator::Scratch, "FROM scratch".to_owned(), target);
                State::new(root, Image::scratch(target), target.clone())
            }
            Origin::Context(name) => {
                let root = self.context(Context::Named(name.clone()), node.span);
                self.read(&Context::Named(name.clone()), "/");
                State::new(root, Image::scratch(&platform), platform)
            }
            Origin::Image(image, resolved, written, context) => {
                let resolved = resolved.as_deref().cloned().unwrap_or_default();
                let is_empty = resolved.image.is_empty();
                let shown = image.reference.show(resolved.digest.as_deref());
                if self.options.multi_platform {
                    titles.platform = Some(platform.clone());
                }
                let name = match context {
                    Some(context) => format!("[context {context}] {shown}"),
                    None => titles.next(&format!("FROM {shown}"), false, &super::state::Env::default()),
                };
                let kind = match is_empty {
                    true => Operator::Scratch,
                    false => Operator::Base { image: image.clone(), digest: resolved.digest },
                };
                let root = self.push(at, node.span, kind, name, &platform);
                self.check_platform(node, written, &platform, &resolved.image);
                let mut base = resolved.image;
                base.created = None;
                base.config.on_build.clear();
                State::new(root, base, platform)
            }
            Origin::Unneeded(_) => return Err(Problem::new(node.span, "the stage's base is not resolved")),
        };
        if self.options.multi_platform {
            titles.platform = Some(state.platform.clone());
        }
        if state.image.os.is_empty() {
            state.image.os = state.platform.os.clone();
            state.image.architecture = state.platform.architecture.clone();
        }
        Ok(state)
    }

    fn check_platform(&mut self, node: &Node, written: &str, platform: &Platform, image: &Image) {
        if platform.os == image.os && platform.architecture == image.architecture {
            return;
        }
        self.lints.report(Rule::InvalidBaseImagePlatform, node.span, &[], || {
            let (found, wanted) = (image.platform().normalized(), platform.normalized());
            format!("the base image {} is for {found}, and the build is for {wanted}", shown(written))
        });
    }

    /// What the configuration says counts for instructions.
    fn inherit(&mut self, state: &mut State, node: &Node) -> Result<(), Problem> {
        let has_path = state.image.config.env.iter().any(|variable| variable.split('=').next() == Some("PATH"));
        if !has_path && state.platform.os != "windows" {
            state.image.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for variable in state.image.config.env.clone() {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            state.set(name, value, node.span)?;
        }
        let directory = state.image.config.working_dir.clone();
        if !directory.is_empty() {
            state.image.config.working_dir = absolute("/", &directory);
            state.cwd.clone_from(&state.image.config.working_dir);
        }
        Ok(())
    }
}

/// A path from a directory on. What is absolute stays as it is written.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    match path {
        "" => directory.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => golang::join(&golang::join("/", directory), path),
    }
}
