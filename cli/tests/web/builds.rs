//! Builds in the browser: followed from the queue to their end, failed with the reason first, and what their output must not do.

use std::net::TcpListener;

use kiln_harness::guarded::{access, certificate};
use kiln_harness::{has, project};
use sha2::{Digest, Sha256};

use crate::world::{browse, curl, farm, guarded, has_browser};

/// A port that nobody listens on until a step that waits for it may go on.
fn gate() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn submitted(farm: &kiln_harness::Farm, dir: &std::path::Path) -> String {
    let ran = farm.kiln(&["build", dir.to_str().unwrap(), "--detach"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let listed = farm.kiln(&["builds", "--json", "--limit", "1"]);
    let builds: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    builds[0]["build"].as_str().unwrap().to_owned()
}

/// A command that goes on once somebody listens at this port.
fn waits(port: u16) -> String {
    format!("bash -c 'until (: < /dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done'")
}

#[test]
fn what_a_running_step_uses_is_drawn_on_its_page_until_it_has_ended() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&[]);
    farm.start_worker_with("one", &["--network-isolation", "off"]);
    farm.wait_for_worker("one");
    let ends = gate();
    let text = format!(
        "name = \"busy\"\nversion = \"1\"\n[steps.busy]\nnetwork = true\nrun = \"{}; echo made > out\"\noutputs = [\"out\"]\n",
        waits(ends)
    );
    let build = submitted(&farm, project(&[("kiln.toml", &text)]).path());
    browse("used.cjs", &[&pages, &build, &ends.to_string()]);
}

#[test]
fn a_build_is_followed_live_from_the_queue_to_its_end() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&[]);
    farm.start_worker_with("one", &["--cpus", "1", "--network-isolation", "off"]);
    farm.wait_for_worker("one");
    // Whoever holds the only CPU lets go when somebody listens.
    let (held, runs) = (gate(), gate());
    let holder =
        format!("name = \"holder\"\nversion = \"1\"\n[steps.hold]\nnetwork = true\nrun = \"{}\"\n", waits(held));
    let text = format!(
        "name = \"followed\"\nversion = \"1\"\n[steps.first]\nnetwork = true\ncache = false\n\
         run = \"\"\"printf '\\\\033[32mgreen\\\\033[0m line\\\\n'; {}; echo last line; echo made > out\"\"\"\noutputs = [\"out\"]\n\
         [steps.second]\nneeds = [\"first\"]\nrun = \"cp out done\"\noutputs = [\"done\"]\n\
         [artifacts.followed]\nfrom = \"second\"\nfiles = [\"done\"]\nkind = \"archive\"\n",
        waits(runs)
    );
    submitted(&farm, project(&[("kiln.toml", &holder)]).path());
    kiln_harness::until("the worker to be busy", || farm.workers().iter().any(|one| one["running"] == 1).then_some(()));
    let build = submitted(&farm, project(&[("kiln.toml", &text)]).path());
    browse("follow.cjs", &[&pages, &build, &held.to_string(), &runs.to_string()]);
}

#[test]
fn a_failure_is_told_with_its_error_first() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"broken\"\nversion = \"1\"\n[steps.test]\n\
                run = \"\"\"seq 3000; printf '\\\\033[31merror\\\\033[0m: the till is short\\\\n' >&2; exit 3\"\"\"\n";
    let dir = project(&[("kiln.toml", text)]);
    let ran = farm.kiln(&["build", dir.path().to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    let page = ran.err.lines().find_map(|line| line.strip_prefix("page: ")).unwrap_or_else(|| panic!("{}", ran.err));
    assert!(page.starts_with(&format!("{pages}/builds/")), "{page}");
    assert!(curl(&[page]).body.contains("the till is short"), "expected the page of the build at {page}");
    browse("failure.cjs", &[&pages]);
}

#[test]
fn output_that_would_be_markup_or_obeyed_is_shown_as_it_is() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"<script>alert(1)</script>\"\nversion = \"1\"\n[steps.say]\n\
                run = \"\"\"cat evil.txt; head -c 10485760 /dev/zero | tr '\\\\0' x; echo; head -c 200 /dev/zero; echo after\"\"\"\n";
    let evil = "<script>document.title='owned'</script>\n<img src=x onerror=\"document.title='owned'\">\n\
                \u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31m</code></li></ol><h1>owned</h1>\u{1b}[0m\n\u{1b}]8;;javascript:alert(1)\u{1b}\\link\u{1b}]8;;\u{1b}\\\n";
    let dir = project(&[("kiln.toml", text), ("evil.txt", evil)]);
    let ran = farm.kiln(&["build", dir.path().to_str().unwrap()]);
    let id = farm.kiln(&["builds", "--json", "--limit", "1"]).out;
    assert!(
        ran.code == 0 || !id.contains("\"build\""),
        "expected the build to run, or its name to be refused: {ran:?}"
    );
    if ran.code != 0 {
        // A name that no project may have: one that it may.
        kiln_harness::write(dir.path(), "kiln.toml", &text.replace("<script>alert(1)</script>", "evil"));
        assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    }
    browse("evil.cjs", &[&pages]);
}

