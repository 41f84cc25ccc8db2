//! What differs between two runs of a step.

use kiln_proto::v1;
use kiln_proto::v1::difference::Kind;
use kiln_terminal as terminal;

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "input",
        Kind::Variable => "variable",
        Kind::Command => "command",
        Kind::Tool => "tool",
        Kind::System => "system",
        Kind::Platform => "platform",
        Kind::Image => "image",
        Kind::Need => "output of",
        Kind::Setting => "setting",
        Kind::Unspecified => "other",
    }
}

/// The same for scripts.
pub(crate) fn script_word(kind: Kind) -> &'static str {
    if kind == Kind::Need { "need" } else { kind_word(kind) }
}

/// A row of a table: what, its name, before, after.
pub(crate) fn row(difference: &v1::Difference) -> Vec<String> {
    let value = |value: &Option<String>| match value {
        None => "(none)".to_owned(),
        Some(value) if matches!(difference.kind(), Kind::Input | Kind::Need) => shortened(value),
        Some(value) => value.trim_end().replace('\n', " \u{23ce} "),
    };
    let kind = format!("  {}", kind_word(difference.kind()));
    vec![kind, difference.name.clone(), value(&difference.before), value(&difference.after)]
}

/// A digest as the first characters of its hash and its size; other text unchanged. A directory's digest does not show
/// the size of its content, so that is omitted.
fn shortened(text: &str) -> String {
    let (digest, word) = text.split_once(' ').unwrap_or((text, ""));
    let Ok(digest) = digest.parse::<kiln_proto::digest::Digest>() else { return text.to_owned() };
    let size = terminal::size(digest.size);
    let facts = match word {
        "" => size,
        "directory" => word.to_owned(),
        word => format!("{size}, {word}"),
    };
    format!("{} ({facts})", digest.hex().get(..12).unwrap_or_default())
}
