//! Images that were built, run: by a real Docker, and in Kiln's own root as the base of another command.

use std::path::Path;
use std::sync::OnceLock;

use kiln_harness::engine::Engine;
use kiln_harness::{Farm, copy, output, project, until};
use serde_json::Value;

use crate::case::{Case, Run};

/// The engine in which all images are run. `None`, with a message, if there is none on this machine.
fn engine() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    ENGINE.get_or_init(Engine::bare).as_ref()
}

/// What of an image, which is in this layout, does not do what the case says.
pub fn problems(case: &Case, layout: &Path, config: &Value, farm: &Farm) -> Vec<String> {
    let Some(run) = &case.expect.run else { return Vec::new() };
    let docker = engine().and_then(|engine| by_docker(case, run, layout, engine));
    let own = in_kiln(run, layout, config, farm);
    [docker.map(|found| ("Docker", found)), own.map(|found| ("Kiln", found))]
        .into_iter()
        .flatten()
        .map(|(who, found)| format!("run by {who}: expected `{}`, found {found}", run.says))
        .collect()
}

/// Runs it as a container without a network; what it said if that is not what is expected.
fn by_docker(case: &Case, run: &Run, layout: &Path, engine: &Engine) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let (image, archive) = (format!("case/{}:1", case.name), dir.path().join("image.tar"));
    let to = format!("docker-archive:{}:{image}", archive.display());
    let from = format!("oci:{}", layout.display());
    output("skopeo", &["--insecure-policy", "copy", "--quiet", &from, &to], dir.path());
    engine.ok(&["load", "--quiet", "--input", &archive.display().to_string()]);
    let entrypoint = run.entrypoint.iter().flat_map(|program| ["--entrypoint", program]);
    let mut line = vec!["run", "--network", "none", "--name", &case.name];
    line.extend(run.ask.first().map(|_| "--detach").into_iter().chain(entrypoint));
    line.push(&image);
    line.extend(run.arguments.iter().map(String::as_str));
    let ran = engine.docker(&line);
    let mut said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if !run.ask.is_empty() && ran.status.success() {
        said = until("the container to answer, or to end", || {
            let mut line = vec!["exec", &case.name];
            line.extend(run.ask.iter().map(String::as_str));
            let asked = engine.docker(&line);
            let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
            let runs = || engine.ok(&["inspect", "--format", "{{.State.Running}}", &case.name]) == "true";
            let logs = || String::from_utf8_lossy(&engine.docker(&["logs", &case.name]).stderr).into_owned();
            if asked.status.success() { Some(answer) } else { (!runs()).then(logs) }
        });
    }
    engine.ok(&["rm", "--force", "--volumes", &case.name]);
    engine.ok(&["rmi", &image]);
    (!said.contains(&run.says)).then_some(said)
}

/// Runs the same as a command on the image; what the build said if that did not print what is expected.
fn in_kiln(run: &Run, layout: &Path, config: &Value, farm: &Farm) -> Option<String> {
    let words = |name: &str| {
        let words = config["config"][name].as_array().into_iter().flatten();
        words.filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut command = run.entrypoint.clone().map_or_else(|| words("Entrypoint"), |program| vec![program]);
    // As Docker does, a command of the image is not for another entrypoint.
    let is_own = run.arguments.is_empty() && run.entrypoint.is_none();
    command.extend(if is_own { words("Cmd") } else { run.arguments.clone() });
    let line = |words: &[String]| {
        let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
        quoted.collect::<Vec<_>>().join(" ")
    };
    let (command, says) = (line(&command), line(std::slice::from_ref(&run.says)));
    let script = match run.ask.is_empty() {
        true => format!("{command} > /tmp/said 2>&1; cat /tmp/said; grep -qF -e {says} /tmp/said"),
        false => format!(
            "{command} & runs=$!; until {} > /tmp/said 2>&1; do kill -0 $runs; sleep 0.1; done; kill $runs; cat /tmp/said; \
             grep -qF -e {says} /tmp/said",
            line(&run.ask)
        ),
    };
    let script = serde_json::to_string(&["/bin/sh", "-e", "-c", &script]).unwrap();
    let toml =
        "version = \"1\"\n[artifacts.ran]\ndockerfile = \"Dockerfile\"\ncontexts = { made = \"oci-layout://made\" }\n";
    let text = format!("FROM made\nRUN --network=none {script}\n");
    let dir = project(&[("kiln.toml", toml), ("Dockerfile", &text), (".dockerignore", "made\n")]);
    copy(layout, &dir.path().join("made"));
    let built = farm.build(dir.path(), &[]);
    (built.0.code != 0).then(|| format!("{}{}", built.log(), built.0.err))
}
