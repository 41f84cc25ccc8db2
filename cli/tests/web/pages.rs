//! The pages beside the builds: steps with what they saw and made, the farm, artifacts, and comparisons.

use kiln_harness::guarded::{access, certificate};
use kiln_harness::{has, project};

use crate::world::{browse, curl, farm, guarded, has_browser};

#[test]
fn a_step_its_files_artifacts_comparisons_and_the_farm_are_shown_and_fit_a_narrow_screen() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"shop\"\nversion = \"1\"\n[steps.make]\nrun = \"mkdir -p out/deep; cp src/in.txt out/deep/made.txt; echo x > out/a\"\noutputs = [\"out\"]\n\
                env = { COLOUR = \"green\" }\n[steps.test]\nneeds = [\"make\"]\nrun = \"cat out/deep/made.txt\"\n\
                [artifacts.shop]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let dir = project(&[("kiln.toml", text), ("src/in.txt", "<b>one</b>\n"), ("src/<img src=x>", "odd")]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    kiln_harness::write(dir.path(), "src/in.txt", "<b>two</b>\n");
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    browse("pages.cjs", &[&pages]);
    // A file is never shown, only kept, whatever its name or content says.
    let listed = curl(&[&format!("{pages}/api/v1/builds")]);
    let builds: serde_json::Value = serde_json::from_str(&listed.body).unwrap();
    let id = builds["builds"][0]["id"].as_str().unwrap();
    let file = curl(&[&format!("{pages}/builds/{id}/steps/1/inputs/src/in.txt")]);
    assert_eq!((file.status, file.body.as_str()), (200, "<b>two</b>\n"));
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"in.txt\""));
    let made = curl(&[&format!("{pages}/builds/{id}/steps/1/outputs/out/deep/made.txt")]);
    assert_eq!((made.status, made.body.as_str()), (200, "<b>two</b>\n"));
    for path in [
        "steps/1/inputs/none",
        "steps/1/inputs/../../etc/passwd",
        "steps/9",
        "steps/0",
        "steps/1/outputs/out/deep/made.txt/x",
    ] {
        let status = curl(&["--path-as-is", &format!("{pages}/builds/{id}/{path}")]).status;
        assert_eq!(status, 404, "for `{path}`");
    }
    assert_eq!(curl(&[&format!("{pages}/artifacts/none")]).status, 404);
}

