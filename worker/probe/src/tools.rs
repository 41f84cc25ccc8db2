//! Asks tools for their versions.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_proto::property::PROBED_TOOLS;

/// Time limit for a tool to report its version. A tool that exceeds it is missing from the environment, which changes
/// every key. On a busy machine some tools need a minute.
const VERSION_TIMEOUT: Duration = Duration::from_secs(120);

/// The arguments that make a tool print its version.
pub(super) fn question(tool: &str) -> &'static [&'static str] {
    match tool {
        "go" | "hugo" | "zig" => &["version"],
        "java" | "javac" => &["-version"],
        _ => &["--version"],
    }
}

/// Maps each tool in `path` that answers to the first line of its version.
pub(super) fn versions(path: &str, cache: Option<&Path>) -> BTreeMap<String, String> {
    let known: BTreeMap<String, String> =
        cache.and_then(|cache| serde_json::from_slice(&fs::read(cache).ok()?).ok()).unwrap_or_default();
    let found: Vec<(&str, PathBuf, String)> = PROBED_TOOLS
        .iter()
        .filter_map(|tool| {
            let file = find(tool, path)?;
            let identity = identity(&file)?;
            Some((*tool, file, identity))
        })
        .collect();
    // Not all at once, because each would slow down the others.
    let threads = 4 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let answer = || -> Vec<(String, String, String)> {
        let mut answers = Vec::new();
        while let Some((tool, file, identity)) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            let version = known.get(identity).cloned().or_else(|| ask(file, question(tool), path));
            answers.extend(version.map(|version| ((*tool).to_owned(), identity.clone(), version)));
        }
        answers
    };
    let answers: Vec<(String, String, String)> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..threads).map(|_| scope.spawn(answer)).collect();
        asking.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    if let Some(cache) = cache {
        let all: BTreeMap<&str, &str> =
            answers.iter().map(|(_, identity, version)| (identity.as_str(), version.as_str())).collect();
        if let Ok(data) = serde_json::to_vec(&all) {
            let _ = fs::write(cache, data);
        }
    }
    answers.into_iter().map(|(tool, _, version)| (tool, version)).collect()
}

fn find(tool: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .filter(|part| !part.is_empty())
        .map(|part| Path::new(part).join(tool))
        .find(|file| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

/// A string that changes when a tool is replaced: its name, and the resolved file's path, size and time.
fn identity(file: &Path) -> Option<String> {
    let real = file.canonicalize().ok()?;
    let data = real.metadata().ok()?;
    Some(format!("{}|{}|{}|{}|{}", file.display(), real.display(), data.len(), data.mtime(), data.mtime_nsec()))
}

fn ask(file: &Path, question: &[&str], path: &str) -> Option<String> {
    let mut child = Command::new(file)
        .args(question)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut stdout, mut stderr) = (child.stdout.take()?, child.stderr.take()?);
    let reader = std::thread::spawn(move || {
        let (mut text, mut complaints) = (String::new(), String::new());
        let _ = stdout.read_to_string(&mut text);
        let _ = stderr.read_to_string(&mut complaints);
        text + &complaints
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if began.elapsed() > VERSION_TIMEOUT => {
                tracing::warn!(tool = %file.display(), ?VERSION_TIMEOUT, "a tool does not report its version, and counts as missing");
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = reader.join().ok()?;
    version_line(&text).filter(|_| status.success())
}

/// The first line that contains a digit.
pub(super) fn version_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| line.chars().any(|c| c.is_ascii_digit()));
    line.map(|line| plain(line).chars().take(200).collect())
}

/// The line without the control sequences that some tools use for colours (ECMA-48, 5.4).
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.trim_start_matches(|c| !('@'..='~').contains(&c)).get(1..).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn colours_are_left_out_of_a_version() {
        assert_eq!(super::plain("\u{1b}[1mApache Maven 3.8.7\u{1b}[0;31m x\u{1b}[m"), "Apache Maven 3.8.7 x");
        assert_eq!(super::plain("go1.19"), "go1.19");
    }
}
