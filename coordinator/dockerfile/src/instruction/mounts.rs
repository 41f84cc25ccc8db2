//! The values of `RUN --mount`.

use super::run::choice;
use super::{csv::fields, size};
use crate::error::{Problem, list, shown, suggestion};
use crate::source::Word;

/// A mount of a `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// `type`.
    pub kind: MountKind,
    /// `from`: a stage, an image, or a named context.
    pub from: Option<String>,
    /// `source`.
    pub source: String,
    /// `target`.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// `size` in bytes.
    pub size: Option<u64>,
    /// `id`.
    pub id: Option<String>,
    /// `sharing`.
    pub sharing: Option<Sharing>,
    /// `required`.
    pub required: bool,
    /// `env`.
    pub env: Option<String>,
    /// Whether the value of a secret is a part of the step's key. An extension of Kiln.
    pub key: bool,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
}

/// The kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum MountKind {
    /// Files of a stage, an image or a context.
    #[default]
    Bind,
    /// A directory that later builds see again.
    Cache,
    /// An empty directory in memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// An SSH agent.
    Ssh,
}

/// How builds at the same time use a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Sharing {
    /// Side by side.
    #[default]
    Shared,
    /// Each on its own.
    Private,
    /// One after another.
    Locked,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 20] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
    "key",
];

/// What can be known without the values of variables: `from` takes none.
pub(super) fn check(word: &Word) -> Result<(), Problem> {
    for field in fields(word)? {
        if let Some((key, value)) = field.split_once('=')
            && key.eq_ignore_ascii_case("from")
            && value.split_once('$').is_some_and(|(_, name)| !name.is_empty())
        {
            let problem = Problem::new(word.span, "variables are not expanded in `from` of a mount");
            return Err(problem.help("add a stage `FROM $NAME AS …` and name that"));
        }
    }
    Ok(())
}

/// Reads the value of `--mount`. Each field's value is expanded by `expand`.
///
/// # Errors
/// If the value is no list of fields, or names an unknown field, or fields that contradict each other.
pub fn read_mount(word: &Word, mut expand: impl FnMut(&str) -> Result<String, Problem>) -> Result<Mount, Problem> {
    let problem = |message: String| Problem::new(word.span, message);
    let mut mount = Mount::default();
    let mut read_only = None;
    for field in fields(word)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let kind = mount.kind;
        let is_secret = matches!(kind, MountKind::Secret | MountKind::Ssh);
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => read_only = Some(true),
                "readwrite" | "rw" => read_only = Some(false),
                "required" if is_secret => mount.required = true,
                "key" if kind == MountKind::Secret => mount.key = true,
                "required" | "key" => return Err(not_of(word, &key, kind)),
                _ => {
                    let found = problem(format!("the mount's field {} has no value", shown(&field)));
                    return Err(found.help("write `KEY=VALUE`").maybe_help(suggestion(&key, KEYS)));
                }
            }
            continue;
        };
        let value = expand(value)?;
        let flag =
            || bool(&value).ok_or_else(|| problem(format!("`{key}` takes `true` or `false`, found {}", shown(&value))));
        match key.as_str() {
            "type" => mount.kind = one_of(word, "type of mount", &value, &KINDS)?,
            "from" => mount.from = Some(value).filter(|from| !from.is_empty()),
            "source" | "src" => mount.source = value,
            "target" | "dst" | "destination" => mount.target = value,
            "readonly" | "ro" => read_only = Some(flag()?),
            "readwrite" | "rw" => read_only = Some(!flag()?),
            "required" if is_secret => mount.required = flag()?,
            "key" if kind == MountKind::Secret => mount.key = flag()?,
            "size" if kind == MountKind::Tmpfs => {
                let size =
                    size::read(&value).ok_or_else(|| problem(format!("`size` is not a size: {}", shown(&value))));
                mount.size = Some(size.map_err(|found| found.help("write for example `size=64m`"))?);
            }
            "required" | "key" | "size" => return Err(not_of(word, &key, kind)),
            "id" => mount.id = Some(value).filter(|id| !id.is_empty()),
            "sharing" => mount.sharing = Some(one_of(word, "sharing", &value, &SHARINGS)?),
            "mode" => mount.mode = Some(number(word, &key, &value, 8)?),
            "uid" => mount.uid = Some(number(word, &key, &value, 10)?),
            "gid" => mount.gid = Some(number(word, &key, &value, 10)?),
            "env" => mount.env = Some(value),
            _ => {
                let help = suggestion(&key, KEYS).unwrap_or_else(|| format!("known are {}", list(KEYS)));
                return Err(problem(format!("unknown field {} of a mount", shown(&key))).help(help));
            }
        }
    }
    mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
    contradiction(&mount).map_or(Ok(mount), |(message, help)| Err(problem(message).help(help)))
}

