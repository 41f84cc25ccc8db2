//! `packageManager`: the exact version of the package manager that a project requires.
//!
//! The planner does not know what a worker has, so the layer finds out: it uses the installed version, else Corepack's,
//! else a copy from the npm registry. Invariant: another major version is never used silently.

use serde_json::Value;

use super::locks::{self, Tool};

/// Where the layer puts a manager that it had to fetch; later steps use it from there.
pub(super) const DIRECTORY: &str = ".kiln/manager";

/// The start of every step's command, so that it finds that manager.
pub(super) const PATH: &str =
    "export PATH=/build/.kiln/manager/bin:$PATH COREPACK_HOME=/build/.kiln/manager/corepack\n";

/// A version that a project requires.
pub(super) struct Pinned {
    command: &'static str,
    version: String,
    hash: Option<String>,
}

impl Pinned {
    /// The version in the root manifest, if it is for this manager.
    pub(super) fn of(root: &Value, tool: Tool) -> Option<Self> {
        if locks::named(root) != Some(tool.command()) {
            return None;
        }
        let (_, version) = root.get("packageManager")?.as_str()?.split_once('@')?;
        let (version, hash) = match version.split_once('+') {
            Some((version, hash)) => (version, Some(hash.to_owned())),
            None => (version, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let exact = version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(plain);
        exact.then(|| Self { command: tool.command(), version: version.to_owned(), hash })
    }

    /// A description for the user.
    pub(super) fn show(&self) -> String {
        format!("{} {}", self.command, self.version)
    }

    /// The npm package that contains it.
    fn package(&self) -> &'static str {
        match self.command {
            "yarn" if !self.version.starts_with(['0', '1']) => "@yarnpkg/cli-dist",
            command => command,
        }
    }

    /// Commands that put this version into [`DIRECTORY`] if the worker has another one.
    pub(super) fn provide(&self) -> String {
        let Self { command, version, hash } = self;
        let major = version.split('.').next().unwrap_or_default();
        // Corepack knows no Bun, and its hash is not that of npm's package.
        let bun = *command == "bun";
        let package = self.package();
        let spec = match hash {
            Some(hash) => format!("{command}@{version}+{hash}"),
            None => format!("{command}@{version}"),
        };
        // A copy from npm cannot be compared with the hash, so it is only used if the project specifies none.
        let copy = match hash.as_ref().filter(|_| !bun) {
            Some(_) => String::new(),
            None => format!(
                "    elif npm install --global --prefix {DIRECTORY} --no-audit --no-fund {package}@{version}; then\n        \
                 echo 'kiln: using {command} {version} from the npm registry, as `packageManager` asks'\n"
            ),
        };
        let corepack = if bun { "false" } else { "command -v corepack >/dev/null" };
        let or_corepack = if bun { "" } else { " or Corepack" };
        let registry = match bun {
            true => "",
            false => {
                "    export COREPACK_ENABLE_DOWNLOAD_PROMPT=0 COREPACK_NPM_REGISTRY=\"$(npm config get registry | sed 's,/*$,,')\"\n"
            }
        };
        format!(
            "mkdir -p {DIRECTORY}/bin\n\
             have=$(cd / && {command} --version 2>/dev/null || true)\n\
             if [ \"$have\" != {version} ]; then\n{registry}    \
                 if {corepack} && (cd / && corepack '{spec}' --version >/dev/null 2>&1); then\n        \
                     printf '#!/bin/sh\\nexec corepack {command}@{version} \"$@\"\\n' > {DIRECTORY}/bin/{command}\n        \
                     chmod +x {DIRECTORY}/bin/{command}\n        \
                     echo 'kiln: using {command} {version} by Corepack, as `packageManager` asks'\n\
             {copy}    \
                 elif [ \"${{have%%.*}}\" = {major} ]; then\n        \
                     echo \"kiln: warning: \\`packageManager\\` asks for {command} {version}, which cannot be fetched here; \
                     using $have\" >&2\n    \
                 else\n        \
                     echo \"kiln: \\`packageManager\\` asks for {command} {version}, this worker has ${{have:-none}} and cannot \
                     fetch another: install {command} {version}{or_corepack} on the worker\" >&2\n        \
                     exit 1\n    \
                 fi\n\
             fi\n"
        )
    }
}
