//! A project in a subdirectory of the tree: planned as if its directory were the root, then moved into place.
//!
//! Invariant: a moved plan runs the same commands on the same files; only the paths have a different prefix.

use std::collections::BTreeSet;

use super::{ArtifactKind, PRINTED, Plan, Source, Step, View, workspace};
use kiln_detect::{self as detect, Language};
use kiln_plan::paths::below;
use kiln_plan::paths::has;

/// A workspace of which one member is built.
pub(super) struct Member<'a> {
    pub(super) whole: &'a dyn Source,
    pub(super) directory: &'a str,
}

impl Source for Member<'_> {
    fn paths(&self) -> &[String] {
        self.whole.paths()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.whole.read(path)
    }

    fn member(&self) -> Option<&str> {
        Some(self.directory)
    }
}

/// The language in which the root of the tree is a workspace and the directory is one of its members; `None` if it is
/// not. Of several, the one that the caller wants or that the member's own files suggest most.
pub(super) fn member_language(source: &dyn Source, directory: &str, wanted: Option<Language>) -> Option<Language> {
    let own = |name: &str| has(source, &format!("{directory}/{name}"));
    if own("kiln.toml") {
        return None;
    }
    let languages = workspace::languages(&|name| source.read(name), directory, &own);
    if let Some(wanted) = wanted {
        return languages.contains(&wanted).then_some(wanted);
    }
    let weighed = || detect::weighed(&View::new(source, directory)).into_iter().find(|one| languages.contains(one));
    if languages.len() > 1 { weighed() } else { languages.first().copied() }
}

/// Moves a plan made for a directory's view to that directory.
pub(super) fn moved(mut plan: Plan, source: &dyn Source, directory: &str) -> Plan {
    let outside = outside(source, directory);
    for step in &mut plan.steps {
        move_step(step, directory, &outside);
    }
    for artifact in &mut plan.artifacts {
        if let ArtifactKind::Dockerfile(dockerfile) = &mut artifact.kind {
            dockerfile.file = inside(&dockerfile.file, directory);
            dockerfile.context = inside(&dockerfile.context, directory).trim_end_matches('/').to_owned();
            for path in dockerfile.contexts.values_mut().filter(|path| !path.contains("://")) {
                *path = inside(path, directory);
            }
        }
        for file in &mut artifact.files {
            let is_glob = file.path.contains(['*', '?', '[', '{']);
            if file.dest.is_none() && !is_glob {
                file.dest = Some(match artifact.kind {
                    ArtifactKind::Binary => kiln_plan::paths::base(&file.path).to_owned(),
                    _ => file.path.clone(),
                });
            }
            file.path = inside(&file.path, directory);
        }
    }
    plan.gates.iter_mut().for_each(|gate| gate.move_to(directory, &|path| inside(path, directory)));
    for paths in [&mut plan.exclude, &mut plan.excludable] {
        paths.iter_mut().for_each(|glob| *glob = inside(glob, directory));
    }
    plan
}

fn move_step(step: &mut Step, directory: &str, outside: &[String]) {
    // Without an including pattern the inputs are the whole tree, which the context has limited.
    let whole = step.inputs.iter().all(|glob| glob.starts_with('!'));
    let nothing = step.inputs == ["!**"];
    for glob in step.inputs.iter_mut().chain(&mut step.unversioned) {
        *glob = match glob.strip_prefix('!') {
            Some(bare) => format!("!{}", inside(bare, directory)),
            None => inside(glob, directory),
        };
    }
    if nothing {
        step.inputs = vec!["!**".to_owned()];
    } else if !whole {
        step.inputs.extend(outside.iter().cloned());
    }
    if !nothing {
        // As in the root, the build description is not an input.
        step.inputs.push(format!("!{directory}/kiln.toml"));
    }
    let reports = step.reports.iter_mut().filter(|report| *report != PRINTED);
    for path in step.outputs.iter_mut().chain(reports) {
        *path = inside(path, directory);
    }
    step.caches = std::mem::take(&mut step.caches)
        .into_iter()
        .map(|(path, cache)| (if path.starts_with(['/', '~']) { path } else { inside(&path, directory) }, cache))
        .collect();
    step.files = std::mem::take(&mut step.files)
        .into_iter()
        .map(|(path, text)| (inside(&path, directory), text.replace(ROOT, &format!("{ROOT}{directory}/"))))
        .collect();
    step.working_directory = Some(match step.working_directory.take() {
        Some(below) => inside(&below, directory),
        None => directory.to_owned(),
    });
    // Kiln's own commands and variables contain the tree's root where a tool needs an absolute path.
    step.run = step.run.replace(ROOT, &format!("{ROOT}{directory}/"));
    for value in step.env.values_mut() {
        *value = value.replace(ROOT, &format!("{ROOT}{directory}/"));
    }
}

/// The path of the tree's root while a step runs.
const ROOT: &str = "/build/";

fn inside(path: &str, directory: &str) -> String {
    match path.trim_start_matches("./") {
        "" | "." => directory.to_owned(),
        path => format!("{directory}/{path}"),
    }
}

/// Everything in the tree outside the directory: the topmost directories that do not contain it, and files.
fn outside(source: &dyn Source, directory: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for path in source.paths().iter().filter(|path| below(path, directory).is_none()) {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let top = ends.map(|end| path.split_at(end).0).find(|top| below(directory, top).is_none());
        found.extend(top.map(str::to_owned));
    }
    found.into_iter().collect()
}
