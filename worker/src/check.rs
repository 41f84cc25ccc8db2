//! Everything about a configuration that can be verified without starting the worker.

use std::path::Path;

use kiln_proto::{channel, join};

use crate::Config;

/// What is wrong with the files that a configuration names, and with options that contradict each other.
pub fn problems(config: &Config) -> Vec<String> {
    let words = |error: channel::Error| format!("{:#}", anyhow::Error::new(error));
    let mut problems = Vec::new();
    // The worker's own certificate replaces these, but they must be right if they are given.
    problems.extend(config.access.check().err().map(|error| format!("{:#}", anyhow::Error::new(error))));
    problems.extend(channel::check(&config.coordinator, &channel::Access::default()).err().map(words));
    problems.extend(join_token(config).err());
    problems.extend(root(config.root.as_deref()).err());
    problems.extend(kiln_options::usable_directory("state directory", &config.state_dir).err());
    problems
}

fn join_token(config: &Config) -> Result<(), String> {
    let token = config.join_token().map_err(|error| {
        let file = config.join_file.as_deref().unwrap_or(Path::new(""));
        format!("cannot read the join token in `{}`: {error}", file.display())
    })?;
    let parsed = token.map(|token| token.parse::<join::Token>()).transpose();
    parsed.map(drop).map_err(|error| error.to_string())
}

fn root(root: Option<&Path>) -> Result<(), String> {
    match root.filter(|root| !root.is_dir()) {
        Some(root) => Err(format!("cannot run actions on the root `{}`: it is not a directory", root.display())),
        None => Ok(()),
    }
}
