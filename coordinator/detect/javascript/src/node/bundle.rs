//! Shell code of the steps that assemble a Node program or a site.
//!
//! Invariant: the artifact contains the packages of the `production` layer, and all sources except the packages that
//! the layers brought.

use super::{super::tree, managers::Manager, manifest::Package, members::MEMBER, site::Site};
use crate::staging::{OUT, refuse_empty};

/// Files newer than this one were created in this step: inputs are older.
const AGE: &str = ".kiln/age";

/// Where one member's archive contains what the member needs of its workspace, at the same relative paths.
const WORKSPACE: &str = ".workspace";

/// Removes development dependencies, and moves the rest to its place in the archive.
pub(super) fn production(manager: &Manager, modules: &[String], prune: Option<&str>, prefix: &str) -> String {
    let mut run = prefix.to_owned();
    run.push_str(prune.unwrap_or_default());
    if !manager.modules {
        // Yarn keeps every package that it has ever fetched.
        run.push_str(
            "for file in .yarn/cache/*.zip; do\n    \
             grep -qF \"${file##*/}\" .pnp.cjs || rm -f \"$file\"\ndone\n",
        );
    }
    let directories: Vec<String> =
        modules.iter().cloned().chain(manager.shipped.iter().map(|path| (*path).to_owned())).collect();
    run.push_str(&format!("mkdir -p {OUT}\nfor path in {}; do\n    ", words(&directories)));
    run.push_str("if [ -e \"$path\" ]; then\n        ");
    if manager.modules {
        run.push_str(
            "# what differs from one run to the next\n        \
             rm -rf \"$path/.cache\" \"$path/.modules.yaml\" \"$path\"/.pnpm-workspace-state*.json\n        ",
        );
    }
    run.push_str(&format!(
        "mkdir -p \"$(dirname \"{OUT}/$path\")\"\n        mv \"$path\" \"{OUT}/$path\"\n    fi\ndone\n"
    ));
    run
}

/// Builds a program, and puts its files next to the layer's packages.
pub(super) fn program(scripts: &str, modules: &[String], manager: Option<&Manager>) -> String {
    let mut run = built(scripts, modules, OUT);
    let mut left: Vec<String> = modules.iter().filter(|path| *path != "node_modules").cloned().collect();
    left.extend(manager.iter().flat_map(|manager| manager.outputs).map(|path| (*path).to_owned()));
    left.retain(|path| !path.starts_with(".kiln/"));
    left.push(".next/cache".to_owned());
    run.push_str(&format!("rm -rf {}\n", words(&left)));
    run.push_str(&format!(
        "mkdir -p {OUT}\nfor file in .* *; do\n    case \"$file\" in\n        .|..|.kiln|'*'{skip}) ;;\n        *)\n            \
         if [ -d \"$file\" ] && [ -d \"{OUT}/$file\" ]; then\n                cp -a \"$file/.\" \"{OUT}/$file/\"\n            \
         else\n                mv \"$file\" {OUT}/\n            fi ;;\n    esac\ndone\n",
        skip = if modules.is_empty() { "" } else { "|node_modules" },
    ));
    run
}

/// The contents of one member's archive.
pub(super) struct Handed<'a> {
    pub(super) member: &'a Package,
    /// The packages of the tree that it needs at run time.
    pub(super) others: Vec<&'a Package>,
    /// Directories of packages that are not in the artifact, each with the package that contains it.
    pub(super) nested: Vec<(String, String)>,
    /// Files of the root that the package manager needs to start the member at its place in the workspace; `None` if
    /// the member becomes the root.
    pub(super) in_place: Option<Vec<String>>,
}

impl Handed<'_> {
    /// A package's path in the archive.
    fn place(&self, directory: &str) -> String {
        match &self.in_place {
            Some(_) => format!("{OUT}/{directory}"),
            None if directory == self.member.directory => OUT.to_owned(),
            None => format!("{OUT}/{WORKSPACE}/{directory}"),
        }
    }
}

/// Puts the installed packages that a member needs at run time at their place in the archive.
pub(super) fn production_of(member: &Package, prefix: &str, runtime: &str) -> String {
    format!("{prefix}mkdir -p {OUT}\n{runtime} {} keep {}\n", MEMBER.0, tree::shell_word(&member.directory))
}