/// Fields that contradict each other: what is wrong, and what to do.
fn contradiction(mount: &Mount) -> Option<(String, &'static str)> {
    let kind = name(mount.kind);
    if matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs) {
        let fields = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
        if let Some((field, _)) = fields.iter().find(|(_, value)| value.is_some()) {
            return Some((format!("a mount of type `{kind}` has no `{field}`"), "remove it"));
        }
    }
    if mount.sharing.is_some() && mount.kind != MountKind::Cache {
        return Some((format!("a mount of type `{kind}` has no `sharing`"), "remove it, or write `type=cache`"));
    }
    match mount.kind {
        MountKind::Secret if mount.from.is_some() => Some(("a secret has no `from`".to_owned(), "remove it")),
        MountKind::Secret if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_none() => {
            Some(("the secret is not named".to_owned(), "write `id=NAME`"))
        }
        MountKind::Secret if !mount.source.is_empty() && mount.id.is_some() => {
            Some(("the secret has both `source` and `id`".to_owned(), "keep `id`"))
        }
        MountKind::Ssh if !mount.source.is_empty() => {
            Some(("a mount of type `ssh` has no `source`".to_owned(), "remove it"))
        }
        MountKind::Bind | MountKind::Cache | MountKind::Tmpfs if mount.env.is_some() => {
            Some((format!("a mount of type `{kind}` has no `env`"), "remove it, or write `type=secret`"))
        }
        _ => None,
    }
}

fn name(kind: MountKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("bind", |(name, _)| name)
}

fn not_of(word: &Word, key: &str, kind: MountKind) -> Problem {
    Problem::new(word.span, format!("a mount of type `{}` has no `{key}`", name(kind)))
        .help("remove it, or write `type=` before it")
}

fn one_of<T: std::marker::Copy>(word: &Word, what: &str, value: &str, known: &[(&str, T)]) -> Result<T, Problem> {
    let found = known.iter().find(|(name, _)| value.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind);
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    found.ok_or_else(|| choice(word, what, value, &names))
}

fn number(word: &Word, key: &str, value: &str, radix: u32) -> Result<u32, Problem> {
    let digits = value.chars().all(|c| c.is_ascii_alphanumeric());
    let found = digits.then(|| u32::from_str_radix(value, radix).ok()).flatten();
    let kind = if radix == 8 { "an octal number" } else { "a number" };
    found.ok_or_else(|| Problem::new(word.span, format!("`{key}` is not {kind}: {}", shown(value))))
}

/// Go's words for booleans, which users of BuildKit may write.
fn bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The stage, image or context that a mount takes files from, which no variable can change.
///
/// # Errors
/// If the value is no list of fields.
pub fn mount_source(word: &Word) -> Result<Option<String>, Problem> {
    let fields = fields(word)?;
    let value = |key: &str| {
        let of = |field: &String| match field.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case(key) => Some(value.to_owned()),
            _ => None,
        };
        fields.iter().rev().find_map(of)
    };
    // Only these have files of their own; a type that a variable gives may be one of them.
    let has_files = value("type").is_none_or(|kind| {
        ["bind", "cache"].iter().any(|known| kind.eq_ignore_ascii_case(known)) || kind.contains('$')
    });
    Ok(value("from").filter(|from| has_files && !from.is_empty()))
}
