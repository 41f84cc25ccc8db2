//! Probes a root file system other than the machine's own by running its programs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use kiln_proto::property::PROBED_TOOLS;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Facts, Options, machine, packages, tools};
use kiln_executor::{Chunk, Exit, Job, Place, Secrets, Stream};
use kiln_sandbox::Sandbox;

/// Time limit for all answers together: an emulated machine is slow.
const PROBE_TIMEOUT: Duration = Duration::from_secs(180);
/// Starts an answer.
const BEGIN: char = '\u{1e}';
/// Separates a question's name from its answer.
const THEN: char = '\u{1f}';
/// Ends the answer of a command that failed.
const FAILED: &str = "\u{1f}failed";

/// Why a root cannot be probed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "`{root}` is not a root file system: {reason}; expected a directory with `/bin/sh`, such as one made by `mmdebstrap`"
    )]
    NoRoot { root: String, reason: String },
    #[error("cannot run the programs of the root `{root}`: {reason}")]
    Silent { root: String, reason: String },
}

/// REAPI's name for the instruction set of a root's `/bin/sh`.
pub(super) fn isa(root: &Path) -> Result<String, Error> {
    let none = |reason: String| Error::NoRoot { root: root.display().to_string(), reason };
    let shell = kiln_sandbox::within(root, Path::new("/bin/sh")).ok_or_else(|| none("it has no `/bin/sh`".into()))?;
    let mut head = [0; 20];
    std::fs::File::open(&shell)
        .and_then(|mut file| file.read_exact(&mut head))
        .map_err(|error| none(format!("`/bin/sh` cannot be read: {error}")))?;
    // ELF header: the magic number, and e_machine at offset 18, in the file's byte order.
    if !head.starts_with(b"\x7fELF") {
        return Err(none("its `/bin/sh` is not an ELF file".into()));
    }
    match u16::from_le_bytes([head[18], head[19]]) {
        62 => Ok("x86-64".to_owned()),
        183 => Ok("arm-a64".to_owned()),
        other => Err(none(format!("its `/bin/sh` is for ELF machine {other}, expected x86-64 or AArch64"))),
    }
}

/// Collects the root's facts.
pub(super) async fn facts(sandbox: &Sandbox, root: &Path, options: &Options) -> Result<Facts, Error> {
    let release = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(kiln_sandbox::within(root, Path::new(path))?).ok())
        .next();
    let isa = isa(root)?;
    let silent = |reason: String| Error::Silent { root: root.display().to_string(), reason };
    let text = ask(sandbox).await.map_err(silent)?;
    let mut answers: BTreeMap<&str, &str> = text.split(BEGIN).filter_map(|answer| answer.split_once(THEN)).collect();
    let libc = answers.remove("libc").unwrap_or_default();
    let libc = libc.trim().strip_prefix("glibc ").map_or_else(|| machine::libc_of(libc), |v| format!("glibc:{v}"));
    let rpm = answers.remove("rpm").map(str::to_owned);
    let tools = answers
        .into_iter()
        .filter(|(_, answer)| !answer.ends_with(FAILED))
        .filter_map(|(tool, answer)| Some((tool.to_owned(), tools::version_line(answer)?)))
        .collect();
    let emulated = isa != machine::isa();
    let cpu_level = if emulated { machine::least_level(&isa) } else { machine::cpu_level() };
    let cpu = if emulated { format!("emulated {isa}") } else { machine::cpu() };
    let (at, cache) = (root.to_owned(), options.packages_cache());
    let packages = tokio::task::spawn_blocking(move || packages::digest(&at, cache.as_deref(), || rpm));
    let packages = packages.await.map_err(|error| silent(error.to_string()))?;
    let os = machine::os_of(&release.unwrap_or_default());
    Ok(Facts { os, libc, isa, cpu_level, tools, packages, cpu, emulated })
}

fn script() -> String {
    let mut script =
        format!("printf '{BEGIN}libc{THEN}'; getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1\n");
    script.push_str(&format!(
        "if command -v rpm >/dev/null; then printf '{BEGIN}rpm{THEN}'; rpm {} 2>/dev/null </dev/null; fi\n",
        packages::RPM_QUESTION.map(|word| format!("'{word}'")).join(" ")
    ));
    for tool in PROBED_TOOLS {
        let question = tools::question(tool).join(" ");
        script.push_str(&format!(
            "if command -v '{tool}' >/dev/null; then printf '{BEGIN}{tool}{THEN}'; '{tool}' {question} 2>&1 </dev/null || \
             printf '{FAILED}'; fi\n"
        ));
    }
    script
}

async fn ask(sandbox: &Sandbox) -> Result<String, String> {
    let empty = tempfile::tempdir().map_err(|error| error.to_string())?;
    let job = Job {
        place: Place::Machine,
        tenant: String::new(),
        layers: vec![empty.path().to_owned()],
        arguments: vec!["/bin/sh".into(), "-c".into(), script()],
        environment: BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned())]),
        secrets: Secrets::default(),
        working_directory: String::new(),
        make_directories: Vec::new(),
        beside: Vec::new(),
        network: false,
        timeout: Some(PROBE_TIMEOUT),
        milli_cpus: 1000,
        memory_bytes: 2 << 30,
        disk_bytes: 1 << 30,
        max_processes: 1000,
        calls: Default::default(),
        session: None,
        conditions: Default::default(),
        usage: None,
    };
    let (sender, mut output) = mpsc::channel::<Chunk>(64);
    let mut text = Vec::new();
    let read = async {
        while let Some(chunk) = output.recv().await {
            if chunk.stream == Stream::Stdout {
                text.extend_from_slice(&chunk.data);
            }
        }
    };
    let (finished, ()) = tokio::join!(sandbox.run(job, sender, CancellationToken::new()), read);
    match finished.map_err(|error| error.to_string())?.exit {
        Exit::Code(_) => Ok(String::from_utf8_lossy(&text).into_owned()),
        other => Err(format!("they ended with {other:?}")),
    }
}
