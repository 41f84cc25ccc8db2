//! The keys of an artifact of the kind `image`.

use super::reader::Reader;
use super::{Error, parse};
use kiln_plan::{Base, Compression, Image, SCRATCH, read_owner, read_port};

/// The keys of such an artifact, in addition to those of every artifact.
pub(super) const KEYS: &[&str] = &[
    "base",
    "runtime_packages",
    "entrypoint",
    "start",
    "layers",
    "cmd",
    "env",
    "user",
    "workdir",
    "labels",
    "ports",
    "owner",
    "compression",
];

pub(super) fn image(table: &Reader<'_>) -> Result<Image, Error> {
    let base = table.required_string("base")?;
    if base.is_empty() || base == "./" || base.contains(char::is_whitespace) {
        return Err(table.bad("base", base, "`scratch`, an image such as `debian:12`, or a path such as `./base.tar`"));
    }
    Ok(Image {
        packages: packages(table, &base)?,
        base: Base::read(&base),
        entrypoint: words(table, "entrypoint")?,
        start: start(table)?,
        layers: layers(table)?,
        cmd: words(table, "cmd")?,
        env: env(table)?,
        user: user(table)?,
        workdir: workdir(table)?,
        labels: table.string_map("labels")?,
        ports: ports(table)?,
        owner: owner(table)?,
        compression: compression(table)?,
    })
}

fn packages(table: &Reader<'_>, base: &str) -> Result<Vec<String>, Error> {
    let packages = parse::packages(table, "runtime_packages")?;
    match packages.first() {
        Some(first) if base == SCRATCH => {
            Err(table.bad("runtime_packages", first, "a `base` with a package manager: `scratch` has none"))
        }
        _ => Ok(packages),
    }
}

/// `start = true` beside a command would not say which of them counts.
fn start(table: &Reader<'_>) -> Result<bool, Error> {
    let start = table.bool("start")?.unwrap_or_default();
    match ["entrypoint", "cmd"].into_iter().find(|key| table.has(key)) {
        Some(key) if start => Err(table.bad("start", true, format!("`false`, because `{key}` is set"))),
        _ => Ok(start),
    }
}

fn layers(table: &Reader<'_>) -> Result<Vec<String>, Error> {
    let globs = table.strings("layers")?;
    match globs.iter().find_map(|glob| Some((glob, kiln_plan::glob_error(glob)?))) {
        Some((glob, _)) => Err(table.bad("layers", glob, "patterns of paths in the image's `workdir`")),
        None => Ok(globs),
    }
}

fn words(table: &Reader<'_>, key: &str) -> Result<Option<Vec<String>>, Error> {
    let words = table.strings(key)?;
    Ok(table.has(key).then_some(words))
}

fn env(table: &Reader<'_>) -> Result<std::collections::BTreeMap<String, String>, Error> {
    let env = table.string_map("env")?;
    match env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        Some(name) => Err(table.bad("env", name, "names that a variable can have")),
        None => Ok(env),
    }
}

fn user(table: &Reader<'_>) -> Result<Option<String>, Error> {
    let user = table.string("user")?;
    match user.as_deref().filter(|user| user.is_empty() || user.contains(|c: char| c.is_whitespace() || c == '/')) {
        Some(bad) => Err(table.bad("user", bad, "a user and optionally a group, such as `1000:1000` or `www-data`")),
        None => Ok(user),
    }
}

fn workdir(table: &Reader<'_>) -> Result<Option<String>, Error> {
    let workdir = table.string("workdir")?;
    let plain =
        |path: &str| path == "/" || path.strip_prefix('/').is_some_and(|rest| kiln_plan::path_problem(rest).is_none());
    match workdir.as_deref().filter(|path| !plain(path)) {
        Some(bad) => Err(table.bad("workdir", bad, "an absolute path in the image, such as `/srv/app`")),
        None => Ok(workdir.map(|path| if path == "/" { path } else { path.trim_end_matches('/').to_owned() })),
    }
}

/// Ports may be written as numbers.
fn ports(table: &Reader<'_>) -> Result<Vec<String>, Error> {
    let written = table.list("ports", "a list of ports", |value| {
        value.as_str().map(str::to_owned).or_else(|| value.as_integer().map(|number| number.to_string()))
    })?;
    let read =
        |port: &String| read_port(port).ok_or_else(|| table.bad("ports", port, "ports such as `8080` or `53/udp`"));
    written.iter().map(read).collect()
}

fn owner(table: &Reader<'_>) -> Result<(u32, u32), Error> {
    match table.string("owner")? {
        None => Ok((0, 0)),
        Some(text) => read_owner(&text)
            .ok_or_else(|| table.bad("owner", &text, "numeric user and group ids, such as `1000:1000`")),
    }
}

pub(super) fn compression(table: &Reader<'_>) -> Result<Compression, Error> {
    match table.string("compression")?.as_deref() {
        None | Some("gzip") => Ok(Compression::Gzip),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => Err(table.bad("compression", other, "`gzip` or `zstd`")),
    }
}
