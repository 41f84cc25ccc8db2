//! Webhooks are told of the ends of builds: a real farm, and receivers that accept, fail, or attack.

#![allow(clippy::unwrap_used)]

mod receiver;

use std::path::Path;

use kiln_harness::{Farm, PROGRAM, commit, git, project, until, write};
use receiver::{Answer, Receiver, Trap};
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STEPS: &str = r#"
name = "shop"
version = "1"
[steps.make]
run = "cat input >&2; grep -q good input && cp input out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

fn accept() -> Receiver {
    Receiver::start(Answer::Status(204, String::new()))
}

/// A farm with these hooks and keys; `DIR` is a directory with the secret in `key`.
fn farm(file: &str, more: &[&str]) -> (Farm, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "key", SECRET);
    write(dir.path(), "notify.toml", &file.replace("DIR", dir.path().to_str().unwrap()));
    let path = dir.path().join("notify.toml");
    (Farm::with(&[&["--notify", path.to_str().unwrap()], more].concat(), &["one"]), dir)
}

/// A repository whose project has this webhook.
fn repository(notify: &str) -> tempfile::TempDir {
    let dir =
        project(&[("kiln.toml", &format!("{STEPS}\n{notify}")), ("input", "nothing\n"), (".gitignore", "kiln-out\n")]);
    commit(dir.path());
    git(dir.path(), &["branch", "-M", "main"]);
    dir
}

/// Commits an input and builds it; the build as the farm remembers it.
fn built(farm: &Farm, dir: &Path, input: &str) -> Value {
    write(dir, "input", input);
    commit(dir);
    let built = farm.build(dir, &[]);
    assert_eq!(built.0.code, i32::from(!input.contains("good")), "{:?}", built.0);
    latest(farm)
}

fn latest(farm: &Farm) -> Value {
    let builds: Value = serde_json::from_str(&farm.kiln(&["builds", "--json"]).out).unwrap();
    builds[0].clone()
}

/// The latest build's calls, when none is to be made any more.
fn settled(farm: &Farm) -> Vec<Value> {
    until("the calls of the latest build to be made", || {
        let calls = latest(farm)["notifications"].as_array().unwrap().clone();
        calls.iter().all(|call| call["state"] != "pending").then_some(calls)
    })
}

/// What the farm's pages answer.
fn visited(farm: &Farm, path: &str) -> String {
    let log = farm.log("coordinator");
    let line = log.lines().rev().find(|line| line.contains("serving the web pages")).unwrap();
    let at = line.split("127.0.0.1:").nth(1).unwrap();
    let port: String = at.chars().take_while(char::is_ascii_digit).collect();
    let (status, page) = kiln_harness::http::get(&format!("127.0.0.1:{port}"), path);
    assert_eq!(status, 200, "{page}");
    page
}

/// The section of a build's page about its calls.
fn told_on_page(farm: &Farm, build: &Value) -> String {
    let page = visited(farm, &format!("/builds/{}", build.as_str().unwrap()));
    page.split_once("notified-title").map(|(_, section)| section.to_owned()).unwrap_or_default()
}

