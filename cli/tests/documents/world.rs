//! A scratch directory in which a page's commands run unchanged: its absolute paths, host names and ports lead there.
//!
//! `PATH` has only the programs that this file names, so a command of a page runs here, is listed as covered elsewhere,
//! or fails.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::elsewhere::{ELSEWHERE, PARSED};
use super::page::{self, Block};
use kiln_harness::Ran;

/// Programs of the machine that pages may use.
const TOOLS: [&str; 17] = [
    "bash", "sh", "cat", "chmod", "cp", "cut", "grep", "head", "install", "ls", "mkdir", "mktemp", "rm", "sed",
    "sleep", "tr", "true",
];
/// What coordinators and workers find; a worker that finds more asks each tool for its version.
const SERVED: [&str; 3] = ["git", "pasta", "sh"];
const OWN: [&str; 4] = ["kiln", "kiln-coordinator", "kiln-worker", "kiln-bench"];
/// Paths in pages that lie in the scratch directory.
const PLACES: [&str; 5] = ["/etc/", "/srv/", "/tmp/", "/usr/local/bin", "/var/lib/"];

pub struct World {
    dir: tempfile::TempDir,
    page: &'static str,
    /// Text in a page, and its replacement here.
    names: Vec<(String, String)>,
    _caretaker: Child,
}

/// Ends what a page left running, even if the test is killed: its standard input ends with the test.
const CARE: &str = r#"cat >/dev/null; for file in "$1"/pids/*; do kill -9 "$(cat "$file")"; done"#;

