//! A file becomes a graph of stages.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, Node, Origin, Step, args, onbuild};
use crate::bases::{BaseImage, Bases, Reference};
use crate::error::{Problem, list, shown, suggestion};
use crate::file::Dockerfile;
use crate::image::ImageName;
use crate::instruction::{Instruction, Kind, mount_source};
use crate::lint::Lints;
use crate::options::{NamedContext, Options};
use crate::platform::Platform;
use crate::source::{Span, Word};
use crate::words::{Lexer, NoVariables};

/// Maximum number of nodes.
const MAX_NODES: usize = 10_000;

struct Resolver<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    bases: &'a Bases,
    graph: Graph,
    /// The latest stage of each name.
    names: BTreeMap<String, usize>,
    /// Images and contexts that stages take files from.
    others: BTreeMap<String, usize>,
}

/// Resolves a file. Where base images are missing, the graph says so.
pub(crate) fn resolve(file: &Dockerfile, options: &Options, bases: &Bases, mut lints: Lints) -> Result<Graph, Problem> {
    let target = super::target_name(file, options);
    args::defaults(file, options, &target, &mut lints);
    let args = args::global(file, options, &target, true)?;
    let stages = file.stages.len();
    let graph = Graph { nodes: Vec::new(), stages, target: 0, wanted: Vec::new(), args, lints };
    let mut resolver = Resolver { file, options, bases, graph, names: BTreeMap::new(), others: BTreeMap::new() };
    resolver.stages()?;
    resolver.graph.target = resolver.target()?;
    for at in 0..stages {
        let instructions = std::mem::take(&mut resolver.graph.node_mut(at).steps);
        resolver.graph.node_mut(at).steps =
            instructions.into_iter().map(|step| resolver.step(step.instruction, false)).collect::<Result<_, _>>()?;
    }
    resolver.graph.check_cycles()?;
    resolver.complete()?;
    resolver.graph.check_cycles()?;
    if let [node] = resolver.graph.nodes.as_mut_slice() {
        // There is nothing to tell it from.
        node.title = String::new();
    }
    Ok(resolver.graph)
}

