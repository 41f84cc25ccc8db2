//! `[notify]`: who is told of the end of a build.

use kiln_plan::{Ending, Notify, glob_error};

use super::Error;
use super::reader::Reader;

const KEYS: &[&str] = &["url", "events", "branches", "key", "uncommitted"];
const URL: &str = "an `https://` URL without spaces, user and password";

/// Reads the table, if there is one.
pub(super) fn read(root: &Reader<'_>) -> Result<Option<Notify>, Error> {
    let Some(table) = root.table("notify")? else { return Ok(None) };
    table.only(KEYS)?;
    let url = table.required_string("url")?;
    if !is_plain(&url) {
        return Err(table.bad("url", url, URL));
    }
    let mut events = Vec::new();
    for text in table.strings("events")? {
        events.push(Ending::read(&text).ok_or_else(|| table.bad("events", &text, Ending::EXPECTED))?);
    }
    if events.is_empty() {
        events = Ending::DEFAULT.to_vec();
    }
    let branches = table.strings("branches")?;
    if let Some(branch) = branches.iter().find(|branch| branch.is_empty() || glob_error(branch).is_some()) {
        return Err(table.bad("branches", branch, "names of branches, with `*` for a part of one"));
    }
    let key = table.string("key")?;
    if let Some(key) = key.as_deref().filter(|key| key.is_empty() || key.contains(char::is_whitespace)) {
        return Err(table.bad("key", key, "the name of a key in the coordinator's configuration"));
    }
    Ok(Some(Notify { url, events, branches, key, uncommitted: table.bool("uncommitted")?.unwrap_or(false) }))
}

/// Whether it is a URL that a file that everyone reads may contain. The coordinator reads it as a whole, and decides where it may call.
fn is_plain(url: &str) -> bool {
    let rest = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| !authority.is_empty() && !authority.contains(['@', '\\']))
        && url.chars().all(|c| c.is_ascii_graphic())
}
