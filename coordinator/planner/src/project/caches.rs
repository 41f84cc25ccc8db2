//! The key `caches` of a step.

use super::Error;
use super::reader::Reader;
use kiln_plan::{Cache, Sharing};

/// Most characters of a cache's key.
const MAX_KEY: usize = 64;

/// Reads the caches of a step, by their paths. Whether there can be caches is for the whole plan to say.
pub(super) fn read(step: &Reader<'_>) -> Result<Vec<(String, Cache)>, Error> {
    step.tables("caches")?.into_iter().map(|(path, table)| cache(path, &table)).collect()
}

fn cache(path: String, table: &Reader<'_>) -> Result<(String, Cache), Error> {
    table.only(&["key", "sharing"])?;
    let key = table.required_string("key")?;
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if key.is_empty() || key.len() > MAX_KEY || !key.chars().all(is_letter) {
        let expected = format!("a name of at most {MAX_KEY} letters, digits, `.`, `-` and `_`, such as `gradle`");
        return Err(table.bad("key", key, expected));
    }
    let sharing = match table.string("sharing")? {
        None => Sharing::default(),
        Some(name) => Sharing::ALL
            .into_iter()
            .find(|sharing| sharing.name() == name)
            .ok_or_else(|| table.bad("sharing", &name, "`shared`, `private` or `locked`"))?,
    };
    Ok((path.strip_suffix('/').unwrap_or(&path).to_owned(), Cache { key, sharing }))
}
