//! How severe a vulnerability is. Source: CVSS 2.0, 3.1 and 4.0, with the ratings of 3.1; the words of advisory databases.

use cvss::Cvss;

/// A rating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A score of 0.
    None,
    /// A score from 0.1.
    Low,
    /// A score from 4.0.
    Medium,
    /// A score from 7.0.
    High,
    /// A score from 9.0.
    Critical,
}

impl Severity {
    /// The rating of a score from 0 to 10.
    fn of_score(score: f64) -> Self {
        match score {
            score if score >= 9.0 => Self::Critical,
            score if score >= 7.0 => Self::High,
            score if score >= 4.0 => Self::Medium,
            score if score > 0.0 => Self::Low,
            _ => Self::None,
        }
    }

    /// The rating of a CVSS vector with its score, of a plain score, or of a word.
    pub(crate) fn read(text: &str) -> Option<(Self, Option<f64>)> {
        if let Ok(score) = text.trim().parse::<f64>() {
            return (0.0..=10.0).contains(&score).then(|| (Self::of_score(score), Some(score)));
        }
        if text.contains('/') {
            let score = text.trim().parse::<Cvss>().ok()?.score();
            return Some((Self::of_score(score), Some(score)));
        }
        let found = match text.trim().to_ascii_lowercase().as_str() {
            "critical" => Self::Critical,
            "high" | "important" => Self::High,
            "medium" | "moderate" => Self::Medium,
            "low" => Self::Low,
            "none" | "negligible" | "unimportant" => Self::None,
            _ => return None,
        };
        Some((found, None))
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Reads a threshold; `any` is `None` within.
    pub fn threshold(text: &str) -> Option<Option<Self>> {
        let all = [Self::Low, Self::Medium, Self::High, Self::Critical];
        match text {
            "any" => Some(None),
            text => all.into_iter().find(|severity| severity.name() == text).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_scores_and_words_are_rated() {
        let rated = |text: &str| Severity::read(text).map(|(severity, score)| (severity.name(), score));
        assert_eq!(rated("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"), Some(("critical", Some(9.8))));
        assert_eq!(rated("CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N"), Some(("low", Some(3.1))));
        assert_eq!(rated("AV:N/AC:L/Au:N/C:P/I:P/A:P"), Some(("high", Some(7.5))));
        assert_eq!(
            rated("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N").map(|(name, _)| name),
            Some("critical")
        );
        assert_eq!((rated("7.0"), rated("MODERATE")), (Some(("high", Some(7.0))), Some(("medium", None))));
        for bad in ["", "CVSS:3.1/AV:X", "11", "nan", "not yet assigned"] {
            assert_eq!(rated(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Severity::read(&text);
        }
    }
}
