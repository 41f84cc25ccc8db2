//! One workspace member and the packages of the tree that it needs.
//!
//! Invariant: a dependency refers to the package with its name, or to the directory that it links to.

use std::collections::BTreeSet;

use super::{
    super::tree::{self, literal},
    local,
    locks::Tool,
    manifest::{KINDS, Package},
};
use kiln_plan::Source;

/// The program that puts a member into the root of an archive, and its path in a step.
pub const MEMBER: (&str, &str) = (".kiln/member.js", include_str!("member.js"));

/// Tables of a manifest that list what a package needs at run time.
pub(super) const RUNTIME: [&str; 3] = ["dependencies", "optionalDependencies", "peerDependencies"];

/// A member, with packages as indices into the list of all.
pub(super) struct Member {
    /// The member itself.
    pub(super) own: usize,
    /// What its build needs, including itself, in the order of the list.
    build: Vec<usize>,
    /// What it needs at run time, without itself.
    runtime: Vec<usize>,
}

impl Member {
    /// The requested member, if one of the packages is.
    pub(super) fn of(source: &dyn Source, packages: &[Package], tool: Tool) -> Option<Self> {
        let wanted = source.member()?;
        let own = packages.iter().position(|package| package.directory == wanted).filter(|own| *own > 0)?;
        let build = needed(source, packages, tool, own, &KINDS);
        let mut runtime = needed(source, packages, tool, own, &RUNTIME);
        runtime.retain(|at| *at != own);
        Some(Member { own, build, runtime })
    }

    /// The root, whose own scripts may prepare the workspace, and the packages that the build needs.
    pub(super) fn built<'a>(&self, packages: &'a [Package]) -> Vec<&'a Package> {
        std::iter::once(0)
            .chain(self.build.iter().copied().filter(|at| *at > 0))
            .filter_map(|at| packages.get(at))
            .collect()
    }

    /// The packages that it needs at run time.
    pub(super) fn runtime<'a>(&self, packages: &'a [Package]) -> Vec<&'a Package> {
        self.runtime.iter().filter(|at| **at > 0).filter_map(|at| packages.get(*at)).collect()
    }

    /// A description for the user.
    pub(super) fn show(&self, packages: &[Package]) -> String {
        let name = |at: usize| packages.get(at).map_or("", |package| package.directory.as_str());
        let own = format!("of its packages `{}` is built", name(self.own));
        let others = self.build.iter().filter(|at| **at != self.own && **at > 0);
        let others: Vec<&str> = others.map(|at| name(*at)).collect();
        if others.is_empty() { own } else { format!("{own}, with {}, which it needs", kiln_plan::list(others)) }
    }

    /// Patterns that exclude the files of all other packages from a step, except their manifests.
    pub(super) fn without_others(&self, source: &dyn Source, packages: &[Package]) -> Vec<String> {
        let is_other = |at: usize| at > 0 && !self.build.contains(&at);
        let mut globs = BTreeSet::new();
        for path in source.paths() {
            let other = owner(packages, path).filter(|at| is_other(*at)).and_then(|at| packages.get(at));
            let Some(Package { directory, .. }) = other.filter(|package| *path != package.manifest) else { continue };
            let within = path.strip_prefix(directory.as_str()).and_then(|rest| rest.strip_prefix('/'));
            let top = within.and_then(|within| within.split('/').next()).unwrap_or_default();
            let top = format!("{directory}/{top}");
            let holds_package =
                packages.iter().any(|p| p.directory == top || p.directory.starts_with(&format!("{top}/")));
            globs.insert(format!("!{}", literal(if holds_package { path } else { &top })));
        }
        globs.into_iter().collect()
    }

    /// Directories of packages that are inside one in the artifact and do not belong there; each after the package that contains it.
    pub(super) fn nested(&self, packages: &[Package], in_place: bool) -> Vec<(String, String)> {
        let is_handed = |at: usize| at == self.own || self.runtime.contains(&at);
        let others = packages.iter().enumerate().filter(|(at, _)| *at > 0);
        let nested = others.filter_map(|(at, package)| {
            let outer =
                owner(packages, tree::parent(&package.directory)).filter(|outer| *outer > 0 && is_handed(*outer))?;
            // The member itself is moved, but not what is inside its directory.
            let stays = is_handed(at) && (outer != self.own || in_place);
            let outer = packages.get(outer).filter(|_| !stays)?;
            Some((outer.directory.clone(), package.directory.clone()))
        });
        nested.collect()
    }
}

/// The package whose directory contains a path.
fn owner(packages: &[Package], path: &str) -> Option<usize> {
    let inside = |package: &Package| {
        let rest = path.strip_prefix(package.directory.as_str());
        package.directory.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let all = packages.iter().enumerate().filter(|(_, package)| inside(package));
    all.max_by_key(|(_, package)| package.directory.len()).map(|(at, _)| at)
}

/// A package and, recursively, those of the tree that these tables of its manifest name.
fn needed(source: &dyn Source, packages: &[Package], tool: Tool, own: usize, kinds: &[&str]) -> Vec<usize> {
    let mut found = BTreeSet::from([own]);
    let mut open = vec![own];
    while let Some(package) = open.pop().and_then(|at| packages.get(at)) {
        let linked = local::of(source, package, tool);
        for (_, name, _) in package.dependencies().filter(|(kind, ..)| kinds.contains(kind)) {
            let place = linked.iter().find(|found| found.name == name).map(|found| found.path.as_str());
            let is_it = |one: &Package| match place {
                Some(place) => one.directory == place,
                None => one.name() == Some(name),
            };
            open.extend(packages.iter().position(is_it).filter(|at| found.insert(*at)));
        }
    }
    found.into_iter().collect()
}
