//! Fields separated by commas, as in `--output type=local,dest=out`. A field in quotes can contain commas.

/// The fields of a value.
///
/// # Errors
/// If a quote is not closed, or is within a field that does not begin with one.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if field.contains('"') {
                    return Err("a quote within a field; put the whole field in quotes".to_owned());
                }
                (field.to_owned(), after)
            }
        };
        found.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(found),
            None => return Err("text after a closing quote; expected a comma".to_owned()),
        }
    }
}

/// A field up to its closing quote, where two quotes stand for one, and what follows it.
fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"').ok_or("a quote is not closed")?;
        field.push_str(before);
        rest = after;
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, rest)),
        }
    }
}

/// The fields of a value as `NAME=VALUE`, names in lower case.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_ascii_lowercase(), value.to_owned())),
        None => Err(format!("invalid field `{field}`; expected NAME=VALUE")),
    };
    fields(text)?.into_iter().map(pair).collect()
}

/// Go's notation of truth.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_separated_by_commas_outside_of_quotes() {
        assert_eq!(fields("type=local,dest=a b").unwrap(), ["type=local", "dest=a b"]);
        assert_eq!(fields("type=image,\"name=a,b\",push=true").unwrap(), ["type=image", "name=a,b", "push=true"]);
        assert_eq!(fields("\"say \"\"it\"\"\"").unwrap(), ["say \"it\""]);
        assert_eq!(fields("").unwrap(), [""]);
        for wrong in ["\"open", "a\"b", "\"a\"b"] {
            assert!(fields(wrong).is_err(), "{wrong}");
        }
        assert_eq!(pairs("Type=Local").unwrap(), [("type".to_owned(), "Local".to_owned())]);
    }
}