#[test]
fn a_project_is_told_of_builds_that_fail_and_are_fixed_by_signed_calls_that_name_their_page() {
    let receiver = accept();
    let keys = "[keys.ci]\nsecret_file = \"DIR/key\"\nhosts = [\"127.0.0.1\"]\n";
    let (farm, _dir) = farm(keys, &["--allow-notify", "127.0.0.1", "--web-listen", "127.0.0.1:0"]);
    let notify = format!("[notify]\nurl = \"{}\"\nkey = \"ci\"\nbranches = [\"main\"]", receiver.url());
    let repository = repository(&notify);

    // Nothing was broken before: nobody is told of the first success, nor of another branch, nor of what is not committed.
    assert_eq!(built(&farm, repository.path(), "good\n")["notifications"], json!([]));
    let failed = built(&farm, repository.path(), "these are the last words\n");
    let told = receiver.wait_for(1).remove(0);
    let (id, data) = (failed["build"].as_str().unwrap(), told.json()["data"].clone());
    assert_eq!((&told.json()["type"], &data["version"]), (&json!("build.failed"), &json!(1)), "{data}");
    assert_eq!((&data["build"], &data["project"], &data["status"]), (&json!(id), &json!("shop"), &json!("failed")));
    assert_eq!((&data["source"]["branch"], &data["source"]["commit"]), (&json!("main"), &failed["commit"]));
    assert_eq!(data["failed_steps"][0]["step"], "make");
    assert_eq!(data["failed_steps"][0]["log_tail"], "these are the last words");
    let page = data["url"].as_str().unwrap();
    assert!(page.starts_with("http://127.0.0.1:") && page.ends_with(&format!("/builds/{id}")), "{page}");
    assert!(told.is_signed_by(SECRET) && !told.is_signed_by("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert_eq!((told.path.as_str(), told.header("content-type")), ("/hook/secret-path?x=1", "application/json"));

    // Only the host is shown of where it goes.
    let calls = settled(&farm);
    assert_eq!((&calls[0]["state"], &calls[0]["attempts"]), (&json!("delivered"), &json!(1)));
    assert_eq!(calls[0]["to"], format!("http://127.0.0.1:{}", receiver.port));
    assert!(!farm.log("coordinator").contains("secret-path"), "expected no path in the log");
    let shown = told_on_page(&farm, &failed["build"]);
    let to = format!("http://127.0.0.1:{}<", receiver.port);
    assert!([">accepted<", "the project's", &to, ">failed<"].iter().all(|words| shown.contains(words)), "{shown}");
    assert!(!shown.contains("secret-path"), "{shown}");
    let object: Value = serde_json::from_str(&visited(&farm, &format!("/api/v1/builds/{id}"))).unwrap();
    assert_eq!(
        (&object["notifications"][0]["state"], &object["notifications"][0]["to"]),
        (&json!("delivered"), &calls[0]["to"])
    );

    write(repository.path(), "input", "good enough\n");
    assert_eq!(farm.build(repository.path(), &[]).0.code, 0);
    assert_eq!(latest(&farm)["notifications"], json!([]), "expected nobody to be told of what is not committed");
    git(repository.path(), &["checkout", "--quiet", "-b", "other"]);
    assert_eq!(built(&farm, repository.path(), "bad\n")["notifications"], json!([]));
    git(repository.path(), &["checkout", "--quiet", "main"]);

    built(&farm, repository.path(), "good again\n");
    let told = receiver.wait_for(2).remove(1);
    assert_eq!((&told.json()["type"], &told.json()["data"]["status"]), (&json!("build.fixed"), &json!("succeeded")));
    assert!(told.json()["data"]["artifacts"][0]["id"].as_str().unwrap().starts_with("out-"), "{:?}", told.json());
    assert_eq!(built(&farm, repository.path(), "good for ever\n")["notifications"], json!([]));
    assert_eq!(receiver.calls().len(), 2);
}

#[test]
fn a_call_is_made_again_with_the_same_id_until_it_is_accepted_also_by_the_next_coordinator() {
    let receiver = Receiver::start(Answer::Status(503, String::new()));
    let hook =
        format!("[hooks.ops]\nurl = \"{}\"\nsecret_file = \"DIR/key\"\nprojects = [\"shop*\"]\n", receiver.url());
    let (farm, _dir) = farm(
        &format!("{hook}[hooks.others]\nurl = \"{}\"\nprojects = [\"bank\"]\n", receiver.url()),
        &["--web-listen", "127.0.0.1:0"],
    );
    let repository = repository("");
    let build = built(&farm, repository.path(), "bad\n");
    receiver.wait_for(2);
    let calls = latest(&farm)["notifications"].clone();
    assert_eq!(
        (calls.as_array().unwrap().len(), &calls[0]["hook"], &calls[0]["state"]),
        (1, &json!("ops"), &json!("pending"))
    );
    let shown = told_on_page(&farm, &build["build"]);
    assert!([">to be called again<", ">ops<", "503"].iter().all(|words| shown.contains(words)), "{shown}");
    farm.restart_coordinator();
    farm.wait_until_up();
    receiver.wait_for(3);
    receiver.set(Answer::Status(200, String::new()));
    let calls = settled(&farm);
    assert_eq!(calls[0]["state"], "delivered", "{calls:?}");
    assert!(calls[0]["attempts"].as_u64().unwrap() >= 3 && calls[0]["reason"] == "", "{calls:?}");
    let told = receiver.calls();
    assert!(
        told.iter().all(|call| call.header("webhook-id") == calls[0]["id"] && call.is_signed_by(SECRET)),
        "{told:?}"
    );
    assert!(told.iter().all(|call| call.json()["data"]["build"] == build["build"]), "{told:?}");
}

#[test]
fn hooks_are_replaced_while_the_farm_runs() {
    if !Farm::has_program() {
        return;
    }
    let (first, second) = (accept(), accept());
    let hook = |to: &Receiver| format!("[hooks.ops]\nurl = \"{}\"\nsecret_file = \"DIR/key\"\n", to.url());
    let (farm, dir) = farm(&hook(&first), &[PROGRAM]);
    let repository = repository("");
    let before = built(&farm, repository.path(), "bad\n");
    assert_eq!(first.wait_for(1)[0].json()["data"]["build"], before["build"]);
    write(dir.path(), "notify.toml", &hook(&second).replace("DIR", dir.path().to_str().unwrap()));
    farm.reload_coordinator();
    let after = built(&farm, repository.path(), "worse\n");
    assert_eq!(second.wait_for(1)[0].json()["data"]["build"], after["build"]);
    assert_eq!(settled(&farm).len(), 1, "expected one call of the build, to the new address");
    assert_eq!(first.calls().len(), 1);
    // A file that is wrong changes nothing.
    write(dir.path(), "notify.toml", "[hooks.ops]\nurl = 7\n");
    farm.reload_coordinator_in_vain();
    built(&farm, repository.path(), "worst\n");
    assert_eq!((second.wait_for(2).len(), first.calls().len()), (2, 1));
}

#[test]
fn a_project_makes_the_coordinator_call_no_address_inside_the_network() {
    let trap = Trap::set();
    let (farm, _dir) = farm("", &[]);
    let port = trap.port();
    for (url, word) in [
        (format!("https://127.0.0.1:{port}/"), "not a public address"),
        (format!("https://localhost:{port}/"), "not a public address"),
        (format!("https://2130706433:{port}/"), "not a public address"),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), "not a public address"),
        ("https://169.254.169.254/latest/meta-data/".to_owned(), "not a public address"),
        (format!("http://127.0.0.1:{port}/"), "not encrypted"),
        (format!("https://127.0.0.1:{port}\\\\@hooks.example/"), "expected an `https://` URL"),
    ] {
        let repository = repository(&format!("[notify]\nurl = \"{url}\""));
        if word.starts_with("expected") {
            let refused = farm.build(repository.path(), &[]);
            assert!(refused.0.code == 2 && refused.0.err.contains(word), "{url}: {:?}", refused.0);
            continue;
        }
        built(&farm, repository.path(), "bad\n");
        let calls = settled(&farm);
        assert_eq!(calls[0]["state"], "given_up", "{url}: {calls:?}");
        assert!(calls[0]["reason"].as_str().unwrap().contains(word), "{url}: {calls:?}");
        assert!(!trap.has_sprung(), "expected nobody to have called `{url}`");
    }
}

