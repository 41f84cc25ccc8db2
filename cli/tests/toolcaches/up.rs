//! `kiln up` serves the caches on loopback, to the user who started it.

use std::process::Command;

use kiln_harness::{Lasting, Ran, has};

use crate::world::done;

#[test]
fn kiln_up_serves_the_caches_to_its_user_only() {
    if !has("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let kiln = || {
        let mut command = Command::new(kiln_harness::run::program());
        command.env("XDG_STATE_HOME", dir.path().join("state")).env("XDG_CACHE_HOME", dir.path().join("cache"));
        command.env_remove("KILN_INSECURE").env_remove("KILN_FARM").env_remove("KILN_TOKEN");
        command
    };
    let mut command = kiln();
    command.args(["up", "--workers", "0", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("up"));
    let mut up = Lasting::start(command);
    let line = up.line_with("ready: ");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let mut command = kiln();
    command.args(["cache", "env", "turbo"]).env("KILN_FARM", &url);
    let settings = done(Ran::from(command)).out;
    assert!(settings.contains("$(cat ") && !settings.contains("kiln_"), "{settings}");
    let ask = |header: &str| {
        let mut command = Command::new("sh");
        let script = format!("{settings}\ncurl -s -w ' %{{http_code}}' {header} \"$TURBO_API/v8/artifacts/status\"");
        command.args(["-euc", &script]);
        done(Ran::from(command)).out
    };
    assert_eq!(ask("-H \"Authorization: Bearer $TURBO_TOKEN\""), "{\"status\":\"enabled\"} 200");
    assert!(ask("").ends_with(" 401"), "expected nobody else to be let in: {}", ask(""));
    // A farm inside a command would end with it.
    let mut command = kiln();
    command.args(["cache", "env", "turbo"]);
    let alone = Ran::from(command);
    assert!(alone.code == 2 && alone.err.contains("`kiln up`"), "{alone:?}");
    up.interrupt();
    up.wait();
}
