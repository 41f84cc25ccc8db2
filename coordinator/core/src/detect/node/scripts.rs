//! The packages' own scripts: which run, where, and in which order.
//!
//! A package manager runs them while it installs, where the layer has no sources; so they run in the step that has.
//! Invariant: a package's scripts run after those of the packages that it depends on.

use super::{super::tree, locks::Tool, manifest::Package};

/// The commands of a build, one a line.
pub(super) fn commands(packages: &[Package], tool: Tool, links: bool) -> String {
    let Some((root, members)) = packages.split_first() else { return String::new() };
    let mut run = String::new();
    let executable = executables(members);
    if links {
        run.push_str(&executable);
    }
    add(&mut run, root, &["preinstall"], tool);
    // Yarn from version 2 on leaves `prepare` to what publishes a package.
    let rest: &[&str] = match tool {
        Tool::YarnModern => &["install", "postinstall"],
        _ => &["install", "postinstall", "prepare"],
    };
    for member in members {
        add(&mut run, member, &["preinstall"], tool);
        add(&mut run, member, rest, tool);
    }
    add(&mut run, root, rest, tool);
    if root.script("build").is_some() {
        add(&mut run, root, &["build"], tool);
        return run;
    }
    let built: Vec<&Package> = members.iter().filter(|member| member.script("build").is_some()).collect();
    match tool {
        Tool::Pnpm if built.len() > 1 => run.push_str("pnpm --recursive run --if-present build\n"),
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

fn add(run: &mut String, package: &Package, scripts: &[&str], tool: Tool) {
    for script in scripts {
        // `only-allow` refuses other package managers, and would have to be fetched for it.
        let Some(_) = package.script(script).filter(|text| !text.contains("only-allow")) else { continue };
        let command = format!("{} run {script}", tool.command());
        match package.directory.as_str() {
            "" => run.push_str(&format!("{command}\n")),
            directory => run.push_str(&format!("(cd {} && {command})\n", tree::shell_word(directory))),
        }
    }
}

/// Makes the commands of packages executable, as a package manager does when it links them.
fn executables(packages: &[Package]) -> String {
    let mut words: Vec<String> =
        packages.iter().flat_map(Package::commands).map(|path| tree::shell_word(&path)).collect();
    words.sort();
    words.dedup();
    if words.is_empty() {
        return String::new();
    }
    format!("for file in {}; do if [ -f \"$file\" ]; then chmod +x \"$file\"; fi; done\n", words.join(" "))
}
