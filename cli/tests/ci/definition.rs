//! The definitions of `deploy/ci`, read by a parser of YAML and run as a CI system would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use kiln_harness::{Ran, output};

/// `deploy/ci`.
pub fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/ci")
}

/// A definition. Every scalar is a string: to GitHub, too, `on` is not a boolean.
pub fn read(name: &str) -> Value {
    let program =
        "import json, sys, yaml; print(json.dumps(yaml.load(open(sys.argv[1], encoding='utf-8'), yaml.BaseLoader)))";
    let file = place().join(name);
    let python = "/opt/kiln-test-tools/bin/python";
    serde_json::from_str(&output(python, &["-c", program, file.to_str().unwrap()], &place())).unwrap()
}

/// A list of strings, or one string.
pub fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    }
}

/// The names in an object.
pub fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The values of `${{ inputs.NAME }}` in a text.
pub fn inputs_in(text: &str) -> Vec<&str> {
    text.split("${{ inputs.").skip(1).map(|rest| rest.split_once(" }}").unwrap().0).collect()
}

/// A job that uses the action.
pub struct Job {
    pub inputs: BTreeMap<String, String>,
    pub variables: BTreeMap<String, String>,
    /// Where it is checked out.
    pub workspace: PathBuf,
    pub temporary: tempfile::TempDir,
}

/// What it left behind.
pub struct Done {
    pub ran: Ran,
    pub outputs: BTreeMap<String, String>,
}

impl Job {
    pub fn new(workspace: &Path) -> Self {
        let (inputs, variables) = (BTreeMap::new(), BTreeMap::new());
        Self { inputs, variables, workspace: workspace.to_owned(), temporary: tempfile::tempdir().unwrap() }
    }

    pub fn input(mut self, name: &str, value: &str) -> Self {
        self.inputs.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs the steps of the action one after the other, as a runner does.
    pub fn run(&self) -> Done {
        let action = read("github/action.yml");
        let files = Files::new();
        let mut ran = Ran { code: 0, out: String::new(), err: String::new() };
        for step in action["runs"]["steps"].as_array().unwrap() {
            let step = Ran::from(self.step(&action, step, &files));
            ran = Ran { code: step.code, out: ran.out + &step.out, err: ran.err + &step.err };
            if ran.code != 0 {
                break;
            }
        }
        Done { ran, outputs: files.outputs() }
    }

    /// Runs the steps up to the last, and starts that.
    pub fn start(&self) -> Child {
        let action = read("github/action.yml");
        let files = Files::new();
        let (last, before) = action["runs"]["steps"].as_array().unwrap().split_last().unwrap();
        for step in before {
            let ran = Ran::from(self.step(&action, step, &files));
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        let mut command = self.step(&action, last, &files);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The shell reads its script while it runs.
        let _ = files.dir.keep();
        child
    }

    fn step(&self, action: &Value, step: &Value, files: &Files) -> Command {
        let script = files.dir.path().join("script");
        std::fs::write(&script, step["run"].as_str().unwrap()).unwrap();
        let mut command = clean("bash", &self.workspace);
        command.args(["--noprofile", "--norc", "-e", "-o", "pipefail"]).arg(&script);
        command.env("RUNNER_TEMP", self.temporary.path());
        command.env("GITHUB_PATH", files.path()).env("GITHUB_OUTPUT", files.dir.path().join("outputs"));
        let added: String =
            std::fs::read_to_string(files.path()).unwrap().lines().map(|dir| format!("{dir}:")).collect();
        command.env("PATH", format!("{added}{}", std::env::var("PATH").unwrap()));
        command.envs(&self.variables);
        for (name, value) in step["env"].as_object().unwrap() {
            // A variable of the job does not override one that a step sets itself; a test's may.
            if !self.variables.contains_key(name) {
                command.env(name, self.expand(action, value.as_str().unwrap()));
            }
        }
        command
    }

    fn expand(&self, action: &Value, text: &str) -> String {
        let mut text = text.to_owned();
        for name in inputs_in(&text.clone()) {
            let given = self.inputs.get(name).cloned();
            let value = given.or_else(|| action["inputs"][name]["default"].as_str().map(ToOwned::to_owned));
            text = text.replace(&format!("${{{{ inputs.{name} }}}}"), &value.unwrap_or_default());
        }
        text
    }
}

/// The files through which a job's steps report to a runner.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(files.path(), "").unwrap();
        std::fs::write(files.dir.path().join("outputs"), "").unwrap();
        files
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("path")
    }

    fn outputs(&self) -> BTreeMap<String, String> {
        named(&std::fs::read_to_string(self.dir.path().join("outputs")).unwrap())
    }
}

/// A program that does not see this machine's settings.
fn clean(program: &str, dir: &Path) -> Command {
    // A shell that was started with SIGINT ignored, as background processes are, cannot undo that.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", program]).current_dir(dir).stdin(Stdio::null());
    let ours = std::env::vars().map(|(name, _)| name);
    for name in
        ours.filter(|name| ["KILN_", "GITHUB_", "RUNNER_", "ACTIONS_", "CI_"].iter().any(|part| name.starts_with(part)))
    {
        command.env_remove(name);
    }
    command
}

/// The outputs of a step: `NAME=VALUE`, or `NAME<<WORD`, lines, `WORD`.
fn named(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((name, end)) = line.split_once("<<") {
            let value: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
            found.insert(name.to_owned(), value.join("\n"));
        } else if let Some((name, value)) = line.split_once('=') {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

/// The job of the GitLab definition as a runner runs it: one script of all the lines of these parts.
pub fn gitlab(shell: &str, parts: &[&str], workspace: &Path, variables: &[(&str, &str)]) -> Command {
    let job = &read("gitlab/kiln.gitlab-ci.yml")[".kiln"];
    let script: Vec<String> = parts.iter().flat_map(|part| texts(&job[part])).collect();
    let mut command = clean(shell, workspace);
    command.args(["-e", "-c", &script.join("\n")]).env("CI_PROJECT_DIR", workspace);
    for (name, value) in job["variables"].as_object().unwrap() {
        command.env(name, value.as_str().unwrap());
    }
    command.envs(variables.iter().copied());
    command
}
