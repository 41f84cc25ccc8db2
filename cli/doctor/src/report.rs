//! Findings as text and as JSON, both on standard output.

use kiln_proto::v1::Check;
use kiln_proto::v1::check::State;
use kiln_terminal::{count, harmless};
use serde_json::{Value, json};

/// Findings about one thing, such as a machine.
#[derive(Debug)]
pub struct Section {
    /// What they are about.
    pub about: String,
    /// The findings.
    pub checks: Vec<Check>,
}

/// Whether nothing that is needed is missing.
pub(crate) fn is_well(sections: &[Section]) -> bool {
    number(sections, State::Missing) == 0
}

fn number(sections: &[Section], state: State) -> usize {
    sections.iter().flat_map(|section| &section.checks).filter(|check| check.state() == state).count()
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Missing => "missing",
        // A newer worker may know other states.
        State::Warning | State::Unspecified => "warning",
    }
}

pub(crate) fn print(sections: &[Section], as_json: bool) {
    use std::io::Write;
    let text = if as_json { format!("{:#}\n", object(sections)) } else { text(sections) };
    // Whoever reads it may have gone.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn object(sections: &[Section]) -> Value {
    let of = |check: &Check| {
        json!({
            "name": check.name,
            "state": word(check.state()),
            "found": check.found,
            "why": check.why,
            "fix": check.fix,
        })
    };
    let section = |section: &Section| json!({ "about": section.about, "checks": section.checks.iter().map(of).collect::<Vec<_>>() });
    json!({ "well": is_well(sections), "sections": sections.iter().map(section).collect::<Vec<_>>() })
}

fn text(sections: &[Section]) -> String {
    let width = sections.iter().flat_map(|section| &section.checks).map(|check| check.name.chars().count()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for section in sections {
        text.push_str(&format!("{}\n", harmless(&section.about)));
        for check in &section.checks {
            let (name, found) = (harmless(&check.name), harmless(&check.found));
            text.push_str(&format!("  {:<7}  {name:<width$}  {found}\n", word(check.state())));
            if check.state() != State::Ok {
                for (what, words) in [("why", &check.why), ("fix", &check.fix)] {
                    if !words.is_empty() {
                        text.push_str(&format!("  {:<7}  {:<width$}  {what}: {}\n", "", "", harmless(words)));
                    }
                }
            }
        }
        text.push('\n');
    }
    let (missing, warnings) = (number(sections, State::Missing), number(sections, State::Warning));
    let first =
        if missing == 0 { "nothing that is needed is missing".to_owned() } else { format!("{missing} missing") };
    text.push_str(&if warnings == 0 {
        format!("{first}\n")
    } else {
        format!("{first}; {}\n", count(warnings, "warning"))
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lacks, ok};

    fn sections() -> Vec<Section> {
        let checks = vec![
            ok("git", "2.39.2", "sources"),
            lacks("step networks", State::Warning, "no pasta", "they share the machine's", "apt-get install passt"),
            lacks("kernel", State::Missing, "Linux 4.18", "a sandbox", "a newer\u{1b}[2J one"),
        ];
        vec![Section { about: "this machine".into(), checks }]
    }

    #[test]
    fn a_finding_has_its_reason_and_its_fix_and_nothing_controls_the_terminal() {
        let text = text(&sections());
        assert!(
            text.starts_with("this machine\n  ok       git            2.39.2\n  warning  step networks  no pasta\n"),
            "{text}"
        );
        assert!(
            text.contains("why: they share the machine's\n") && text.contains("fix: apt-get install passt\n"),
            "{text}"
        );
        assert!(text.ends_with("1 missing; 1 warning\n") && !text.contains('\u{1b}'), "{text}");
        assert!(!is_well(&sections()));
    }

    #[test]
    fn scripts_get_the_same() {
        let object = object(&sections());
        assert_eq!(object["well"], false);
        let check = &object["sections"][0]["checks"][1];
        assert_eq!(
            (&check["name"], &check["state"], &check["fix"]),
            (&json!("step networks"), &json!("warning"), &json!("apt-get install passt"))
        );
    }
}