#[test]
fn a_redirect_is_not_followed_and_a_key_signs_for_its_own_hosts_only() {
    let trap = Trap::set();
    let to = format!("location: http://127.0.0.1:{}/\r\n", trap.port());
    let receiver = Receiver::start(Answer::Status(307, to));
    let keys = "[keys.ci]\nsecret_file = \"DIR/key\"\nhosts = [\"ci.example\"]\n";
    let allowed = format!("127.0.0.1:{}", receiver.port);
    let (farm, _dir) = farm(keys, &["--allow-notify", &allowed]);
    let plain = repository(&format!("[notify]\nurl = \"{}\"", receiver.url()));
    built(&farm, plain.path(), "bad\n");
    let told = receiver.wait_for(2);
    assert_eq!(told[0].header("webhook-signature"), "", "expected no signature without a key");
    let calls = until("the redirect to be told", || {
        let calls = latest(&farm)["notifications"].clone();
        calls[0]["reason"].as_str().unwrap().contains("redirects are not followed").then_some(calls)
    });
    assert_eq!(calls[0]["state"], "pending", "expected another attempt: {calls}");
    assert!(!trap.has_sprung(), "expected the redirect not to be followed");
    receiver.set(Answer::Status(410, String::new()));
    assert_eq!(settled(&farm)[0]["state"], "given_up", "expected no attempt after 410");

    let before = receiver.calls().len();
    let signed = repository(&format!("[notify]\nurl = \"{}\"\nkey = \"ci\"", receiver.url()));
    built(&farm, signed.path(), "bad\n");
    let calls = settled(&farm);
    assert!(calls[0]["reason"].as_str().unwrap().contains("signs no calls to `127.0.0.1`"), "{calls:?}");
    assert_eq!(receiver.calls().len(), before, "expected no call without the signature that was asked for");
}

