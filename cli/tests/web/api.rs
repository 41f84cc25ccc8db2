//! What scripts read is what the description says, for everyone who may read it.

use std::process::Command;

use kiln_harness::{Ran, has, project};
use serde_json::Value;

use crate::world::{curl, farm, guarded};

/// Python with `jsonschema`, which the tools of other tests bring along.
const PYTHON: &str = "/opt/kiln-test-tools/bin/python";

fn get(url: &str) -> Value {
    let answer = curl(&[url]);
    assert_eq!(answer.status, 200, "for {url}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "for {url}");
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn every_answer_is_as_the_description_says() {
    if !has("curl") || !std::path::Path::new(PYTHON).exists() {
        kiln_harness::cannot_run("`/opt/kiln-test-tools` has no Python with `jsonschema`");
        return;
    }
    let (farm, pages) = farm(&["one"]);
    let text = "name = \"shop\"\nversion = \"1\"\n[steps.make]\nrun = \"echo made > out; cat in\"\noutputs = [\"out\"]\n\
                [steps.test]\nneeds = [\"make\"]\nrun = \"exit 3\"\n\
                [artifacts.shop]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let failing = project(&[("kiln.toml", text), ("in", "one")]);
    assert_eq!(farm.kiln(&["build", failing.path().to_str().unwrap()]).code, 1);
    let well = project(&[("kiln.toml", &text.replace("exit 3", "true")), ("in", "two")]);
    assert_eq!(farm.kiln(&["build", well.path().to_str().unwrap()]).code, 0);
    let api = format!("{pages}/api/v1");
    let document = get(&format!("{api}/openapi.json"));
    let build = get(&format!("{api}/builds"))["builds"][0]["id"].as_str().unwrap().to_owned();
    let artifact = get(&format!("{api}/artifacts"))["artifacts"][0]["id"].as_str().unwrap().to_owned();
    let mut answers = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let id = if path.starts_with("/artifacts") { &artifact } else { &build };
        let url = format!("{api}{}", path.replace("{id}", id).replace("{step}", "1"));
        let content = &methods["get"]["responses"]["200"]["content"];
        if content["application/json"].is_object() {
            answers.push(serde_json::json!({ "path": path, "schema": content["application/json"]["schema"], "answer": get(&url) }));
            // Whatever is not there is told as the description says, too.
            if path.contains('{') {
                let none = curl(&[&format!("{api}{}", path.replace("{id}", "none").replace("{step}", "1"))]);
                let body: Value = serde_json::from_str(&none.body).unwrap();
                answers.push(serde_json::json!({ "path": path, "schema": { "$ref": "#/components/schemas/Error" }, "answer": body }));
                assert_eq!((none.status, &body["error"]["status"]), (404, &404.into()), "for {path}");
            }
        } else {
            let text = curl(&[&url]);
            assert_eq!(
                (text.status, text.header("content-type")),
                (200, Some("text/plain; charset=utf-8")),
                "for {path}"
            );
            assert_eq!((text.body.as_str(), text.header("kiln-lines")), ("two\n", Some("1")));
        }
    }
    assert!(answers.len() >= 10, "expected answers of all kinds");
    let explained = answers.iter().find(|one| one["path"] == "/builds/{id}/steps/{step}").unwrap();
    assert_eq!(explained["answer"]["explanation"]["differences"][0]["name"], "in", "{explained}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::json!({ "document": document, "answers": answers }).to_string()).unwrap();
    let mut command = Command::new(PYTHON);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web/schema.py")).arg(file.path());
    let checked = Ran::from(command);
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    // Filters are those of the pages.
    let found = |query: &str| get(&format!("{api}/builds?{query}"))["builds"].as_array().unwrap().len();
    assert_eq!(["status=failed", "project=shop", "user=nobody", "limit=1"].map(found), [1, 2, 0, 1]);
    assert_eq!(curl(&[&format!("{api}/builds?status=odd")]).status, 400);
}

#[test]
fn scripts_are_refused_in_their_own_words() {
    if !has("curl") {
        return;
    }
    let (guarded, pages) = guarded();
    let message = |arguments: &[&str], path: &str| {
        let answer = curl(&[arguments, &[&format!("{pages}/api/v1{path}")]].concat());
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("expected JSON: {answer:?}"));
        assert_eq!(body["error"]["status"], answer.status);
        (answer.status, body["error"]["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(message(&[], "/builds").0, 401, "expected no way to a page for people");
    let made = guarded.make(&["token", "reader", "--role", "cache-reader"]);
    let reader = format!("Authorization: Bearer {}", made.lines().last().unwrap().trim());
    let refused = message(&["-H", &reader], "/builds");
    assert!(refused.0 == 403 && refused.1.contains("`builder`"), "{refused:?}");
    assert_eq!(message(&["-H", &reader], "/none").0, 404);
    assert_eq!(message(&["-H", &reader], "/builds/x/steps/y").0, 400);
    assert_eq!(curl(&["-H", &reader, &format!("{pages}/api/v1/artifacts")]).status, 200);
}
