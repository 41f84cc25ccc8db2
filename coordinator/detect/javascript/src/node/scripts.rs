//! The packages' own scripts: which run, where, and in which order.
//!
//! A package manager would run them while it installs, but the layer has no sources; so they run in the build step.
//! Invariant: a package's scripts run after those of the packages that it depends on. For one member of a workspace,
//! only the scripts of packages that it needs run.

use super::{super::tree, locks::Tool, manifest::Package};

/// The commands of a build, one per line: those of the root package first, then the others'. `member` is the requested
/// package, if not all are wanted.
pub(super) fn commands(packages: &[&Package], tool: Tool, links: bool, member: Option<&Package>) -> String {
    let Some((root, members)) = packages.split_first() else { return String::new() };
    let mut run = String::new();
    let executable = executables(members);
    if links {
        run.push_str(&executable);
    }
    add(&mut run, root, &["preinstall"], tool);
    // Yarn 2 and later runs `prepare` only when publishing.
    let rest: &[&str] = match tool {
        Tool::YarnModern => &["install", "postinstall"],
        _ => &["install", "postinstall", "prepare"],
    };
    for member in members {
        add(&mut run, member, &["preinstall"], tool);
        add(&mut run, member, rest, tool);
    }
    add(&mut run, root, rest, tool);
    if is_built_by_root(packages, member.is_some()) {
        add(&mut run, root, &["build"], tool);
        return run;
    }
    let built: Vec<&&Package> = members.iter().filter(|member| member.script("build").is_some()).collect();
    let filter = match member {
        Some(member) => member.name().map(|name| format!("--filter {}", tree::shell_word(&format!("{name}...")))),
        None => Some("--recursive".to_owned()),
    };
    match (tool, filter) {
        (Tool::Pnpm, Some(filter)) if built.len() > 1 => {
            run.push_str(&format!("pnpm {filter} run --if-present build\n"));
        }
        _ => {
            for member in built {
                add(&mut run, member, &["build"], tool);
                if links {
                    run.push_str(&executables(std::slice::from_ref(member)));
                }
            }
        }
    }
    run
}

/// Whether the root's `build` builds everything. For one member of a workspace, only if no package that it needs has a
/// `build` and the root's does not iterate over all packages.
pub(super) fn is_built_by_root(packages: &[&Package], only_member: bool) -> bool {
    let Some((root, members)) = packages.split_first() else { return false };
    let Some(build) = root.script("build") else { return false };
    let goes_through = |build: &str| {
        let words =
            ["--workspaces", "-ws", "-r", "--recursive", "turbo", "lerna", "nx", "workspaces", "wsrun", "--filter"];
        build.split_whitespace().any(|word| words.contains(&word))
    };
    !only_member || !goes_through(build) && members.iter().all(|member| member.script("build").is_none())
}

fn add(run: &mut String, package: &Package, scripts: &[&str], tool: Tool) {
    for script in scripts {
        // `only-allow` rejects other package managers, and would have to be fetched first.
        let Some(_) = package.script(script).filter(|text| !text.contains("only-allow")) else { continue };
        let command = format!("{} run {script}", tool.command());
        match package.directory.as_str() {
            "" => run.push_str(&format!("{command}\n")),
            directory => run.push_str(&format!("(cd {} && {command})\n", tree::shell_word(directory))),
        }
    }
}

/// Makes packages' commands executable, as a package manager does when it links them.
fn executables(packages: &[&Package]) -> String {
    let mut words: Vec<String> =
        packages.iter().flat_map(|package| package.commands()).map(|path| tree::shell_word(&path)).collect();
    words.sort();
    words.dedup();
    if words.is_empty() {
        return String::new();
    }
    format!("for file in {}; do if [ -f \"$file\" ]; then chmod +x \"$file\"; fi; done\n", words.join(" "))
}
