//! Git sources of `ADD` and of contexts: `https://…/x.git#ref:subdir`, `git@host:path`, and the query form.

use percent_encoding::percent_decode_str;

use crate::error::{shown, suggestion};

const QUERIES: [&str; 11] = [
    "ref",
    "tag",
    "branch",
    "subdir",
    "checksum",
    "commit",
    "keep-git-dir",
    "submodules",
    "mtime",
    "fetch-by-commit",
    "path",
];

/// A repository, and what of it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitSource {
    /// The repository's URL, without query and fragment.
    pub remote: String,
    /// A branch, a tag or a commit; empty for the default branch.
    pub reference: String,
    /// A directory of the repository; empty for all of it.
    pub directory: String,
    /// The commit that is expected, or the beginning of its digest.
    pub checksum: String,
    /// Whether `.git` is kept, if the source says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are left out.
    pub skips_submodules: bool,
    /// Whether the files' times are the commit's.
    pub has_commit_times: bool,
    /// Whether the commit is fetched without a reference.
    pub fetch_by_commit: bool,
}

impl GitSource {
    /// Reads a source; `None` if it is not one of Git.
    ///
    /// # Errors
    /// What is wrong with a source of Git.
    pub fn read(text: &str) -> Option<Result<Self, String>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let (rest, fragment) = text.split_once('#').map_or((text, ""), |(rest, fragment)| (rest, fragment));
        let (remote, query) = rest.split_once('?').map_or((rest, ""), |(remote, query)| (remote, query));
        let is_git = match remote.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "git" | "ssh" => true,
                "http" | "https" => rest.split_once('/').is_some_and(|(_, path)| path.ends_with(".git")),
                _ => false,
            },
            None => is_scp(remote),
        };
        is_git.then(|| Self::of(remote, query, fragment))
    }

    /// Whether it is fetched over SSH, with a key of whoever builds.
    pub fn is_ssh(&self) -> bool {
        match self.remote.split_once("://") {
            Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
            None => is_scp(&self.remote),
        }
    }

    fn of(remote: &str, query: &str, fragment: &str) -> Result<Self, String> {
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut source = Self {
            remote: remote.to_owned(),
            reference: reference.to_owned(),
            directory: relative(directory),
            ..Self::default()
        };
        let (mut tag, mut branch) = (None, None);
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key), decoded(value));
            if seen.contains(&key) {
                return Err(format!("the query `{key}` is repeated"));
            }
            let flag = || match value.as_str() {
                "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(format!("the query `{key}` takes `true` or `false`, found {}", shown(&value))),
            };
            match key.as_str() {
                "keep-git-dir" => source.keep_git_dir = Some(flag()?),
                "submodules" => source.skips_submodules = !flag()?,
                "fetch-by-commit" => source.fetch_by_commit = flag()?,
                _ if !QUERIES.contains(&key.as_str()) || key == "path" => {
                    let near = suggestion(&key, QUERIES).map(|near| format!("; {near}")).unwrap_or_default();
                    return Err(format!("unknown query {}{near}", shown(&key)));
                }
                _ if value.is_empty() => return Err(format!("the query `{key}` has no value")),
                "ref" => set(&mut source.reference, value, "ref")?,
                "tag" => tag = Some(prefixed(&value, "refs/tags/")),
                "branch" => branch = Some(prefixed(&value, "refs/heads/")),
                "subdir" => set(&mut source.directory, relative(&value), "subdir")?,
                "checksum" | "commit" => source.checksum = value,
                _ => {
                    source.has_commit_times = match value.as_str() {
                        "checkout" => false,
                        "commit" => true,
                        _ => {
                            return Err(format!(
                                "the query `mtime` takes `checkout` or `commit`, found {}",
                                shown(&value)
                            ));
                        }
                    };
                }
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("the queries `tag` and `branch` exclude each other".to_owned());
        }
        for reference in [tag, branch].into_iter().flatten() {
            set(&mut source.reference, reference, "ref")?;
        }
        Ok(source)
    }
}

fn set(old: &mut String, new: String, name: &str) -> Result<(), String> {
    if !old.is_empty() && *old != new {
        return Err(format!("`{name}` is both {} and {}", shown(old), shown(&new)));
    }
    *old = new;
    Ok(())
}

fn prefixed(name: &str, prefix: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// A directory below the repository's root, whatever it is written as.
fn relative(directory: &str) -> String {
    crate::golang::clean(&format!("/{directory}")).trim_start_matches('/').to_owned()
}

/// `USER@HOST:PATH`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || more.contains(&c))
    };
    word(user, &['_']) && word(host, &['.'])
}

/// Percent-encoding and `+` of a query.
fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