#[test]
fn an_artifacts_page_lists_the_gates_that_it_passed_and_what_is_stated() {
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"gated\"\nversion = \"1\"\n[steps.make]\nrun = \"echo x > out\"\noutputs = [\"out\"]\n\
                [artifacts.gated]\nfrom = \"make\"\nfiles = [\"out\"]\n[gates.budget]\nuse = \"size\"\nmax = \"1MB\"\n";
    let dir = project(&[("kiln.toml", text)]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    let listed: serde_json::Value = serde_json::from_str(&curl(&[&format!("{pages}/api/v1/artifacts")]).body).unwrap();
    let id = listed["artifacts"][0]["id"].as_str().unwrap();
    let page = curl(&[&format!("{pages}/artifacts/{id}")]).body;
    let (_, gates) = page.split_once("id=\"gates-title\"").expect("expected a section of gates");
    assert!(gates.contains("budget") && gates.contains("gated: 2 bytes of at most 1000000"), "{gates}");
    let (_, stated) = page.split_once("id=\"stated-title\"").expect("expected a section of statements");
    for name in ["provenance", "sbom", "gate-budget"] {
        let path = format!("/artifacts/{id}/statements/{name}");
        assert!(stated.contains(&format!("href=\"{path}\"")), "{stated}");
        let bundle: serde_json::Value = serde_json::from_str(&curl(&[&format!("{pages}{path}")]).body).unwrap();
        assert!(bundle["dsseEnvelope"]["payload"].is_string(), "{bundle}");
    }
    assert_eq!(curl(&[&format!("{pages}/artifacts/{id}/statements/none")]).status, 404);
}

#[test]
fn what_a_step_used_over_time_is_drawn_and_what_a_short_one_used_is_not() {
    if !has("curl") {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"busy\"\nversion = \"1\"\n[steps.long]\nrun = \"bash -c 'while [ $SECONDS -lt 4 ]; do :; done'\"\n\
                [steps.short]\nrun = \"true\"\n";
    let dir = project(&[("kiln.toml", text)]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    let get = |path: &str| -> serde_json::Value {
        serde_json::from_str(&curl(&[&format!("{pages}/api/v1{path}")]).body).unwrap()
    };
    let build = get("/builds")["builds"][0]["id"].as_str().unwrap().to_owned();
    let steps = get(&format!("/builds/{build}"))["step"].clone();
    let number = |name: &str| {
        let found = steps.as_array().unwrap().iter().find(|step| step["name"] == name);
        found.unwrap()["number"].as_u64().unwrap()
    };
    let (long, short) = (number("long"), number("short"));
    let usage = get(&format!("/builds/{build}/steps/{long}"))["usage"].clone();
    let spans = usage["over_time"].as_array().unwrap();
    assert!((2..=5).contains(&spans.len()), "expected about one a second: {usage}");
    let used: f64 = spans.iter().map(|span| span["cpus"].as_f64().unwrap()).sum();
    assert!(used > 0.1 && spans.iter().all(|span| span["memory_bytes"].as_u64().unwrap() > 0), "{usage}");
    assert!(usage["cpu_ms"].as_u64().unwrap() > 100 && usage["memory_limit_bytes"].as_u64().unwrap() > 0, "{usage}");
    let page = curl(&[&format!("{pages}/builds/{build}/steps/{long}")]).body;
    assert!(page.contains("id=\"usage-cpu\"") && page.contains("id=\"usage-memory\""), "{page}");
    assert_eq!(get(&format!("/builds/{build}/steps/{short}"))["usage"]["over_time"], serde_json::json!([]));
    assert!(!curl(&[&format!("{pages}/builds/{build}/steps/{short}")]).body.contains("usage-cpu"));
    // A later build that finds the result has not used anything.
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    let later = get("/builds")["builds"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(get(&format!("/builds/{later}/steps/{long}"))["usage"], serde_json::Value::Null);
}

#[test]
fn a_log_of_a_hundred_megabytes_is_read_in_ranges() {
    if !has_browser() {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"long\"\nversion = \"1\"\n[steps.talk]\nrun = \"yes 'a line of a very long log that goes on and on, a hundred bytes in all, more or less, as logs do....' | head -n 1000000; echo the end\"\n";
    let dir = project(&[("kiln.toml", text)]);
    assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    browse("long.cjs", &[&pages]);
}

#[test]
fn whose_actions_wait_is_told_to_them_and_to_whoever_administers_the_farm() {
    if !has("curl") {
        return;
    }
    let (guarded, pages) = guarded();
    guarded.worker_with("one", &["--cpus", "1"]);
    let bearer = |name: &str, more: &[&str]| {
        let token = guarded.make(&[&["token", name], more].concat());
        format!("Authorization: Bearer {}", token.lines().last().unwrap().trim())
    };
    let hers = bearer("ann-ci", &["--role", "builder", "--tenant", "shop"]);
    let his = bearer("bob-ci", &["--role", "builder", "--tenant", "bank"]);
    let operators = bearer("operator", &["--role", "farm-admin"]);
    let ann = certificate(&guarded.dir(), "ann", &["--role", "builder", "--tenant", "shop"]);
    let ann = access(&guarded.dir(), Some(&ann));
    // The first holds the only CPU until the farm ends.
    for name in ["first", "second"] {
        let text =
            format!("name = \"{name}\"\nversion = \"1\"\n[steps.hold]\nrun = \"echo {name}; tail -f /dev/null\"\n");
        let dir = project(&[("kiln.toml", &text)]);
        assert_eq!(guarded.ran(ann.clone(), &["build", dir.path().to_str().unwrap(), "--detach"]).code, 0);
    }
    let queue = |who: &str| -> Option<serde_json::Value> {
        let answer = curl(&["-H", who, &format!("{pages}/api/v1/farm")]);
        let farm: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        farm["queues"].as_array().unwrap().first().cloned()
    };
    let own = kiln_harness::until("the second to wait", || queue(&hers));
    assert_eq!((&own["tenant"], &own["own"]), (&"shop".into(), &true.into()), "{own}");
    assert!(own["waits_for"].as_str().unwrap().contains("`one`"), "{own}");
    let foreign = queue(&his).unwrap();
    assert_eq!((&foreign["tenant"], &foreign["own"]), (&serde_json::Value::Null, &false.into()), "{foreign}");
    assert_eq!(queue(&operators).unwrap()["tenant"], "shop");
    let page = |who: &str| curl(&["-H", who, &format!("{pages}/farm")]).body;
    let (his_page, operators_page) = (page(&his), page(&operators));
    assert!(his_page.contains("another tenant") && !his_page.contains("shop"), "{his_page}");
    assert!(operators_page.contains("of <strong>shop</strong>"), "{operators_page}");
    assert!(page(&hers).contains("waits for capacity on worker"));
}

#[test]
fn cache_mounts_and_hit_rates_are_on_the_page_of_the_farm() {
    if !has("curl") {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"keeper\"\nversion = \"1\"\n[steps.keep]\nrun = \"head -c 70000 /dev/zero > kept/zeros; cat in\"\n\
                caches = { \"kept\" = { key = \"kept\" } }\n[steps.same]\nrun = \"true\"\n";
    let dir = project(&[("kiln.toml", text), ("in", "one")]);
    for _ in 0..2 {
        assert_eq!(farm.kiln(&["build", dir.path().to_str().unwrap()]).code, 0);
    }
    let cache: serde_json::Value = serde_json::from_str(&curl(&[&format!("{pages}/api/v1/cache")]).body).unwrap();
    let mount = &cache["mounts"][0];
    assert_eq!((&mount["project"], &mount["worker"]), (&"keeper".into(), &"one".into()), "{cache}");
    assert!(mount["size_bytes"].as_u64() >= Some(70_000) && mount["last_used"].is_string(), "{cache}");
    let rates = cache["over_time"].as_array().unwrap();
    let sum = |name: &str| rates.iter().map(|rate| rate[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(["builds", "steps", "hits"].map(sum), [2, 4, 2], "{cache}");
    let page = curl(&[&format!("{pages}/farm")]).body;
    assert!(page.contains("50% of 4 steps in the last 2 builds"), "{page}");
    let (_, mounts) = page.split_once("id=\"mounts\"").unwrap();
    assert!(mounts.contains("<td>one</td>") && mounts.contains("68 KiB"), "{mounts}");
}

#[test]
fn what_is_in_an_image_layer_by_layer_and_what_is_there_in_vain_is_shown() {
    if !has("curl") || !has("busybox") {
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let dockerfile = "FROM scratch\nCOPY busybox /bin/sh\nENV PATH=/bin\nRUN sh -c 'printf \"%0100000d\" 7 > /large; printf \"%050000d\" 8 > /gone; echo a > /kept'\n\
                      RUN sh -c 'printf \"%0100000d\" 9 > /large; printf \"%050000d\" 8 > /copy; read -r x < /kept'\n";
    let dir = project(&[("Dockerfile", dockerfile)]);
    let busybox = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join("busybox"))
        .find(|path| path.is_file());
    std::fs::copy(busybox.unwrap(), dir.path().join("busybox")).unwrap();
    let ran = farm.kiln(&["build", dir.path().to_str().unwrap(), "-f", "Dockerfile"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let get = |path: &str| -> serde_json::Value {
        serde_json::from_str(&curl(&[&format!("{pages}/api/v1{path}")]).body).unwrap()
    };
    let id = get("/artifacts")["artifacts"][0]["id"].as_str().unwrap().to_owned();
    let layers = get(&format!("/artifacts/{id}/layers"));
    let of = |layer: usize, name: &str| layers["layers"][layer][name].as_u64().unwrap();
    assert_eq!((layers["complete"].as_bool(), layers["layers"].as_array().unwrap().len()), (Some(true), 3), "{layers}");
    assert_eq!((of(1, "files"), of(1, "bytes"), of(1, "hidden_bytes")), (3, 150_002, 100_000), "{layers}");
    assert_eq!((of(2, "files"), of(2, "again_bytes"), of(2, "hidden_bytes")), (2, 50_000, 0), "{layers}");
    assert_eq!((&layers["largest"][0]["path"], &layers["hidden"][0]["path"]), (&"bin/sh".into(), &"large".into()));
    assert_eq!(
        (&layers["again"][0]["path"], &layers["again"][0]["other_layer"]),
        (&"copy".into(), &2.into()),
        "{layers}"
    );
    let page = curl(&[&format!("{pages}/artifacts/{id}/layers")]).body;
    assert!(
        page.contains("Overwritten or removed by a later layer")
            && page.contains("Duplicates of other files")
            && page.contains("<code>RUN "),
        "{page}"
    );
    let second = curl(&[&format!("{pages}/artifacts/{id}/layers/2?q=kep")]).body;
    assert!(second.contains("<td>kept</td>") && !second.contains("<td>large</td>"), "{second}");
    for (path, status) in [("layers/9", 404), ("layers/0", 404), ("layers/x", 400)] {
        assert_eq!(curl(&[&format!("{pages}/artifacts/{id}/{path}")]).status, status, "for `{path}`");
    }
}