/// Builds a workspace member, and puts its files next to the layer's packages.
pub(super) fn member(scripts: &str, modules: &[String], handed: &Handed<'_>, runtime: &str) -> String {
    let mut run = built(scripts, modules, &format!("{OUT}/{WORKSPACE}"));
    let mut packages: Vec<&str> = handed.others.iter().map(|package| package.directory.as_str()).collect();
    packages.push(&handed.member.directory);
    for directory in packages {
        let place = tree::shell_word(&handed.place(directory));
        let left = ["node_modules", ".next/cache"].map(|name| format!("{directory}/{name}"));
        run.push_str(&format!(
            "rm -rf {left}\nmkdir -p {place}\ncp -a {from} {place}/\n",
            left = words(&left),
            from = tree::shell_word(&format!("{directory}/.")),
        ));
    }
    for (outer, package) in &handed.nested {
        let inner = package.strip_prefix(outer.as_str()).unwrap_or(package);
        run.push_str(&format!("rm -rf {}\n", tree::shell_word(&format!("{}{inner}", handed.place(outer)))));
    }
    if let Some(files) = &handed.in_place {
        run.push_str(&format!("cp -a {} {OUT}/\n", words(files)));
    } else if !modules.is_empty() {
        run.push_str(&format!("{runtime} {} link {}\n", MEMBER.0, tree::shell_word(&handed.member.directory)));
    }
    run
}

/// Runs the scripts, and includes what they wrote into installed packages.
fn built(scripts: &str, modules: &[String], out: &str) -> String {
    if scripts.is_empty() || modules.is_empty() {
        return scripts.to_owned();
    }
    format!("mkdir -p .kiln\ntouch -d 2010-01-01 {AGE}\n{scripts}{}", generated(modules, out))
}

/// Includes what scripts changed in installed packages (`patch-package`, `prisma generate`): files of packages in the
/// artifact, and new packages.
fn generated(modules: &[String], out: &str) -> String {
    format!(
        "# what the scripts wrote into installed packages\n\
         for root in {roots}; do\n    \
             find \"$root\" \\( -name .cache -o -name '.vite*' -o -name .tmp -o -name .temp \\) -prune -o \\\n        \
                 -type f -newer {AGE} -print 2>/dev/null | while read -r file; do\n        \
                 inner=${{file#\"$root\"/}}\n        \
                 package=${{inner%%/*}}\n        \
                 case \"$inner\" in @*/*/*|.pnpm/*/*|.bun/*/*) rest=${{inner#*/}}; package=$package/${{rest%%/*}} ;; esac\n        \
                 if [ -e \"{out}/$root/$package\" ] ||\n            \
                     [ -z \"$(find \"$root/$package\" -type f ! -newer {AGE} | head -n 1)\" ]; then\n            \
                     mkdir -p \"$(dirname \"{out}/$file\")\"\n            \
                     cp -p \"$file\" \"{out}/$file\"\n        \
                 fi\n    \
             done\ndone\n",
        roots = words(modules),
    )
}

/// Builds a site: the artifact contains only its files.
pub(super) fn site(site: &Site, scripts: &str) -> String {
    let first = site.directories.first().map(String::as_str).unwrap_or("dist");
    let find = match site.nested {
        // Angular puts a project's files into a subdirectory, next to others.
        true => format!(
            "index=$(find .kiln/site -name index.html | awk '{{ print gsub(\"/\", \"/\"), $0 }}' | sort -n | head -n 1 |\n    \
             cut -d ' ' -f 2-)\n\
             if [ -n \"$index\" ]; then mv \"$(dirname \"$index\")\" {OUT}; else mv .kiln/site {OUT}; fi\n"
        ),
        false => format!("mv .kiln/site {OUT}\n"),
    };
    format!(
        "mkdir -p .kiln\ntouch -d 2010-01-01 {AGE}\n{scripts}\
         for site in {directories}; do\n    \
             if [ -n \"$(find \"$site\" -type f -newer {AGE} 2>/dev/null | head -n 1)\" ]; then\n        \
                 mv \"$site\" .kiln/site\n        break\n    \
             fi\ndone\n\
         if [ ! -d .kiln/site ]; then mkdir .kiln/site; fi\n{find}{refuse}",
        directories = words(&site.directories),
        refuse = refuse_empty(&format!(
            "the build wrote no file into {first}/, where {tool} usually leaves a site; name its directory in the outputs \
             of a kiln.toml (kiln init writes one)",
            tool = site.tool,
        )),
    )
}

fn words(paths: &[String]) -> String {
    paths.iter().map(|path| tree::shell_word(path)).collect::<Vec<_>>().join(" ")
}
