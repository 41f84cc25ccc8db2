//! Parts of the summary besides the table: why a step failed, and how to run artifacts.

use std::path::Path;

use kiln_proto::{clock, v1};

use super::Step;
use kiln_terminal::{duration, harmless, last_overwrite};

/// How many compiler calls there were, in short; none if there were none.
pub(super) fn counted(calls: &v1::SplitCalls) -> Option<String> {
    let refused: u64 = calls.refused.values().sum();
    let all = calls.hits + calls.compiled + calls.elsewhere + refused;
    let mut words = format!("{all} compiler call{}: {} cached, {} compiled", plural(all), calls.hits, calls.compiled);
    if calls.elsewhere > 0 {
        words.push_str(&format!(" here, {} on other workers", calls.elsewhere));
    }
    (all > 0).then_some(words)
}

/// What became of a step's compiler calls; none if it had none.
pub(super) fn calls(finished: &v1::StepFinished) -> Option<String> {
    let calls = finished.calls.as_ref()?;
    let refused: u64 = calls.refused.values().sum();
    let go = calls.go_hits + calls.go_misses;
    let of_go = || format!("Go's build cache had {} of {go} entries", calls.go_hits);
    let Some(mut words) = counted(calls) else { return (go > 0).then(of_go) };
    if refused > 0 {
        let mut reasons: Vec<(&str, u64)> =
            calls.refused.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
        words.push_str(&format!(", {refused} not split ({})", harmless(&reasons.join(", "))));
    }
    let saved = calls.saved.as_ref().and_then(clock::read_duration).unwrap_or_default();
    if calls.hits > 0 {
        words.push_str(&format!("; {} saved", duration(saved)));
    }
    if go > 0 {
        words.push_str(&format!("; {}", of_go()));
    }
    Some(words)
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Why a step failed, in one line.
pub(super) fn failure(result: &v1::StepFinished) -> String {
    match (result.message.as_str(), result.no_exit_code) {
        ("", true) => "failed".to_owned(),
        ("", false) => format!("failed with exit code {}", result.exit_code),
        (message, _) => message.to_owned(),
    }
}

/// The first error that a failed step printed, unless it is among the last lines, which are shown anyway.
pub(super) fn first_error<'a>(step: &Step, result: &'a v1::StepFinished) -> &'a [String] {
    let is_shown = |line: &String| step.tail.iter().any(|last| last_overwrite(last).contains(line.trim_end()));
    if result.first_error.iter().all(is_shown) { &[] } else { &result.first_error }
}

/// How to run an artifact at `path`, where it can run: on Linux.
pub fn start(artifact: &v1::Artifact, path: &Path) -> Option<String> {
    if artifact.start.is_empty() || cfg!(not(target_os = "linux")) {
        return None;
    }
    let with = if artifact.start_with.is_empty() { String::new() } else { format!("{} ", artifact.start_with) };
    let said = match artifact.kind.as_str() {
        "archive" => {
            let entries = std::fs::read_dir(path).ok()?.flatten();
            let archive =
                entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(".tar.zst"))?;
            let place = Path::new("/tmp").join(&artifact.name);
            let (archive, program) = (word(&archive), word(&place.join(&artifact.start)));
            let place = word(&place);
            format!("mkdir -p {place} && tar -xf {archive} -C {place} && {with}{program}")
        }
        "binary" if path.is_file() => format!("{with}{}", program(path)),
        "binary" => format!("{with}{}", program(&path.join(&artifact.start))),
        _ => return None,
    };
    Some(format!("run it: {said}"))
}

/// A program for a shell, which would look up a name without a slash in `PATH`.
fn program(path: &Path) -> String {
    if path.components().count() == 1 { word(&Path::new(".").join(path)) } else { word(path) }
}

/// A path as a single shell word.
fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    if text.chars().all(is_plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(kind: &str, start: &str, with: &str) -> v1::Artifact {
        v1::Artifact {
            name: "shop".into(),
            kind: kind.into(),
            start: start.into(),
            start_with: with.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_program_is_run_where_it_lies_and_an_archive_unpacked_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop");
        std::fs::write(&file, "").unwrap();
        assert_eq!(start(&artifact("binary", "shop", ""), &file).unwrap(), format!("run it: {}", file.display()));
        let many = dir.path().join("my shop");
        std::fs::create_dir(&many).unwrap();
        let said = start(&artifact("binary", "app.jar", "java -jar"), &many).unwrap();
        assert_eq!(said, format!("run it: java -jar '{}/app.jar'", many.display()));
        std::fs::write(many.join("shop-1-linux-amd64.tar.zst"), "").unwrap();
        let said = start(&artifact("archive", "bin/shop", ""), &many).unwrap();
        assert!(said.contains("tar -xf '") && said.ends_with("-C /tmp/shop && /tmp/shop/bin/shop"), "{said}");
        assert_eq!(start(&artifact("archive", "", ""), &many), None);
    }
}
