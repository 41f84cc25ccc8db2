//! The fields of a mount.

use crate::error::Problem;
use crate::source::Word;

/// The fields of one line of CSV: separated by commas; a field in quotes may contain commas, and `""` for a quote.
pub(super) fn fields(word: &Word) -> Result<Vec<String>, Problem> {
    let problem = |message: &str| Problem::new(word.span, format!("{message} in a mount's fields"));
    let text = word.value.as_str();
    if text.is_empty() {
        return Err(Problem::new(word.span, "the mount has no fields")
            .help("write for example `--mount=type=tmpfs,target=/tmp`"));
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = rest.split_once(',').map_or((rest, None), |(field, more)| (field, Some(more)));
            if field.contains('"') {
                return Err(problem("a quote in the middle of a field").help("put the whole field into quotes"));
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut inside = quoted;
        loop {
            let Some((text, more)) = inside.split_once('"') else {
                return Err(problem("a quote without its end"));
            };
            field.push_str(text);
            if let Some(more) = more.strip_prefix('"') {
                field.push('"');
                inside = more;
                continue;
            }
            fields.push(field);
            match more.strip_prefix(',') {
                Some(more) => rest = more,
                None if more.is_empty() => return Ok(fields),
                None => return Err(problem("text after a quoted field")),
            }
            break;
        }
    }
}
