//! Farms by name: `kiln login`, the user's configuration, and a project's choice.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_harness::guarded::{Guarded, refused, well};
use kiln_harness::{Farm, Ran, project, write};

/// `kiln` in a directory with this configuration and nothing else that says which farm.
fn kiln(config: &Path, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(kiln_harness::run::program());
    command.args(arguments).current_dir(directory).env("KILN_CONFIG", config).stdin(Stdio::null());
    for name in ["KILN_FARM", "KILN_TOKEN", "KILN_TOKEN_FILE", "KILN_CA", "KILN_CERT", "KILN_KEY"] {
        command.env_remove(name);
    }
    command
}

/// The same, with this on standard input.
fn typed(mut command: Command, text: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn who_has_logged_in_needs_no_flags_and_a_wrong_token_is_not_kept() {
    let guarded = Guarded::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("own/config.toml");
    let (ca, url) = (guarded.dir().join("ca.pem"), guarded.farm.url.clone());
    let ca = ca.to_str().unwrap();
    let login = ["login", &url, "--name", "team", "--ca", ca];

    let wrong = typed(kiln(&config, dir.path(), &login), "kiln_wrong\n");
    refused(&wrong, 2, "was not added");
    refused(&typed(kiln(&config, dir.path(), &login), "\n"), 2, "no token was given");
    assert!(!config.exists(), "expected nothing to be kept");

    let token = guarded.make(&["token", "ann", "--role", "builder"]);
    let done = typed(kiln(&config, dir.path(), &login), &format!("{token}\n"));
    assert!(well(done).is_empty());
    let kept = std::fs::read_to_string(&config).unwrap();
    assert!(kept.contains("farm = \"team\"") && !kept.contains(&token), "{kept}");
    let file = config.with_file_name("team.token");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    assert!(kiln_system::is_private(&file.metadata().unwrap()));

    let status = |arguments: &[&str]| Ran::from(kiln(&config, dir.path(), arguments));
    well(status(&["workers", "--json"]));
    well(status(&["workers", "--json", "--farm", "team"]));
    refused(&status(&["workers", "--farm", "tema"]), 2, "no farm is named `tema`, only `team`");
    // A flag comes before the file.
    refused(&status(&["workers", "--token-file", "/nowhere"]), 2, "/nowhere");
}

#[test]
fn a_token_command_is_run_by_each_command() {
    let guarded = Guarded::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let token = guarded.make(&["token", "bot", "--role", "builder"]);
    write(dir.path(), "now", &token);
    let ca = guarded.dir().join("ca.pem");
    let login = ["login", &guarded.farm.url, "--name", "ci", "--ca", ca.to_str().unwrap(), "--token-command", "cat"];
    let now = dir.path().join("now");
    well(Ran::from(kiln(&config, dir.path(), &[&login[..], &[now.to_str().unwrap()]].concat())));
    let workers = || Ran::from(kiln(&config, dir.path(), &["workers", "--json"]));
    well(workers());
    write(dir.path(), "now", "kiln_of_yesterday");
    assert_ne!(workers().code, 0, "expected what the command prints now to count");
    std::fs::remove_file(&now).unwrap();
    refused(&workers(), 2, "token command");
}

#[test]
fn a_project_chooses_among_the_users_farms_only() {
    let (one, other) = (Farm::start(&[]), Farm::start(&[]));
    let dir = project(&[("kiln.toml", "name = \"x\"\n"), ("deep/er/file", "")]);
    let config = dir.path().join("own.toml");
    for (name, farm) in [("one", &one), ("other", &other)] {
        well(Ran::from(kiln(&config, dir.path(), &["login", &farm.url, "--name", name, "--no-token"])));
    }
    let asked = |at: &str| well(Ran::from(kiln(&config, &dir.path().join(at), &["workers", "--json"])));
    let start = |farm: &Farm| {
        farm.start_worker("w");
        farm.wait_for_worker("w");
    };
    start(&one);
    // The last one that was added is used.
    assert!(!asked("").contains("\"w\""));
    well(Ran::from(kiln(&config, dir.path(), &["farm", "use", "one"])));
    assert!(asked("").contains("\"w\""));
    refused(
        &Ran::from(kiln(&config, dir.path(), &["farm", "use", "three"])),
        2,
        "no farm is named `three`, only `one`, `other`",
    );

    write(dir.path(), ".kiln/config.toml", "farm = \"other\"\n");
    assert!(!asked("").contains("\"w\""));
    assert!(asked("deep/er").contains("\"w\""), "expected nothing above a directory that is in no checkout to count");
    std::fs::create_dir(dir.path().join(".git")).unwrap();
    assert!(!asked("deep/er").contains("\"w\""), "expected the project's choice to count below it");
    write(dir.path(), ".kiln/config.toml", "farm = \"https://evil.example:1\"\n");
    refused(&Ran::from(kiln(&config, dir.path(), &["status"])), 2, "no farm is named `https://evil.example:1`");
    write(dir.path(), ".kiln/config.toml", "[farms.one]\nurl = \"http://evil.example\"\n");
    refused(&Ran::from(kiln(&config, dir.path(), &["status"])), 2, "a project chooses one of your farms");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    write(dir.path(), "config.toml", "[farms.team]\nurl = \"http://x\"\ntoken_file = \"y\"\n");
    let ran = Ran::from(kiln(&config, dir.path(), &["workers"]));
    refused(&ran, 2, "there is no `farms.team.token_file`; did you mean `token-file`?");
    assert!(ran.err.contains(config.to_str().unwrap()), "{}", ran.err);
}

#[test]
fn flags_of_the_configuration_are_added_and_shown_and_the_command_line_wins() {
    let dir = project(&[("kiln.toml", "name = \"x\"\n[steps.s]\nrun = \"true\"\n")]);
    let config = dir.path().join("own.toml");
    let write_config = |flags: &str| {
        write(dir.path(), "own.toml", &format!("{flags}\n[farms.team]\nurl = \"http://127.0.0.1:9\"\n"));
    };
    let plan = |arguments: &[&str]| Ran::from(kiln(&config, dir.path(), &[&["plan"], arguments].concat()));
    write_config("flags = { plan = [\"--json\", \"--platform\", \"linux/arm64\"] }");
    let ran = plan(&[]);
    let shown: serde_json::Value = serde_json::from_str(&well(ran)).unwrap();
    assert!(shown.to_string().contains("linux/arm64"), "{shown}");
    let ran = plan(&["--platform", "linux/amd64"]);
    let note = format!("--json ([flags] of {})", config.display());
    assert!(ran.err.lines().any(|line| line == note), "expected `{note}` in {ran:?}");
    let shown = well(ran);
    assert!(shown.contains("linux/amd64") && !shown.contains("linux/arm64"), "{shown}");
    // A mistake stops the command that it is for, and no other.
    write_config("flags = { plan = [\"--jsn\"] }");
    refused(&plan(&[]), 2, "`[flags]`: `plan`: there is no flag `--jsn`; did you mean `--json`?");
    well(Ran::from(kiln(&config, dir.path(), &["completions", "bash"])));
    write_config("flags = { build = [\"--jsn\"] }");
    well(plan(&[]));
    write_config("flags = { paln = [\"--json\"] }");
    refused(&plan(&[]), 2, "`kiln` has no command `paln`; did you mean `plan`?");
    // One that does not go with the command line.
    write_config("flags = { build = [\"--load\"] }");
    let ran = Ran::from(kiln(&config, dir.path(), &["build", "--detach"]));
    refused(&ran, 2, "with its flags (`--load`), the command is refused");
}

#[test]
fn a_farm_that_is_called_like_a_command_is_no_command_and_farms_are_shown_with_their_flags() {
    let dir = project(&[("kiln.toml", "name = \"x\"\n[steps.s]\nrun = \"true\"\n")]);
    let config = dir.path().join("own.toml");
    let farms = format!(
        "farm = \"other\"\n[flags]\nplan = [\"--json\"]\n[farms.other]\nurl = \"http://127.0.0.1:9\"\n[farms.plan]\nurl = \"{}\"\n\
         [farms.plan.flags]\nplan = [\"--platform\", \"linux/arm64\"]\n",
        Farm::shared().url
    );
    write(dir.path(), "own.toml", &farms);
    let run = |arguments: &[&str]| Ran::from(kiln(&config, dir.path(), arguments));
    for farm in [&["--farm", "plan"][..], &["--farm=plan"]] {
        let shown = well(run(&[farm, &["plan"]].concat()));
        assert!(shown.contains("\"linux/arm64\""), "{shown}");
    }
    let shown = well(run(&["farm", "use"]));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "* other  http://127.0.0.1:9");
    assert!(lines[1].starts_with("  plan  http"), "{shown}");
    assert_eq!(
        lines[2..],
        ["    kiln plan --platform linux/arm64  [farms.plan.flags]", "    kiln plan --json  [flags]"]
    );
    let used = run(&["farm", "use", "plan"]);
    assert!(used.code == 0 && used.err.contains("kiln plan --platform linux/arm64  [farms.plan.flags]"), "{used:?}");
    let shown: serde_json::Value = serde_json::from_str(&well(run(&["farm", "use", "--json"]))).unwrap();
    assert_eq!((&shown["farms"][1]["name"], &shown["farms"][1]["used"]), (&"plan".into(), &true.into()));
    assert_eq!(shown["farms"][1]["flags"]["plan"][1], "linux/arm64");
}

#[test]
fn shells_complete_commands_and_there_are_manual_pages() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    for (shell, part) in [
        ("bash", "complete -F _kiln"),
        ("zsh", "#compdef kiln"),
        ("fish", "complete -c kiln"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = well(Ran::from(kiln(&config, dir.path(), &["completions", shell])));
        assert!(script.contains(part) && script.contains("test-report"), "{shell}");
    }
    let script = well(Ran::from(kiln(&config, dir.path(), &["completions", "bash"])));
    write(dir.path(), "complete.bash", &script);
    let said = Command::new("bash")
        .args(["-c", ". ./complete.bash; COMP_WORDS=(kiln te); COMP_CWORD=1; _kiln kiln te kiln; echo ${COMPREPLY[@]}"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "test test-report", "{said:?}");
    well(Ran::from(kiln(&config, dir.path(), &["manual-pages", "pages"])));
    let page = std::fs::read_to_string(dir.path().join("pages/kiln-build.1")).unwrap();
    assert!(page.contains(".TH kiln-build 1"), "{page}");
}
