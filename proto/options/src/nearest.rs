//! The name that somebody probably meant.

/// How alike a wrong name must be to one that there is.
const ALIKE: f64 = 0.6;

/// The most similar name, if one is similar.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = |known: &str| strsim::jaro_winkler(wrong, known);
    let best = known.into_iter().max_by(|one, other| alike(one).total_cmp(&alike(other)))?;
    (alike(best) >= ALIKE).then_some(best)
}

/// What to say after a name that there is not: the nearest one, or all if they are few.
pub fn did_you_mean(wrong: &str, known: &[&str]) -> String {
    const FEW: usize = 12;
    match nearest(wrong, known.iter().copied()) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() || known.len() > FEW => String::new(),
        None => format!("; expected one of `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_offered_and_none_if_nothing_is_similar() {
        assert_eq!(nearest("store-sise", ["cache-age", "store-size"]), Some("store-size"));
        assert_eq!(nearest("zzz", ["cache-age", "store-size"]), None);
        assert_eq!(did_you_mean("frm", &["farm", "farms"]), "; did you mean `farm`?");
        assert_eq!(did_you_mean("zzz", &["farm", "farms"]), "; expected one of `farm`, `farms`");
    }
}