impl Resolver<'_> {
    /// The file's stages, with their instructions as they are written.
    fn stages(&mut self) -> Result<(), Problem> {
        for (at, stage) in self.file.stages.iter().enumerate() {
            let from = args::from(self.file, stage, &self.graph.args, self.options, &mut self.graph.lints)?;
            let platform = from.platform.as_ref().unwrap_or_else(|| self.options.target_platform());
            let name = stage.name.as_deref();
            let replaced = name.and_then(|name| self.options.contexts.find(name, platform));
            let origin = match (replaced, self.names.get(&from.base)) {
                (Some((name, context)), _) => {
                    self.context(name.to_owned(), &context.clone(), platform, &from.base, stage.from.base.span)?
                }
                (None, Some(stage)) => Origin::Stage(*stage),
                (None, None) if from.base == "scratch" => Origin::Scratch,
                (None, None) => Origin::Unneeded(from.base),
            };
            let is_replaced = replaced.is_some();
            let steps = stage.instructions.iter().filter(|_| !is_replaced).map(|instruction| Step {
                instruction: instruction.clone(),
                is_trigger: false,
                sources: Vec::new(),
            });
            self.graph.nodes.push(Node {
                name: stage.name.clone(),
                title: stage.name.clone().unwrap_or_else(|| format!("stage-{at}")),
                span: stage.instruction.span,
                origin,
                platform: from.platform,
                steps: steps.collect(),
                no_cache: self.options.no_cache.has(name),
                is_replaced,
                is_needed: false,
            });
            if let Some(name) = name {
                self.names.insert(name.to_owned(), at);
            }
        }
        Ok(())
    }

    fn target(&self) -> Result<usize, Problem> {
        let last = self.graph.nodes.len().saturating_sub(1);
        let Some(target) = &self.options.target else { return Ok(last) };
        let index = target.parse().ok().filter(|index| *index <= last);
        self.names.get(&target.to_lowercase()).copied().or(index).ok_or_else(|| {
            let names = || self.names.keys().map(String::as_str);
            let help = suggestion(target, names()).unwrap_or_else(|| match self.names.is_empty() {
                true => "the file has no stages with names".to_owned(),
                false => format!("it has {}", list(names().take(20))),
            });
            Problem::new(self.graph.node(last).span, format!("there is no stage {}", shown(target))).help(help)
        })
    }

    /// An instruction, and where it takes files from.
    fn step(&mut self, instruction: Instruction, is_trigger: bool) -> Result<Step, Problem> {
        let sources = match &instruction.kind {
            Kind::Copy(copy) => match copy.from.clone() {
                Some(from) => vec![Some(self.source(&from)?)],
                None => Vec::new(),
            },
            Kind::Run(run) => {
                let mut sources = Vec::new();
                for mount in &run.mounts {
                    let from = mount_source(mount)?;
                    sources.push(from.map(|from| self.by_name(&from, mount.span)).transpose()?);
                }
                sources
            }
            _ => Vec::new(),
        };
        Ok(Step { instruction, is_trigger, sources })
    }

    /// The node that `COPY --from` names: by index, or by name.
    fn source(&mut self, from: &Word) -> Result<usize, Problem> {
        let lexer = Lexer::new(self.file.directives.escape);
        let expanded = lexer.expand(&from.value, &NoVariables).map(|expanded| expanded.text);
        if expanded.as_ref() != Ok(&from.value) {
            let problem = Problem::new(from.span, "variables are not expanded in `--from`");
            return Err(problem.help("add a stage `FROM $NAME AS …` and name that"));
        }
        match from.value.parse::<usize>() {
            Err(_) => self.by_name(&from.value, from.span),
            Ok(index) if index < self.graph.stages => Ok(index),
            Ok(index) => {
                let problem = Problem::new(from.span, format!("there is no stage {index}"));
                Err(problem.help(format!("stages are counted from 0 to {}", self.graph.stages.saturating_sub(1))))
            }
        }
    }

    fn by_name(&mut self, name: &str, span: Span) -> Result<usize, Problem> {
        if let Some(at) = self.names.get(&name.to_lowercase()) {
            return Ok(*at);
        }
        if let Some(at) = self.others.get(name) {
            return Ok(*at);
        }
        let origin = if name == "scratch" { Origin::Scratch } else { Origin::Unneeded(name.to_owned()) };
        let at = self.graph.nodes.len();
        if at >= MAX_NODES {
            return Err(Problem::new(span, format!("more than {MAX_NODES} stages and images")));
        }
        self.graph.nodes.push(Node {
            name: None,
            title: String::new(),
            span,
            origin,
            platform: None,
            steps: Vec::new(),
            no_cache: false,
            is_replaced: false,
            is_needed: false,
        });
        self.others.insert(name.to_owned(), at);
        Ok(at)
    }

    /// Resolves what the target needs. Stored instructions may name further images.
    fn complete(&mut self) -> Result<(), Problem> {
        let mut triggered = BTreeSet::new();
        loop {
            self.graph.mark();
            let mut is_complete = true;
            for at in 0..self.graph.nodes.len() {
                let node = self.graph.node(at);
                if !node.is_needed && !self.options.all_stages {
                    continue;
                }
                if let Origin::Unneeded(name) = &node.origin {
                    let name = name.clone();
                    self.graph.node_mut(at).origin = self.base(at, &name)?;
                }
                if triggered.insert(at) {
                    is_complete &= !self.trigger(at)?;
                }
            }
            if is_complete {
                self.graph.mark();
                break;
            }
        }
        for node in &self.graph.nodes {
            let is_needed = node.is_needed || self.options.all_stages;
            if let Origin::Image(image, None, ..) = &node.origin
                && is_needed
                && !self.graph.wanted.contains(image)
            {
                self.graph.wanted.push(image.clone());
            }
        }
        Ok(())
    }

    /// Puts the instructions that a stage's base has stored before its own. Returns whether there are any.
    fn trigger(&mut self, at: usize) -> Result<bool, Problem> {
        let node = self.graph.node(at);
        let stored = match &node.origin {
            _ if at >= self.graph.stages || node.is_replaced => return Ok(false),
            Origin::Stage(base) => onbuild::stored(&self.graph.node(*base).steps),
            Origin::Image(_, Some(resolved), ..) => resolved.image.config.on_build.clone(),
            _ => Vec::new(),
        };
        let mut steps = Vec::new();
        for instruction in onbuild::read(&stored, node.span)? {
            steps.push(self.step(instruction, true)?);
        }
        let any = !steps.is_empty();
        let own = &mut self.graph.node_mut(at).steps;
        steps.append(own);
        *own = steps;
        Ok(any)
    }

    /// The image or the context that a name stands for.
    fn base(&mut self, at: usize, name: &str) -> Result<Origin, Problem> {
        let span = match self.file.stages.get(at) {
            Some(stage) => stage.from.base.span,
            None => self.graph.node(at).span,
        };
        let platform = self.graph.node(at).platform.as_ref().unwrap_or_else(|| self.options.target_platform());
        if let Some((context_name, context)) = self.options.contexts.find(name, platform) {
            return self.context(context_name.to_owned(), &context.clone(), &platform.clone(), name, span);
        }
        let image = ImageName::read(name).map_err(|message| {
            let problem = Problem::new(span, format!("{} is not the name of an image: {message}", shown(name)));
            let near = suggestion(name, self.names.keys().map(String::as_str));
            problem.maybe_help(near)
        })?;
        Ok(self.image(Reference::Registry(image.full()), platform.clone(), name, None))
    }

    fn image(&self, reference: Reference, platform: Platform, written: &str, context: Option<String>) -> Origin {
        let image = BaseImage { reference, platform };
        let resolved = self.bases.get(&image).map(Box::new);
        Origin::Image(image, resolved, written.to_owned(), context)
    }

    /// What a named context stands for.
    fn context(
        &self,
        name: String,
        context: &NamedContext,
        platform: &Platform,
        written: &str,
        span: Span,
    ) -> Result<Origin, Problem> {
        let reference = match context {
            NamedContext::Image(image) if image == "scratch" => return Ok(Origin::Scratch),
            NamedContext::Image(image) => {
                let image = ImageName::read(image).map_err(|message| {
                    Problem::new(span, format!("the context `{name}` names no image: {}: {message}", shown(image)))
                })?;
                Reference::Registry(image.full())
            }
            NamedContext::Layout(layout) => Reference::Layout(layout.clone()),
            NamedContext::Local(_) | NamedContext::Url(_) | NamedContext::Git(_) => return Ok(Origin::Context(name)),
        };
        Ok(self.image(reference, platform.clone(), written, Some(name)))
    }
}
