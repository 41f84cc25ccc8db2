//! Builds on every push: a forge on this machine delivers webhooks; a real farm fetches, builds and reports.

#![allow(clippy::unwrap_used)]

mod forge;
mod replicas;

use axum::http::StatusCode;
use forge::{Forge, TOKEN, git};
use kiln_harness::guarded::{Guarded, access, certificate, local, well};
use kiln_harness::{Built, Ran, until};
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOTHING: &str = "0000000000000000000000000000000000000000";
const PROJECT: &str = r#"
name = "shop"
[steps.make]
run = "cat input > out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

/// A farm that accepts a forge's webhooks.
struct Hooked {
    forge: Forge,
    guarded: Guarded,
    url: String,
}

impl Hooked {
    /// `hooks` is the part of the configuration after the common one; `DIR` in it is the forge's directory.
    fn start(hooks: &[(&str, &str)]) -> Self {
        Self::start_with("", hooks)
    }

    /// `listener` is the part before that.
    fn start_with(listener: &str, hooks: &[(&str, &str)]) -> Self {
        let forge = Forge::start();
        let dir = forge.dir.path();
        std::fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
        std::fs::write(dir.join("token"), TOKEN).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let filled = |text: &str| text.replace("DIR", dir.to_str().unwrap());
        let scheme = if listener.is_empty() { "http" } else { "https" };
        let mut file = format!("listen = \"{listen}\"\n{}", filled(listener));
        for (name, more) in hooks {
            file += &format!(
                "[hooks.{name}]\nsecret_file = {:?}\ntoken_file = {:?}\nrepositories = [\"{}/team/*\"]\n{}\n",
                dir.join("secret"),
                dir.join("token"),
                forge.url,
                filled(more)
            );
        }
        std::fs::write(dir.join("webhooks.toml"), file).unwrap();
        let file = dir.join("webhooks.toml");
        let guarded = Guarded::start(&["--webhooks", file.to_str().unwrap(), "--web-listen", "127.0.0.1:0"]);
        guarded.worker("one");
        Self { url: format!("{scheme}://{listen}/webhooks"), forge, guarded }
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    fn deliver(&self, name: &str, headers: &[(&str, &str)], body: &Value) -> (u16, String) {
        self.forge.deliver(&self.url(name), headers, &body.to_string())
    }

    /// A push as GitHub delivers it, signed with the secret.
    fn github(&self, name: &str, body: &Value) -> (u16, String) {
        let headers = headers(body);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.deliver(name, &headers, body)
    }

    fn payload(&self, reference: &str, commit: &str) -> Value {
        payload(&self.forge, reference, commit)
    }

    /// `kiln` as a user of a tenant.
    fn of_tenant(&self, tenant: &str, arguments: &[&str]) -> std::process::Command {
        let dir = self.guarded.dir();
        let made = certificate(&dir, &format!("one-of-{tenant}"), &["--role", "builder", "--tenant", tenant]);
        self.guarded.as_other(access(&dir, Some(&made)), arguments)
    }

    fn builds(&self, tenant: &str) -> Vec<Value> {
        serde_json::from_str(&well(Ran::from(self.of_tenant(tenant, &["builds", "--json"])))).unwrap()
    }
}

/// A push as GitHub tells of it.
fn payload(forge: &Forge, reference: &str, commit: &str) -> Value {
    let url = &forge.url;
    json!({
        "ref": reference, "before": NOTHING, "after": commit, "head_commit": {"id": commit},
        "repository": {
            "full_name": "team/shop", "clone_url": format!("{url}/team/shop.git"), "html_url": format!("{url}/team/shop"),
            "ssh_url": "git@forge.example:team/shop.git", "pushed_at": unique(),
            "default_branch": "main",
        },
        "pusher": {"name": "ann"},
    })
}

/// The headers of a delivery of GitHub's, signed with the secret.
fn headers(body: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "push".to_owned()),
        ("x-github-delivery", unique().to_string()),
        ("x-hub-signature-256", format!("sha256={}", signed(&body.to_string()))),
    ]
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1_435_180_208);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn signed(body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    ring::hmac::sign(&key, body.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn states(told: &[forge::Told]) -> Vec<&str> {
    told.iter().filter_map(|told| told.body["state"].as_str()).collect()
}

#[test]
fn a_push_is_built_as_its_own_tenant_and_the_commit_says_how_it_went() {
    let hooked = Hooked::start(&[("shop", "forge = \"github\"\nlink = \"https://builds.example/{build}?c={commit}\"")]);
    let commit =
        hooked.forge.push("main", &[("kiln.toml", PROJECT), ("input", "pushed\n"), (".gitignore", "kiln-out\n")]);
    let (code, words) = hooked.github("shop", &hooked.payload("refs/heads/main", &commit));
    assert_eq!(code, 202, "{words}");
    assert!(words.contains(&commit), "{words}");
    let ended = hooked.forge.ended(&commit);
    assert_eq!(ended.body["state"], "success", "{ended:?}");
    assert_eq!(
        (ended.body["context"].as_str(), ended.path.as_str()),
        (Some("kiln"), format!("/api/v3/repos/team/shop/statuses/{commit}").as_str())
    );
    assert_eq!(ended.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(states(&hooked.forge.told(&commit)), ["pending", "pending", "success"]);

    let builds = hooked.builds("shop");
    let build = builds[0]["build"].as_str().unwrap();
    assert_eq!((builds.len(), &builds[0]["user"]), (1, &json!("ann")), "{builds:?}");
    assert_eq!(ended.body["target_url"], format!("https://builds.example/{build}?c={commit}"));
    let listed = well(Ran::from(hooked.of_tenant("shop", &["artifacts", "--json"])));
    let artifacts: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!((&artifacts[0]["commit"], &artifacts[0]["dirty"]), (&json!(commit), &json!(false)), "{listed}");
    let id = artifacts[0]["id"].as_str().unwrap();
    assert!(ended.body["description"].as_str().unwrap().contains(id), "expected the artifact's id: {ended:?}");
    // Neither the farm's admin nor another tenant sees it.
    assert_eq!(hooked.guarded.farm.kiln(&["builds", "--json"]).out.trim(), "[]");

    // An engineer's build of the same commit has the same actions: nothing runs again.
    let clone = hooked.forge.dir.path().join("clone");
    let bare = hooked.forge.dir.path().join("git/team/shop.git");
    git(hooked.forge.dir.path(), &["clone", "-q", bare.to_str().unwrap(), clone.to_str().unwrap()]);
    let mut command = hooked.of_tenant("shop", &["build", "--progress", "json"]);
    command.current_dir(&clone);
    let own = Built(Ran::from(command)).well();
    assert_eq!(own.caches()["make"], "hit");
    assert_eq!(own.of_type("artifact")[0]["id"], id, "expected the artifact of the same commit to be the same");

    // The next push transfers only what is new, and a tag is not built unless it is configured.
    let next = hooked.forge.push("main", &[("input", "pushed again\n")]);
    assert_eq!(hooked.github("shop", &hooked.payload("refs/heads/main", &next)).0, 202);
    assert_eq!(hooked.forge.ended(&next).body["state"], "success");
    let left =
        std::fs::read_dir(hooked.guarded.farm.dir.path().join("coordinator/webhooks/repositories/files")).unwrap();
    assert_eq!(left.count(), 0, "expected no checked-out files to be left");
}

#[test]
fn a_push_builds_a_dockerfile_from_what_kiln_build_would_send() {
    let hooked = Hooked::start(&[("shop", "forge = \"github\"")]);
    let config =
        "name = \"shop\"\nversion = \"1\"\n[artifacts.app]\ndockerfile = \"app/Dockerfile\"\ncontext = \"app\"\n";
    let files = [
        ("kiln.toml", config),
        ("notes.txt", "nothing copies them"),
        ("app/Dockerfile", "FROM scratch\nCOPY . /app/\n"),
        ("app/.dockerignore", "Dockerfile\n.dockerignore\n*.key\n"),
        ("app/.kilnignore", "main.txt\n"),
        ("app/main.txt", "a\n"),
        ("app/run.sh", "#!/bin/sh\n"),
        ("app/private.key", "k\n"),
        (".gitignore", "kiln-out\n"),
    ];
    let work = hooked.forge.work();
    std::fs::create_dir_all(work.join("app")).unwrap();
    std::fs::write(work.join("app/run.sh"), "").unwrap();
    std::fs::set_permissions(work.join("app/run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let commit = hooked.forge.push("main", &files);
    assert_eq!(hooked.github("shop", &hooked.payload("refs/heads/main", &commit)).0, 202);
    let ended = hooked.forge.ended(&commit);
    assert_eq!(ended.body["state"], "success", "{ended:?}");
    // Its webhook has no link: the status links to the build's page, as soon as there is a build.
    let page = ended.body["target_url"].as_str().unwrap();
    let id = hooked.builds("shop")[0]["build"].as_str().unwrap().to_owned();
    assert!(page.starts_with("https://127.0.0.1:") && page.ends_with(&format!("/builds/{id}")), "{page}");
    let links: Vec<bool> = hooked.forge.told(&commit).iter().map(|told| told.body["target_url"] == page).collect();
    assert_eq!(links, [false, true, true]);
    let clone = hooked.forge.dir.path().join("clone");
    let bare = hooked.forge.dir.path().join("git/team/shop.git");
    git(hooked.forge.dir.path(), &["clone", "-q", bare.to_str().unwrap(), clone.to_str().unwrap()]);
    let mut command = hooked.of_tenant("shop", &["build", "--progress", "json"]);
    command.current_dir(&clone);
    let own = Built(Ran::from(command)).well();
    let id = own.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    assert!(ended.body["description"].as_str().unwrap().contains(&id), "expected {id}, the same image: {ended:?}");
    let image = kiln_harness::find(&clone.join("kiln-out"), "index.json").unwrap();
    let mut listed = String::new();
    for blob in std::fs::read_dir(image.parent().unwrap().join("blobs/sha256")).unwrap() {
        let tar = std::process::Command::new("tar").arg("tvzf").arg(blob.unwrap().path()).output().unwrap();
        listed.push_str(&String::from_utf8_lossy(&tar.stdout));
    }
    let line = |name: &str| listed.lines().find(|line| line.ends_with(name)).map(str::to_owned);
    assert!(line("app/main.txt").is_some_and(|line| line.starts_with("-rw-r--r--")), "{listed}");
    assert!(line("app/run.sh").is_some_and(|line| line.starts_with("-rwxr-xr-x")), "{listed}");
    assert!(["private.key", "Dockerfile", "notes.txt", ".git"].iter().all(|name| line(name).is_none()), "{listed}");
}

#[test]
fn what_is_not_signed_is_a_replay_or_is_no_push_that_is_built_builds_nothing() {
    let hooked = Hooked::start(&[(
        "shop",
        "forge = \"github\"\nbranches = [\"main\", \"release/*\"]\ntags = [\"v*\"]\ntenant = \"shop\"",
    )]);
    let commit = hooked.forge.push("main", &[("kiln.toml", PROJECT), ("input", "once\n")]);
    let push = |reference: &str| hooked.payload(reference, &commit);
    let main = push("refs/heads/main");
    let event = ("x-github-event", "push");
    let tag = format!("sha256={}", signed(&main.to_string()));
    let (code, words) = hooked.deliver("shop", &[event], &main);
    assert_eq!((code, words.contains("signature")), (401, true), "{words}");
    let other = push("refs/heads/main");
    assert_eq!(
        hooked.deliver("shop", &[event, ("x-hub-signature-256", &tag)], &other).0,
        401,
        "another body's signature"
    );
    assert_eq!(hooked.deliver("bank", &[event, ("x-hub-signature-256", &tag)], &main).0, 401, "another webhook's name");

    let mut elsewhere = push("refs/heads/main");
    elsewhere["repository"]["clone_url"] = json!("https://evil.example/team/shop.git");
    elsewhere["repository"]["html_url"] = json!("https://evil.example/team/shop");
    let (code, words) = hooked.github("shop", &elsewhere);
    assert_eq!((code, words.contains("repositories")), (403, true), "{words}");
    for (reference, word) in [
        ("refs/heads/feature", "`feature` is not built"),
        ("refs/heads/release/1/2", "is not built"),
        ("refs/tags/nightly", "tag `nightly` is not built"),
        ("refs/notes/commits", "neither a branch nor a tag"),
    ] {
        let (code, words) = hooked.github("shop", &push(reference));
        assert_eq!((code, words.contains(word)), (200, true), "{reference}: {words}");
    }
    let mut gone = push("refs/heads/main");
    (gone["after"], gone["head_commit"]) = (json!(NOTHING), Value::Null);
    let (code, words) = hooked.github("shop", &gone);
    assert_eq!((code, words.contains("deleted")), (200, true), "{words}");
    assert_eq!(hooked.github("shop", &json!({"ref": "refs/heads/main"})).0, 400);
    assert_eq!(hooked.forge.fetches(), 0, "expected nothing to be fetched");

    assert_eq!(hooked.github("shop", &main).0, 202);
    let (code, words) = hooked.github("shop", &main);
    assert_eq!((code, words.contains("already accepted")), (409, true), "{words}");
    assert_eq!(hooked.forge.ended(&commit).body["state"], "success");
    assert_eq!(hooked.github("shop", &main).0, 409, "expected a refusal after the build too");
    hooked.guarded.farm.restart_coordinator();
    hooked.guarded.farm.wait_until_up();
    assert_eq!(hooked.github("shop", &main).0, 409, "expected a refusal after a restart too");
    assert_eq!(hooked.builds("shop").len(), 1);
}

#[test]
fn gitlab_and_gitea_are_understood_too() {
    let hooked = Hooked::start(&[("lab", "forge = \"gitlab\""), ("tea", "forge = \"gitea\"\ntags = [\"v*\"]")]);
    let commit = hooked.forge.push("main", &[("kiln.toml", PROJECT), ("input", "for all\n")]);
    let repository = hooked.forge.repository();
    let push = json!({
        "object_kind": "push", "ref": "refs/heads/main", "before": NOTHING, "after": commit, "checkout_sha": commit,
        "user_username": "ann", "project_id": 15,
        "project": {
            "path_with_namespace": "team/shop", "git_http_url": repository, "git_ssh_url": "git@forge.example:team/shop.git",
            "web_url": format!("{}/team/shop", hooked.forge.url), "default_branch": "main",
        },
    });
    let event = ("x-gitlab-event", "Push Hook");
    assert_eq!(hooked.deliver("lab", &[event, ("x-gitlab-token", "another")], &push).0, 401);
    let (code, words) = hooked.deliver("lab", &[event, ("x-gitlab-token", SECRET)], &push);
    assert_eq!(code, 202, "{words}");
    let ended = hooked.forge.ended(&commit);
    assert_eq!(ended.path, format!("/api/v4/projects/team%2Fshop/statuses/{commit}"));
    assert_eq!(
        (&ended.body["state"], &ended.body["ref"], &ended.body["name"]),
        (&json!("success"), &json!("main"), &json!("kiln"))
    );
    assert_eq!(ended.headers["private-token"], TOKEN);
    assert_eq!(states(&hooked.forge.told(&commit)), ["pending", "running", "success"]);

    let next = hooked.forge.push("main", &[("input", "for gitea\n")]);
    git(&hooked.forge.work(), &["tag", "-a", "-m", "one", "v1.2.0"]);
    git(&hooked.forge.work(), &["push", "-q", "origin", "v1.2.0"]);
    let mut body = hooked.payload("refs/tags/v1.2.0", &next);
    body["after"] = json!(git(&hooked.forge.work(), &["rev-parse", "v1.2.0"]));
    let tag = signed(&body.to_string());
    let (code, words) = hooked.deliver("tea", &[("x-gitea-event", "push"), ("x-gitea-signature", &tag)], &body);
    assert_eq!(code, 202, "{words}");
    let ended = hooked.forge.ended(&next);
    assert_eq!(
        (&ended.body["state"], &ended.headers["authorization"]),
        (&json!("success"), &format!("token {TOKEN}").parse().unwrap())
    );
    assert_eq!(hooked.builds("tea")[0]["version"], "v1.2.0", "expected the tag to be the version");
}

#[test]
fn a_commit_that_cannot_be_built_says_why_and_a_forge_that_is_away_is_told_later() {
    let hooked = Hooked::start(&[("shop", "forge = \"github\"")]);
    let bad = "name = \"shop\"\n[steps.make]\nrun = \"false\"\noutput = [\"out\"]\n";
    let commit = hooked.forge.push("main", &[("kiln.toml", bad)]);
    // The first call, and the first two that report the end.
    hooked.forge.fail(&[StatusCode::SERVICE_UNAVAILABLE; 3]);
    assert_eq!(hooked.github("shop", &hooked.payload("refs/heads/main", &commit)).0, 202);
    let ended = hooked.forge.ended(&commit);
    let words = ended.body["description"].as_str().unwrap();
    assert!(
        ended.body["state"] == "failure" && words.contains("output"),
        "expected the mistake by its name: {ended:?}"
    );

    let fails = PROJECT.replace("cat input > out", "echo no such luck >&2; exit 3");
    let commit = hooked.forge.push("main", &[("kiln.toml", &fails)]);
    assert_eq!(hooked.github("shop", &hooked.payload("refs/heads/main", &commit)).0, 202);
    let ended = hooked.forge.ended(&commit);
    assert!(
        ended.body["state"] == "failure" && ended.body["description"].as_str().unwrap().contains("make"),
        "expected the step that failed: {ended:?}"
    );
    assert_eq!(hooked.builds("shop").len(), 1, "expected no build of an invalid plan");
}

#[test]
fn what_was_accepted_is_built_and_reported_by_the_next_coordinator() {
    let hooked = Hooked::start(&[("shop", "forge = \"github\"\nsecrets = { PASS = \"DIR/token\" }")]);
    let waits = PROJECT.replace("cat input > out", "until [ -e /nowhere ]; do sleep 0.1; done; echo ${#PASS} > out");
    let waits = waits.replace("[artifacts.out]", "secrets = [\"PASS\"]\n[artifacts.out]");
    let commit = hooked.forge.push("main", &[("kiln.toml", &waits)]);
    assert_eq!(hooked.github("shop", &hooked.payload("refs/heads/main", &commit)).0, 202);
    // Only accepted: killed before the test can wait for anything else.
    hooked.guarded.farm.restart_coordinator();
    hooked.guarded.farm.wait_until_up();
    let build = until("the push to be built", || {
        hooked.builds("shop").first().filter(|build| build["status"] == "running").cloned()
    });
    let id = build["build"].as_str().unwrap().to_owned();
    until("the status to be reported", || {
        let told = hooked.forge.told(&commit);
        told.iter().any(|told| told.body["description"].as_str().unwrap().contains(&id)).then_some(())
    });
    // And again, now that the build is running.
    hooked.guarded.farm.restart_coordinator();
    hooked.guarded.farm.wait_until_up();
    until("the build to be resumed", || {
        hooked
            .builds("shop")
            .iter()
            .find(|build| build["build"] == id.as_str() && build["status"] == "running")
            .map(drop)
    });
    well(Ran::from(hooked.of_tenant("shop", &["cancel", &id])));
    let ended = hooked.forge.ended(&commit);
    assert_eq!(ended.body["state"], "error", "expected a cancelled build to be reported: {ended:?}");
    assert_eq!(hooked.builds("shop").len(), 1, "expected one build of one push");
}

#[test]
fn a_file_of_webhooks_that_cannot_be_used_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (short, secret) = (dir.path().join("short"), dir.path().join("secret"));
    std::fs::write(&short, "short").unwrap();
    std::fs::write(&secret, SECRET).unwrap();
    let hook = |more: &str| format!("[hooks.shop]\nforge = \"github\"\nsecret_file = {secret:?}\n{more}\n");
    let repositories = "repositories = [\"https://forge.example/team/*\"]";
    for (file, word) in [
        (String::new(), "hooks"),
        ("[hooks]\n".to_owned(), "[hooks.NAME]"),
        (hook(""), "repositories"),
        (hook("repositories = []"), "is empty"),
        (hook("repositories = [\"https://*/shop\"]"), "pattern in the host"),
        (hook(&format!("{repositories}\nbranch = [\"main\"]")), "branch"),
        (hook(&format!("{repositories}\nbranches = [\"a[\"]")), "invalid pattern"),
        (hook(&format!("{repositories}\nplatforms = [\"windows\"]")), "platforms"),
        (hook(&format!("{repositories}\ndirectory = \"../x\"")), "not inside"),
        (hook(&format!("{repositories}\ntoken_file = \"/no/such\"")), "/no/such"),
        (hook(repositories).replace(secret.to_str().unwrap(), short.to_str().unwrap()), "at least 16"),
        (format!("listen = \"0.0.0.0:0\"\n{}", hook(repositories)), "insecure = true"),
        (format!("key = \"/x\"\n{}", hook(repositories)), "must be set together"),
    ] {
        let path = dir.path().join("webhooks.toml");
        std::fs::write(&path, &file).unwrap();
        let data = dir.path().join("data");
        let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--webhooks"];
        let ran = local(&[&arguments[..], &[path.to_str().unwrap()]].concat());
        assert!(ran.code != 0 && ran.err.contains(word), "expected `{word}` for\n{file}\nfound {ran:?}");
        assert!(!data.join("blobs").exists(), "expected nothing to be created");
    }
}

#[test]
fn a_part_of_a_repository_with_its_submodules_is_built_and_deliveries_come_over_tls() {
    let more = "forge = \"github\"\ndirectory = \"services/shop\"\nsubmodules = true\nplatforms = [\"linux/amd64\"]";
    let hooked = Hooked::start_with("certificate = \"DIR/tls.pem\"\nkey = \"DIR/tls.key\"\n", &[("shop", more)]);
    let library = hooked.forge.add_repository("team/library", &[("text", "from the library\n")]);
    let project = PROJECT.replace("cat input", "cat lib/text");
    hooked.forge.push("main", &[("services/shop/kiln.toml", &project), ("kiln.toml", "no project")]);
    git(&hooked.forge.work(), &["submodule", "--quiet", "add", library.to_str().unwrap(), "services/shop/lib"]);
    let url = format!("{}/team/library.git", hooked.forge.url);
    git(&hooked.forge.work(), &["config", "-f", ".gitmodules", "submodule.services/shop/lib.url", &url]);
    let commit = hooked.forge.push("main", &[]);
    let (code, words) = hooked.github("shop", &hooked.payload("refs/heads/main", &commit));
    assert_eq!(code, 202, "{words}");
    let ended = hooked.forge.ended(&commit);
    assert_eq!(ended.body["state"], "success", "{ended:?}");
    let id = hooked.builds("shop")[0]["build"].as_str().unwrap().to_owned();
    let fetched = hooked.forge.dir.path().join("fetched");
    let artifact = ended.body["description"].as_str().unwrap().trim_start_matches("made ").to_owned();
    well(Ran::from(hooked.of_tenant("shop", &["fetch", &artifact, "--output", fetched.to_str().unwrap()])));
    let unpacked = kiln_harness::unpack(&fetched);
    assert_eq!(std::fs::read_to_string(unpacked.path().join("out")).unwrap(), "from the library\n", "build {id}");

    // A commit cannot make the coordinator fetch from other hosts, with credentials that it might send there.
    let inner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://{}/team/library.git", inner.local_addr().unwrap());
    hooked.forge.add_repository("bank/library", &[("text", "of another owner\n")]);
    let bank = format!("{}/bank/library.git", hooked.forge.url);
    let local = format!("file://{}", library.display());
    for url in [elsewhere.as_str(), &bank, "../../bank/library.git", &local] {
        git(&hooked.forge.work(), &["config", "-f", ".gitmodules", "submodule.services/shop/lib.url", url]);
        let commit = hooked.forge.push("main", &[]);
        let fetches = hooked.forge.fetches();
        assert_eq!(hooked.github("shop", &hooked.payload("refs/heads/main", &commit)).0, 202);
        let ended = hooked.forge.ended(&commit);
        let words = ended.body["description"].as_str().unwrap();
        assert!(
            ended.body["state"] == "failure" && words.contains("submodule `services/shop/lib`"),
            "{url}: {ended:?}"
        );
        assert!(hooked.forge.fetches() > fetches, "expected the commit itself to be fetched");
    }
    inner.set_nonblocking(true).unwrap();
    assert!(inner.accept().is_err(), "expected no connection to another service");
}
