//! uv: a project or a workspace with its `uv.lock`.
//!
//! Invariant: packages of the tree in the lock file are built by the bundle, and everything else is in the layer.

use toml::Value;

use super::{
    super::{
        Error,
        found::strings,
        tree::{self, literal},
    },
    Project,
    layers::{Layer, from_environment},
    local::Local,
    requirements,
};
use kiln_plan::below;

/// Makes uv install what one workspace member needs.
pub(crate) const PACKAGE: &str = " --package ";

/// A package of the tree in the lock file.
struct Member {
    name: String,
    directory: String,
    /// Whether it is installed, rather than only a list of dependencies.
    installed: bool,
}

impl Project<'_> {
    pub(super) fn uv(&self) -> Result<Layer, Error> {
        self.check_lock("uv.lock", "uv lock")?;
        let lock = tree::toml(self.source, "uv.lock")?.unwrap_or_default();
        let packages: Vec<&Value> = lock.get("package").and_then(Value::as_array).into_iter().flatten().collect();
        let members = members(&packages)?;
        let wanted = self.source.member().and_then(|wanted| members.iter().find(|m| m.directory == wanted));
        let root = wanted.or_else(|| members.iter().find(|m| m.directory.is_empty()));
        let needed = needed(&packages, root, &members);

        let mut key = strings(["pyproject.toml"]);
        let mut locals: Vec<Local> = Vec::new();
        let mut stated = true;
        for member in &members {
            let package = Local::read(self.source, &member.directory, Vec::new())?;
            stated &= package.stated;
            key.extend(package.manifests(self.source).into_iter().filter(|path| path != "pyproject.toml"));
            if member.installed && needed.contains(&member.name) {
                locals.push(package);
            }
        }
        // Members that are only in the lock file because of their dependency group.
        key.extend(tree::named(self.source, |name| name == "pyproject.toml"));
        key.push("uv.lock".to_owned());
        key.sort();
        key.dedup();
        let mut archives = tree::all_of(self.source, &["uv.toml"]);
        archives.extend(packages.iter().filter_map(|package| archive(package)));
        archives.retain(|path| tree::has(self.source, path) || tree::has_directory(self.source, path));
        archives.sort();
        archives.dedup();

        let git = packages.iter().any(|p| p.get("source").is_some_and(|s| s.get("git").is_some()));
        // The lock file is checked against the manifests if these state everything.
        let check = if stated { "--locked" } else { "--frozen" };
        let is_project = root.is_some() || self.pyproject.contains_key("project");
        let all = match wanted {
            Some(member) => format!("{PACKAGE}{}", tree::shell_word(&member.name)),
            None if is_project => String::new(),
            None => " --all-packages".to_owned(),
        };
        let outside: String = members
            .iter()
            .filter(|m| m.installed && !m.directory.is_empty())
            .map(|m| format!(" --no-install-package {}", tree::shell_word(&m.name)))
            .collect();
        let because = match (is_project, wanted) {
            (true, None) => "`pyproject.toml` is a project",
            _ => "`pyproject.toml` is a workspace of uv",
        };
        let mut because = vec![because.to_owned(), "`uv.lock` locks its dependencies".to_owned()];
        let mut without = Vec::new();
        if let Some(member) = wanted {
            without = others(&members, &needed);
            let others = members.iter().filter(|m| m.name != member.name && needed.contains(&m.name));
            let others: Vec<&str> = others.map(|m| m.directory.as_str()).collect();
            let with = match others.is_empty() {
                true => String::new(),
                false => format!(", with {}, which it needs", kiln_plan::list(others)),
            };
            because.push(format!("of its packages `{}` is built{with}", member.directory));
        }
        let apart = members.iter().all(|m| m.installed || !needed.contains(&m.name));
        Ok(Layer {
            tool: "uv",
            because,
            named: "`uv.lock`".into(),
            unversioned: key.iter().filter(|path| !path.ends_with(".py") && !path.ends_with(".cfg")).cloned().collect(),
            inputs: key.into_iter().chain(archives).collect(),
            run: format!(
                "uv sync {check} --no-dev --no-editable --no-install-workspace{outside}{all} \
                 --python \"$(command -v python3)\"\n{}",
                from_environment()
            ),
            tools: strings(["python3", "uv"]).into_iter().chain(git.then(|| "git".to_owned())).collect(),
            sources: self.is_application() || locals.is_empty() || !apart,
            without,
            directory: wanted.map(|member| member.directory.clone()).unwrap_or_default(),
            locals,
            ..Layer::default()
        })
    }
}

/// Patterns that exclude unneeded members, except those that contain or are inside a needed one.
fn others(members: &[Member], needed: &[String]) -> Vec<String> {
    let (kept, others): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|m| needed.contains(&m.name));
    let apart = |one: &str, other: &str| below(one, other).is_none() && below(other, one).is_none();
    let others = others.into_iter().filter(|m| kept.iter().all(|kept| apart(&m.directory, &kept.directory)));
    others.map(|m| format!("!{}", literal(&m.directory))).collect()
}

fn members(packages: &[&Value]) -> Result<Vec<Member>, Error> {
    let mut members = Vec::new();
    for package in packages {
        let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
        let Some(source) = package.get("source") else { continue };
        let place =
            ["editable", "directory", "virtual"].iter().find_map(|kind| Some((*kind, source.get(kind)?.as_str()?)));
        let Some((kind, place)) = place else { continue };
        let Some(directory) = tree::join("", place) else {
            return Err(Error::Manifest {
                path: "uv.lock".into(),
                message: format!(
                    "`{name}` lies in `{place}`, outside the project: build the directory that holds both"
                ),
            });
        };
        members.push(Member { name: requirements::normalised(name), directory, installed: kind != "virtual" });
    }
    Ok(members)
}

/// The names of everything the root needs, including itself; without a root, of everything any member needs.
fn needed(packages: &[&Value], root: Option<&Member>, members: &[Member]) -> Vec<String> {
    let mut names: Vec<String> = match root {
        Some(root) => vec![root.name.clone()],
        None => members.iter().map(|m| m.name.clone()).collect(),
    };
    let mut places = 0..;
    while let Some(name) = places.next().and_then(|at| names.get(at).cloned()) {
        for package in packages {
            let own = package.get("name").and_then(Value::as_str).map(requirements::normalised);
            if own.as_deref() != Some(&name) {
                continue;
            }
            // Requested extras are not considered: at worst, a member is built unnecessarily.
            let extras = package.get("optional-dependencies").and_then(Value::as_table);
            let extras = extras.into_iter().flatten().filter(|_| root.is_none_or(|r| r.name != name));
            let lists = package.get("dependencies").into_iter().chain(extras.map(|(_, list)| list));
            for need in lists.filter_map(Value::as_array).flatten() {
                let need = need.get("name").and_then(Value::as_str).map(requirements::normalised);
                names.extend(need.filter(|need| !names.contains(need)));
            }
        }
    }
    names
}

/// The file or directory of the tree from which a package is installed unchanged.
fn archive(package: &Value) -> Option<String> {
    let source = package.get("source")?;
    let place = source.get("path").or_else(|| source.get("registry"))?.as_str()?;
    (!place.contains("://")).then(|| tree::join("", place)).flatten().filter(|path| !path.is_empty())
}

/// Whether `pyproject.toml` is a workspace, with or without its own project.
pub(super) fn is_workspace(pyproject: &toml::Table) -> bool {
    let uv = pyproject.get("tool").and_then(|t| t.get("uv"));
    uv.is_some_and(|uv| uv.get("workspace").is_some())
}