impl Drop for World {
    fn drop(&mut self) {
        drop(self._caretaker.stdin.take());
        let _ = self._caretaker.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl World {
    pub fn new(page: &'static str, redis: Option<u16>) -> Self {
        let dir = kiln_harness::caretaker::directory();
        let care = Command::new("sh")
            .args(["-c", CARE, "care"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut names = vec![("farm.example".to_owned(), "127.0.0.1".to_owned())];
        for port in [8980, 9480, 9481, 8443] {
            names.push((format!(":{port}"), format!(":{}", free_port())));
        }
        for (host, here) in [("//farm:", "//127.0.0.1:"), ("0.0.0.0:", "127.0.0.1:"), ("10.0.0.1:", "127.0.0.1:")] {
            names.push((host.to_owned(), here.to_owned()));
        }
        names.extend(redis.map(|port| ("@cache:6379".to_owned(), format!("@127.0.0.1:{port}"))));
        let world = Self { dir, page, names, _caretaker: care.unwrap() };
        world.furnish();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where commands run: contains the files of the repository that pages name.
    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// A page's text with the paths of this world.
    pub fn placed(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.names {
            text = text.replace(from, to);
        }
        let (mut placed, mut before) = (String::new(), ' ');
        for (at, letter) in text.char_indices() {
            let begins = before.is_whitespace() || "\"'=:@".contains(before);
            if begins && PLACES.iter().any(|place| text[at..].starts_with(place)) {
                placed.push_str(self.dir.path().to_str().unwrap());
            }
            placed.push(letter);
            before = letter;
        }
        placed
    }

    fn furnish(&self) {
        for name in
            ["bin", "served", "home", "pids", "logs", "etc/systemd/system", "var/lib", "srv", "tmp", "usr/local/bin"]
        {
            std::fs::create_dir_all(self.path(name)).unwrap();
        }
        let repository = self.repository();
        kiln_harness::copy(&page::root().join("deploy"), &repository.join("deploy"));
        for file in ["fuzz", "long", "test"] {
            let check = format!("bash -n {}\n", page::root().join(".ci").join(file).display());
            kiln_harness::write(&repository, &format!(".ci/{file}"), &check);
        }
        std::fs::create_dir_all(repository.join("target/release")).unwrap();
        for (names, place) in [(&TOOLS[..], "bin"), (&SERVED[..], "served")] {
            for name in names {
                if let Some(program) = on_path(name) {
                    symlink(program, self.path(place).join(name)).unwrap();
                }
            }
        }
        let listed = ELSEWHERE.iter().filter(|(page, ..)| *page == self.page);
        let lines: Vec<String> = listed.map(|(_, command, _)| self.placed(command)).collect();
        std::fs::write(self.path("elsewhere"), lines.join("\n") + "\n").unwrap();
        std::fs::write(self.path("met"), "").unwrap();
        for name in OWN {
            self.program(name, built(name).to_str().unwrap(), "serve_or_run");
            std::fs::copy(self.path("bin").join(name), repository.join("target/release").join(name)).unwrap();
        }
        self.program("cargo", env!("CARGO"), "cargo_");
        self.program("kubectl", "/usr/bin/kubectl", "kubectl_");
        self.program("helm", "/opt/kiln-test-tools/bin/helm", "helm_");
        for name in ["bazel", "chown", "docker", "mmdebstrap", "rustup", "systemctl", "useradd"] {
            self.program(name, "", "refuse");
        }
    }

    /// A program of this world: commands listed as covered elsewhere are only recorded; a function handles the rest.
    fn program(&self, name: &str, real: &str, function: &str) {
        let (world, repository) = (self.dir.path().display(), page::root().display().to_string());
        let tools = kiln_harness::farm::tools_cache().display().to_string();
        let text = format!(
            "#!/bin/bash\nWORLD='{world}' REPOSITORY='{repository}' TOOLS='{tools}' NAME='{name}' REAL='{real}'\n{SHIM}\n\
             {function} \"$@\"\n"
        );
        let path = self.path("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs blocks in sequence, in one shell.
    #[track_caller]
    pub fn run(&self, before: &str, blocks: &[Block]) -> Ran {
        let scripts: String = blocks.iter().map(|block| format!("{}\n", block.script)).collect();
        let mut command = Command::new("bash");
        command
            .args(["-euxo", "pipefail", "-c", &self.placed(&format!("{before}\n{scripts}"))])
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            .env("USER", "tester")
            .env("KILN_LISTEN", self.placed("127.0.0.1:8980"))
            .current_dir(self.repository())
            .stdin(Stdio::null());
        let ran = Ran::from(command);
        let logs = || {
            let text = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path()).unwrap();
            std::fs::read_dir(self.path("logs")).unwrap().flatten().map(text).collect::<String>()
        };
        assert_eq!(ran.code, 0, "a command of {} failed:\n{}\n{}\n{}", self.page, ran.out, ran.err, logs());
        ran
    }

    /// The listed commands that this page contains, as it writes them.
    pub fn met(&self) -> Vec<&'static str> {
        let met = std::fs::read_to_string(self.path("met")).unwrap();
        let listed = ELSEWHERE.iter().filter(|(page, ..)| *page == self.page);
        listed
            .filter(|(_, command, _)| met.lines().any(|line| line == self.placed(command)))
            .map(|entry| entry.1)
            .collect()
    }
}

/// The program that cargo did not build, if there is one.
pub fn unbuilt() -> Option<PathBuf> {
    OWN.map(built).into_iter().find(|path| !path.exists())
}

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kiln")).with_file_name(name)
}

/// A program of this machine.
fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|dir| dir.join(name)).find(|path| path.exists())
}

/// Asserts that the tests which the table names exist.
pub fn check_table() {
    let mut tests = String::new();
    for dir in ["benches/tests", "cli/tests", "coordinator/tests", "worker/tests"] {
        sources(&page::root().join(dir), &mut tests);
    }
    for (page, command, test) in ELSEWHERE.iter().chain(super::elsewhere::BLOCKS) {
        let is_ours = OWN.iter().any(|name| command.split(' ').next() == Some(name));
        assert!(*test != PARSED || is_ours, "name the test that covers `{command}` of {page}");
        assert!(
            *test == PARSED || tests.contains(&format!("fn {test}(")),
            "no test `{test}` for `{command}` of {page}"
        );
    }
}

fn sources(dir: &Path, all: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            sources(&entry.path(), all);
        } else if entry.path().extension().is_some_and(|ending| ending == "rs") {
            all.push_str(&std::fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// Shared by the programs of a world. A server's program returns once it is ready; another one with the same state
/// replaces it.
const SHIM: &str = r#"
PATH=/usr/local/bin:/usr/bin:/bin
line="$NAME $*"
if grep -qxF -- "$line" "$WORLD/elsewhere"; then
  printf '%s\n' "$line" >>"$WORLD/met"
  if [ -p /dev/stdin ]; then cat >/dev/null; fi
  # What stands behind `--` is another program's.
  own=(); for word in "$@"; do [ "$word" = -- ] && break; own+=("$word"); done
  case "$NAME" in kiln*) "$REAL" "${own[@]}" --help >/dev/null ;; esac
  exit
fi

refuse() {
  echo "neither run nor listed in cli/tests/documents/elsewhere.rs: $line" >&2
  exit 97
}

alive() { grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null; }

# Starts a server; KEY is what only one of them can have, READY what its log says then.
serve() {
  local key="$1" ready="$2" log pid; shift 2
  log="$WORLD/logs/$key"
  if [ -e "$WORLD/pids/$key" ]; then
    pid="$(cat "$WORLD/pids/$key")"
    kill "$pid"
    while alive "$pid"; do sleep 0.02; done
  fi
  PATH="$WORLD/served" "$REAL" "$@" </dev/null >"$log" 2>&1 &
  pid=$!
  echo "$pid" >"$WORLD/pids/$key"
  until grep -q -- "$ready" "$log"; do
    alive "$pid" || { cat "$log" >&2; exit 98; }
    sleep 0.02
  done
}

serve_or_run() {
  case "$NAME ${1-}" in
    kiln-coordinator*) serve coordinator ' ready address=' "$@" ;;
    "kiln up") serve coordinator '^ready: ' "$@" ;;
    kiln-worker*)
      local state="$*"; state="${state##*--state-dir }"; state="${state%% *}"
      mkdir -p "$state"
      if [ -e "$TOOLS" ]; then cp "$TOOLS" "$state/tools.json"; fi
      serve "worker-${state//\//-}" 'registered' "$@"
      if [ ! -e "$TOOLS" ]; then cp "$state/tools.json" "$TOOLS.$$" && mv "$TOOLS.$$" "$TOOLS"; fi ;;
    "kiln "*) exec env PATH="$WORLD/served" "$REAL" "$@" ;;
    *) refuse ;;
  esac
}

