//! The keys of an artifact with a `dockerfile`.

use super::Error;
use super::image::compression;
use super::reader::Reader;
use super::units;
use kiln_plan::Dockerfile;

/// The key that makes an artifact one of a Dockerfile.
pub(super) const KEY: &str = "dockerfile";
/// The keys that only such an artifact has.
pub(super) const KEYS: &[&str] = &["context", "target", "args", "contexts", "secrets", "memory"];
/// The other keys that it can have.
const ALSO: &[&str] = &[KEY, "kind", "labels", "compression"];

/// The names of the secrets of its commands.
pub(super) fn secrets(table: &Reader<'_>) -> Result<Vec<String>, Error> {
    let names = table.strings("secrets")?;
    let is_name = |name: &String| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(table.bad("secrets", name, "names such as `NPM_TOKEN`: letters, digits and `_`")),
        None => Ok(names),
    }
}

/// How much memory its commands may use.
fn memory(table: &Reader<'_>) -> Result<Option<u64>, Error> {
    let Some(size) = table.string("memory")? else { return Ok(None) };
    units::read_size(&size).map(Some).ok_or_else(|| table.bad("memory", &size, units::SIZE))
}

pub(super) fn dockerfile(table: &Reader<'_>) -> Result<Dockerfile, Error> {
    table.only(&[KEYS, ALSO].concat())?;
    if let Some(kind) = table.string("kind")?.filter(|kind| kind != "image") {
        return Err(table.bad("kind", kind, "`image`, which is what a Dockerfile builds"));
    }
    let path = |key: &str, text: String| {
        let trimmed = text.trim_start_matches("./").trim_end_matches('/').to_owned();
        let leaves =
            trimmed.starts_with('/') || trimmed.split('/').any(|part| part == ".." || part == "." && trimmed != ".");
        let path = if trimmed == "." { String::new() } else { trimmed };
        if leaves { Err(table.bad(key, text, "a path in the project")) } else { Ok(path) }
    };
    let file = path(KEY, table.required_string(KEY)?)?;
    if file.is_empty() {
        return Err(table.bad(KEY, file, "the path of a file"));
    }
    let context = table.string("context")?.map(|text| path("context", text)).transpose()?.unwrap_or_default();
    let mut contexts = table.string_map("contexts")?;
    for value in contexts.values_mut().filter(|value| !value.contains("://")) {
        *value = path("contexts", value.clone())?;
    }
    Ok(Dockerfile {
        file,
        context,
        stage: table.string("target")?,
        args: table.string_map("args")?,
        contexts,
        secrets: secrets(table)?,
        labels: table.string_map("labels")?,
        compression: compression(table)?,
        memory_bytes: memory(table)?,
        ..Dockerfile::default()
    })
}