#[test]
fn hostile_receivers_harm_neither_the_coordinator_nor_the_calls_of_others() {
    let hostile = [Answer::Drip, Answer::Silence, Answer::Large(64 << 20), Answer::Endless].map(Receiver::start);
    let good = accept();
    let hook = |name: &str, receiver: &Receiver| {
        format!("[hooks.{name}]\nurl = \"{}\"\nevents = [\"finished\"]\n", receiver.url())
    };
    let names = ["drip", "silence", "large", "endless"];
    let hooks: String = names.iter().zip(&hostile).map(|(name, receiver)| hook(name, receiver)).collect();
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (farm, _dir) = farm(&format!("{hooks}{}", hook("z-good", &good)), &["--metrics-listen", &metrics]);
    let repository = repository("");
    // Every build calls all of them; those that hang have their places, and no more than these.
    for number in 0..4 {
        built(&farm, repository.path(), &format!("good {number}\n"));
    }
    good.wait_for(4);
    let of = |build: &Value, name: &str| {
        let calls = build["notifications"].as_array().unwrap().clone();
        calls.into_iter().find(|call| call["hook"] == name).unwrap()
    };
    // Whoever has said that it accepts has, whatever follows.
    until("the endless body to count as accepted", || {
        (of(&latest(&farm), "endless")["state"] == "delivered").then_some(())
    });
    for name in ["drip", "silence"] {
        until("an attempt to be ended by its time", || {
            let builds: Value = serde_json::from_str(&farm.kiln(&["builds", "--json"]).out).unwrap();
            let first = builds.as_array().unwrap().last().unwrap().clone();
            of(&first, name)["reason"].as_str().unwrap().contains("no answer within").then_some(())
        });
    }
    let large = of(&latest(&farm), "large");
    assert!(
        large["state"] == "pending" && large["reason"] != "",
        "expected a header without end to be refused: {large}"
    );
    // Four of each that accepts, and four of each that does not.
    for sample in ["kiln_notifications_total{result=\"delivered\"} 8", "kiln_notifications_waiting 12"] {
        until(sample, || kiln_harness::http::samples(&metrics).iter().any(|line| line == sample).then_some(()));
    }
}
