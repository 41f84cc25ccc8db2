//! Finds steps whose results suit only the CPU that they were built on, from their commands and build files.
//!
//! With `native`, a compiler targets the CPU that it runs on. The result may not even run on another one, so the CPU is
//! part of such a step's key. Other steps give the same results on every worker, so it is not part of theirs.

use std::collections::HashMap;
use std::sync::LazyLock;

use futures::{StreamExt, stream};
use kiln_planner::plan::{self, Plan, Step};
use kiln_proto::digest::Digest;
use kiln_trees::tree::Entry;
use parking_lot::Mutex;
use regex::bytes::Regex;

use super::source::SourceTree;
use kiln_store::BlobStore;

/// Largest build file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Build files that are read at once.
const CONCURRENCY: usize = 16;
/// Maximum answers that are remembered.
const REMEMBERED: usize = 100_000;

/// How GCC, Clang, Intel's compilers and rustc are told to compile for the CPU they run on. A test compiles the
/// pattern.
static NATIVE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"-m(?:arch|cpu|tune)=native|target-cpu[= ]native|-xHost\b").ok());

/// What is known of build files, by their content.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Digest, Option<String>>>);

/// Marks the steps of a plan whose results depend on the CPU, with a note that says why.
pub(super) async fn mark(plan: &mut Plan, source: &SourceTree, store: &dyn BlobStore, known: &Known) {
    let mut files: HashMap<&str, String> = HashMap::new();
    let wanted = source.entries().filter(|(path, _)| is_build_file(path)).filter_map(|(path, entry)| match entry {
        Entry::File { digest, .. } if digest.size <= MAX_BYTES => Some((path, *digest)),
        _ => None,
    });
    let asked: Vec<_> =
        wanted.map(|(path, digest)| async move { (path, of_file(store, known, digest).await) }).collect();
    let mut answers = stream::iter(asked).buffer_unordered(CONCURRENCY);
    while let Some((path, word)) = answers.next().await {
        files.extend(word.map(|word| (path, word)));
    }
    drop(answers);
    let mut notes = Vec::new();
    for step in plan.steps.iter_mut().filter(|step| !step.native) {
        let Some((place, word)) = of_step(step).or_else(|| of_inputs(step, source, &files)) else { continue };
        step.native = true;
        notes.push(format!(
            "step `{}` compiles for the CPU that it runs on (`{word}` in {place}): only workers with the same CPU share its \
             result, and it may not run elsewhere; name the CPU that production has, such as `x86-64-v3`",
            step.name
        ));
    }
    plan.notes.extend(notes);
}

fn is_build_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    matches!(
        name,
        "CMakeLists.txt"
            | "CMakePresets.json"
            | "Cargo.toml"
            | "SConscript"
            | "SConstruct"
            | "build.rs"
            | "build.zig"
            | "config.toml"
            | "configure"
            | "configure.ac"
            | "meson.build"
            | "pyproject.toml"
            | "setup.cfg"
            | "setup.py"
            | "wscript"
    ) || ["Makefile", "makefile", "GNUmakefile"].iter().any(|make| name.starts_with(make))
        || matches!(extension, "bazelrc" | "cmake" | "gyp" | "gypi" | "mak" | "mk" | "pri" | "pro" | "sh")
        || path.ends_with(".cargo/config")
}

fn find(data: &[u8]) -> Option<String> {
    let found = NATIVE.as_ref()?.find(data)?;
    Some(String::from_utf8_lossy(found.as_bytes()).into_owned())
}

async fn of_file(store: &dyn BlobStore, known: &Known, digest: Digest) -> Option<String> {
    if let Some(answer) = known.0.lock().get(&digest) {
        return answer.clone();
    }
    // A file that cannot be read now is no reason to refuse the build; the next build tries again.
    let answer = find(&store.get(&digest).await.ok()?);
    let mut known = known.0.lock();
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(digest, answer.clone());
    answer
}

fn of_step(step: &Step) -> Option<(String, String)> {
    if let Some(word) = find(step.run.as_bytes()) {
        return Some(("its command".to_owned(), word));
    }
    let variables = step.env.iter().map(|(name, value)| (format!("its variable `{name}`"), value));
    let files = step.files.iter().map(|(path, content)| (format!("its file `{path}`"), content));
    variables.chain(files).find_map(|(place, text)| Some((place, find(text.as_bytes())?)))
}

fn of_inputs(step: &Step, source: &SourceTree, files: &HashMap<&str, String>) -> Option<(String, String)> {
    // A step that fetches reads build files too, but compiles nothing.
    if files.is_empty() || step.network && !step.inputs.is_empty() {
        return None;
    }
    let mut inputs = plan::input_files(step, source.paths()).into_iter().map(|index| source.paths()[index].as_str());
    inputs.find_map(|path| Some((format!("`{path}`"), files.get(path)?.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compiles_for_the_machine_at_hand_is_found() {
        for text in
            ["CFLAGS += -O3 -march=native", "-mcpu=native", "RUSTFLAGS='-C target-cpu=native'", "icc -xHost a.c"]
        {
            assert!(find(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["-march=x86-64-v3", "native", "-xHostile"] {
            assert_eq!(find(text.as_bytes()), None, "{text}");
        }
        let mut step = Step::new("compile", "make");
        assert_eq!(of_step(&step), None);
        step.env.insert("CFLAGS".into(), "-O2 -march=native".into());
        assert_eq!(of_step(&step), Some(("its variable `CFLAGS`".into(), "-march=native".into())));
    }

    #[test]
    fn build_files_are_known_by_their_names() {
        for path in ["Makefile", "src/Makefile.am", "CMakeLists.txt", "a/b.cmake", ".cargo/config.toml", "build.rs"] {
            assert!(is_build_file(path), "{path}");
        }
        for path in ["src/main.c", "README.md", "Makefiles/x"] {
            assert!(!is_build_file(path), "{path}");
        }
    }
}
