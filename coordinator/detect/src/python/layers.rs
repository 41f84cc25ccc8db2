//! What a layer of packages consists of, and the commands that fill it.
//!
//! Invariant: what a lock file pins is installed as pinned, with hashes checked where the file has them.

use std::collections::BTreeMap;

use super::{PACKAGES, local::Local};

pub(super) const PIP_INSTALL: &str =
    "python3 -m pip install --no-compile --no-warn-script-location --root-user-action=ignore";

/// What a layer consists of.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) tool: &'static str,
    pub(super) because: Vec<String>,
    /// The files that name the packages, in words.
    pub(super) named: String,
    pub(super) inputs: Vec<String>,
    pub(super) unversioned: Vec<String>,
    pub(super) files: BTreeMap<String, String>,
    /// Empty where nothing is needed; else ends with a line's end.
    pub(super) run: String,
    pub(super) tools: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Packages of the tree that the bundle builds.
    pub(super) locals: Vec<Local>,
    /// Whether the command reads what their build backends say they need.
    pub(super) asks_backends: bool,
    /// Whether the archive holds the sources, beside the packages.
    pub(super) sources: bool,
    /// Patterns that keep out of the bundle what it does not need.
    pub(super) without: Vec<String>,
    /// The directory of the one member of a workspace that is wanted; empty where all of the tree is.
    pub(super) directory: String,
}

/// What makes Python's tools give the same bytes twice, and keep out of the home directory.
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

/// A command that takes the packages and their commands out of a virtual environment, whose other files hold the path
/// where it was made.
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
