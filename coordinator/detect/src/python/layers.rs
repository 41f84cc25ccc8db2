//! A layer of packages and the commands that fill it.
//!
//! Invariant: packages pinned by a lock file are installed in the pinned version, and hashes in the file are checked.

use std::collections::BTreeMap;

use super::{PACKAGES, local::Local};

pub(super) const PIP_INSTALL: &str =
    "python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore";

/// A layer of packages.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) tool: &'static str,
    pub(super) because: Vec<String>,
    /// The files that list the packages, for the step's description.
    pub(super) named: String,
    pub(super) inputs: Vec<String>,
    pub(super) unversioned: Vec<String>,
    pub(super) files: BTreeMap<String, String>,
    /// Empty if there are no dependencies; otherwise ends with a newline.
    pub(super) run: String,
    pub(super) tools: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Packages of the tree that the bundle builds.
    pub(super) locals: Vec<Local>,
    /// Whether the command reads the requirements reported by their build backends.
    pub(super) asks_backends: bool,
    /// Whether the archive contains the sources in addition to the packages.
    pub(super) sources: bool,
    /// Patterns that exclude from the bundle what it does not need.
    pub(super) without: Vec<String>,
    /// The directory of the requested workspace member; empty for the whole tree.
    pub(super) directory: String,
}

/// Variables that make Python's tools reproducible and keep them out of the home directory.
pub(super) fn variables() -> BTreeMap<String, String> {
    [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_CACHE_DIR", "1"),
        ("POETRY_CACHE_DIR", "/tmp/poetry"),
        ("POETRY_VIRTUALENVS_IN_PROJECT", "true"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("UV_CACHE_DIR", "/tmp/uv"),
        ("UV_LINK_MODE", "copy"),
        ("UV_PROJECT_ENVIRONMENT", ".venv"),
        ("UV_PYTHON_DOWNLOADS", "never"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

/// A command that copies packages and commands out of a virtual environment, whose other files contain the path where
/// it was created.
pub(super) fn from_environment() -> String {
    format!(
        "cp -a .venv/lib/python3*/site-packages/. {PACKAGES}/\n\
         find {PACKAGES} -name __pycache__ -prune -exec rm -rf {{}} +\n\
         rm -f {PACKAGES}/_virtualenv.py {PACKAGES}/_virtualenv.pth\n\
         for file in .venv/bin/*; do\n    \
             case \"${{file##*/}}\" in\n        \
                 python*|pydoc*|[Aa]ctivate*|deactivate*) ;;\n        \
                 *) mkdir -p {PACKAGES}/bin && cp -a \"$file\" {PACKAGES}/bin/ ;;\n    \
             esac\n\
         done\n\
         if [ -d .venv/share ]; then cp -a .venv/share {PACKAGES}/; fi\n"
    )
}
