//! The image of a target.

use super::operation::{Build, Paths};
use super::stage::Lowering;
use super::state::State;
use crate::error::{Problem, list};

impl Lowering<'_> {
    /// The build of a target.
    pub(super) fn finish(mut self, target: State) -> Result<Build, Problem> {
        let rules = self.lints.errors();
        if let Some(first) = self.lints.found().first().filter(|_| !rules.is_empty()) {
            let message = format!("the rules {} found something: {}", list(rules), first.message);
            return Err(
                Problem::new(first.span, message).help("fix it, or leave out the rule with `# check=skip=RULE`")
            );
        }
        let mut image = target.image;
        image.config.labels.extend(self.options.labels.clone());
        let own = self.options.target_platform();
        if self.options.platform.is_some() {
            let is_same = own.os == image.os && own.architecture == image.architecture;
            image.os.clone_from(&own.os);
            image.architecture.clone_from(&own.architecture);
            if !own.variant.is_empty() || !is_same {
                image.variant.clone_from(&own.variant);
            }
            if !own.os_version.is_empty() || !is_same {
                image.os_version.clone_from(&own.os_version);
            }
        }
        let platform = image.platform().normalized();
        (image.os, image.architecture, image.variant) = (platform.os, platform.architecture, platform.variant);
        for paths in self.paths.values_mut() {
            if let Paths::Some(paths) = paths {
                paths.sort();
                paths.dedup();
            }
        }
        Ok(Build {
            operations: self.operations,
            result: target.root,
            image,
            inherited_history: target.inherited,
            epoch: None,
            context_paths: self.paths,
            lints: self.lints.found(),
        })
    }
}