# What cargo would compile is compiled; its flags are parsed, and what it would run is run or is there to be run.
cargo_() {
  local own=() toolchain="" rest=0 word
  case "$1" in +*) toolchain="$1"; shift ;; esac
  for word in "$@"; do [ "$word" = -- ] && break; own+=("$word"); rest=$((rest + 1)); done
  case "$1" in
    run) "$REAL" "${own[@]}" --help >/dev/null; shift $((rest + 1)); exec "$WORLD/bin/kiln" "$@" ;;
    build) "$REAL" "${own[@]}" --help >/dev/null ;;
    test)
      "$REAL" "${own[@]}" --help >/dev/null
      word="$*"; word="${word##*--test }"; word="${word%% *}"
      ls "$REPOSITORY/cli/tests/$word.rs" "$REPOSITORY/cli/tests/$word/main.rs" 2>/dev/null | grep -q . ;;
    fuzz) [ "$2 $3" = "run --fuzz-dir" ] && [ -e "$REPOSITORY/$4/targets/$5.rs" ] ;;
    *) refuse ;;
  esac
}

# Without a cluster, the objects are made of the values: those of an upgrade beside those of the installation.
helm_() {
  [ -x "$REAL" ] || { echo "$REAL is not installed; .ci/test installs it" >&2; exit 96; }
  local verb="$1" own=(); shift
  for word in "$@"; do [ "$word" = --reuse-values ] || own+=("$word"); done
  case "$verb" in
    install) printf '%s\n' "${own[@]}" >"$WORLD/installed" ;;
    upgrade)
      local before; mapfile -t before <"$WORLD/installed"
      [ ${#own[@]} = $# ] || own+=("${before[@]:2}") ;;
    *) refuse ;;
  esac
  exec "$REAL" template "${own[@]}" >/dev/null
}

# Without a cluster, what it would create is made and checked here.
kubectl_() {
  case "$line" in
    *" create "*--dry-run=client*) exec "$REAL" "$@" ;;
    *" create "*) exec "$REAL" "$@" --dry-run=client -o yaml ;;
    *) refuse ;;
  esac
}
"#;
