//! What a stage has at an instruction: its files, its environment, its configuration.

use std::collections::BTreeMap;

use crate::config::{History, Image};
use crate::error::Problem;
use crate::platform::Platform;
use crate::source::Span;
use crate::words::Variables;

/// Maximum number of variables of a stage.
const MAX_VARIABLES: usize = 2_000;
/// The comment of new entries of a history.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage at an instruction.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The operation that has its files.
    pub(super) root: usize,
    /// Variables: `ENV` and `ARG`, of which the later counts.
    pub(super) env: Env,
    /// The directory.
    pub(super) cwd: String,
    /// The configuration.
    pub(super) image: Image,
    /// How many entries of the history are the base image's.
    pub(super) inherited: usize,
    /// Declared arguments, with their values, in order.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) platform: Platform,
    /// Whether the base's configuration is not known, and so which variables it sets.
    pub(super) is_assumed: bool,
    /// Whether the file has set a directory.
    pub(super) has_workdir: bool,
    /// Where the last of these instructions is: `CMD`, `ENTRYPOINT`, `HEALTHCHECK`.
    pub(super) seen: BTreeMap<&'static str, Span>,
}

/// Variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Env(pub(super) BTreeMap<String, String>);

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Limits what a whole file expands to, whatever its instructions repeat.
#[derive(Debug)]
pub(super) struct Budget(usize);

/// Maximum number of bytes that the instructions of a file expand to together.
const MAX_TOTAL: usize = 256 << 20;

impl Budget {
    pub(super) fn new() -> Self {
        Self(MAX_TOTAL)
    }

    pub(super) fn spend(&mut self, bytes: usize, span: Span) -> Result<(), Problem> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            Problem::new(span, format!("the instructions up to here expand to more than {} MiB", MAX_TOTAL >> 20))
                .help("make the values of variables shorter")
        })?;
        Ok(())
    }
}

impl State {
    /// A stage that begins with a configuration.
    pub(super) fn new(root: usize, image: Image, platform: Platform) -> Self {
        let image_is_assumed = image.is_assumed();
        Self {
            root,
            env: Env::default(),
            cwd: "/".to_owned(),
            inherited: image.history.len(),
            image,
            args: Vec::new(),
            platform,
            is_assumed: image_is_assumed,
            has_workdir: false,
            seen: BTreeMap::new(),
        }
    }

    /// Sets a variable for the instructions that follow.
    pub(super) fn set(&mut self, name: &str, value: &str, span: Span) -> Result<(), Problem> {
        self.env.0.insert(name.to_owned(), value.to_owned());
        if self.env.0.len() > MAX_VARIABLES {
            return Err(Problem::new(span, format!("more than {MAX_VARIABLES} variables")));
        }
        Ok(())
    }

    /// Declares an argument.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>, span: Span) -> Result<(), Problem> {
        self.args.push((name.to_owned(), value));
        if self.args.len() > MAX_VARIABLES {
            return Err(Problem::new(span, format!("more than {MAX_VARIABLES} arguments")));
        }
        Ok(())
    }

    /// Adds an entry to the history.
    pub(super) fn commit(&mut self, created_by: String, has_layer: bool) {
        self.image.history.push(History {
            created_by,
            comment: COMMENT.to_owned(),
            empty_layer: !has_layer,
            ..History::default()
        });
    }

    /// A text for the stage's shell.
    pub(super) fn shell(&self, text: &str) -> Vec<String> {
        let windows = ["cmd", "/S", "/C"].as_slice();
        let unix = ["/bin/sh", "-c"].as_slice();
        let mut argv: Vec<String> = match self.image.config.shell.is_empty() {
            false => self.image.config.shell.clone(),
            true => (if self.image.os == "windows" { windows } else { unix }).iter().map(|s| (*s).to_owned()).collect(),
        };
        argv.push(text.to_owned());
        argv
    }

    /// How many bytes a copy takes, about.
    pub(super) fn weight(&self) -> usize {
        let env = self.env.0.iter().flat_map(|(name, value)| [name.len(), value.len(), 64]);
        let args = self.args.iter().flat_map(|(name, value)| [name.len(), value.as_ref().map_or(0, String::len), 64]);
        env.chain(args).fold(self.image.weight(), usize::saturating_add)
    }
}