#[test]
fn a_build_of_another_tenant_is_not_found_like_one_that_there_is_not() {
    if !has("curl") {
        return;
    }
    let (guarded, pages) = guarded();
    guarded.worker("one");
    let tenant = |name: &str| {
        let certificate = certificate(&guarded.dir(), name, &["--role", "builder", "--tenant", &format!("of-{name}")]);
        let token =
            guarded.make(&["token", &format!("{name}-ci"), "--role", "builder", "--tenant", &format!("of-{name}")]);
        let bearer = format!("Authorization: Bearer {}", token.lines().last().unwrap().trim());
        (access(&guarded.dir(), Some(&certificate)), bearer)
    };
    let ((ann, hers), (_, his)) = (tenant("ann"), tenant("bob"));
    let dir = project(&[(
        "kiln.toml",
        "name = \"hers\"\nversion = \"1\"\n[steps.say]\nrun = \"echo secret words | tee out\"\noutputs = [\"out\"]\n\
         [artifacts.hers]\nfrom = \"say\"\nfiles = [\"out\"]\nkind = \"archive\"\n",
    )]);
    assert_eq!(guarded.ran(ann.clone(), &["build", dir.path().to_str().unwrap()]).code, 0);
    let listed = guarded.ran(ann, &["builds", "--json"]);
    let builds: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let id = builds[0]["build"].as_str().unwrap();
    let unknown = id.chars().rev().collect::<String>();
    for rest in ["", "/live", "/tests", "/steps/1", "/steps/1/log", "/steps/1/log?part=true", "/steps/1/log/stdout"] {
        let (own, other) = (format!("{pages}/builds/{id}{rest}"), format!("{pages}/builds/{unknown}{rest}"));
        if !rest.starts_with("/live") {
            assert_eq!(curl(&["-H", &hers, &own]).status, 200, "for `{rest}`");
        }
        let (foreign, none) = (curl(&["-H", &his, &own]), curl(&["-H", &his, &other]));
        assert_eq!((foreign.status, none.status), (404, 404), "for `{rest}`");
        assert_eq!(foreign.body, none.body, "expected nothing to tell them apart for `{rest}`");
    }
    assert!(curl(&["-H", &hers, &format!("{pages}/builds/{id}/steps/1/log")]).body.contains("secret words"));
    assert!(!curl(&["-H", &his, &format!("{pages}/builds")]).body.contains(id));
    let found = curl(&["-H", &hers, &format!("{pages}/api/v1/artifacts")]).body;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let artifact = found["artifacts"][0]["id"].as_str().unwrap();
    for path in ["", "/layers", "/layers/1"] {
        let at = format!("{pages}/artifacts/{artifact}{path}");
        assert_eq!((curl(&["-H", &hers, &at]).status, curl(&["-H", &his, &at]).status), (200, 404), "for `{path}`");
    }
    let cancel = format!("{pages}/builds/{id}/cancel");
    assert_eq!(curl(&["-X", "POST", "-H", &his, &cancel]).status, 404);
}

#[test]
fn a_dockerfile_has_time_and_outcome_beside_its_instructions() {
    if !has("curl") || !has("busybox") {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let dockerfile = "FROM scratch AS build\nCOPY busybox /bin/sh\nENV PATH=/bin\n# Says it.\nRUN echo hello > /said; \\\n    true\n\
                      FROM scratch\nCOPY --from=build /said /said\n";
    let decoy = "FROM scratch\nCOPY none /none\n";
    let dir = project(&[("docker/web.dockerfile", dockerfile), ("Dockerfile", decoy)]);
    let busybox = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join("busybox"))
        .find(|path| path.is_file());
    std::fs::copy(busybox.unwrap(), dir.path().join("busybox")).unwrap();
    let ran = farm.kiln(&["build", dir.path().to_str().unwrap(), "-f", "docker/web.dockerfile"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let list = curl(&[&format!("{pages}/api/v1/builds")]);
    let builds: serde_json::Value = serde_json::from_str(&list.body).unwrap();
    let page = curl(&[&format!("{pages}/builds/{}", builds["builds"][0]["id"].as_str().unwrap())]).body;
    let (_, file) = page.split_once("class=\"dockerfile\"").expect("expected the Dockerfile");
    assert!(page.contains("<h2>docker/web.dockerfile</h2>"), "expected the file that was named");
    let (file, _) = file.split_once("</ol>").unwrap();
    let rows: Vec<&str> = file.split("<li>").skip(1).collect();
    let with: Vec<bool> = rows.iter().map(|row| row.contains("class=\"ran\"")).collect();
    assert_eq!(with, [false, false, false, false, true, false, false, false], "{rows:?}");
    assert!(rows[4].contains("RUN echo hello &gt; /said"), "{}", rows[4]);
}

#[test]
fn an_older_build_still_says_why_its_steps_ran() {
    if !has("curl") {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"old\"\nversion = \"1\"\n[steps.make]\nrun = \"cat in\"\n";
    let dir = project(&[("kiln.toml", text), ("in", "one")]);
    let mut builds = Vec::new();
    let get = |path: &str| -> serde_json::Value {
        serde_json::from_str(&curl(&[&format!("{pages}/api/v1{path}")]).body).unwrap()
    };
    for content in ["one", "two", "three"] {
        kiln_harness::write(dir.path(), "in", content);
        assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
        builds.push(get("/builds")["builds"][0]["id"].as_str().unwrap().to_owned());
    }
    let explained = |build: &str| get(&format!("/builds/{build}/steps/1"))["explanation"].clone();
    assert_eq!(explained(&builds[0])["reason"], "first");
    for (build, before) in [(&builds[1], "one"), (&builds[2], "two")] {
        let explanation = explained(build);
        assert_eq!((&explanation["reason"], &explanation["differences"][0]["name"]), (&"changed".into(), &"in".into()));
        // What was before is the build before, and not the last one.
        let digest = Sha256::digest(before);
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let known = explanation["differences"][0]["before"].as_str().unwrap();
        assert!(known.starts_with(&hash[..8]), "{explanation}: expected {hash}");
    }
    assert!(curl(&[&format!("{pages}/builds/{}/steps/1", builds[1])]).body.contains("It is not what it was"));
}
