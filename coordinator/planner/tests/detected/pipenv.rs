//! Python projects with Pipenv.

use insta::assert_snapshot;

use crate::{assert_sound, planned, refused};

const MANIFEST: &str = "[[source]]\nname = \"team\"\nurl = \"https://example.org/simple\"\nverify_ssl = true\n\n[packages]\nidna = \"==3.7\"\n\n\
                        [dev-packages]\npytest = \"*\"\n\n[requires]\npython_version = \"3.11\"\n";
const HASH: &str = "6a02a8e1a1c5f2df5f3c2a6e7c9bd9e7ab3e2e8f6a5c1e9a1b7a9d0c4f8e2b13";

fn lock(hash: &str) -> String {
    format!(
        r#"{{"_meta":{{"hash":{{"sha256":"{hash}"}},"pipfile-spec":6,"sources":[{{"name":"team","url":"https://example.org/simple"}}]}},
        "default":{{"idna":{{"version":"==3.7","hashes":["sha256:aa","sha256:bb"],"markers":"python_version >= '3.5'"}}}},
        "develop":{{"pytest":{{"version":"==8.0","hashes":["sha256:cc"]}}}}}}"#
    )
}

#[test]
fn what_is_locked_is_installed_by_pip_with_its_hashes() {
    // A table of one's own: other versions of Pipenv hash it differently, so the hash says nothing.
    let manifest = format!("{MANIFEST}\n[docs]\nsphinx = \"*\"\n");
    let lock = lock(HASH);
    let files = [("Pipfile", manifest.as_str()), ("Pipfile.lock", lock.as_str()), ("main.py", ""), ("test_a.py", "")];
    let plan = planned(&files);
    let deps = &plan.steps[0];
    assert_snapshot!(deps.files[".kiln/locked.txt"], @"
    --index-url https://example.org/simple
    idna==3.7 ; python_version >= '3.5' --hash=sha256:aa --hash=sha256:bb
    ");
    assert!(
        deps.run.contains("--no-deps --require-hashes --target .kiln/packages -r .kiln/locked.txt"),
        "{}",
        deps.run
    );
    assert_eq!(deps.tools, ["python3 =3.11 (Pipfile)"]);
    assert_eq!(deps.inputs, ["!**"], "the locked packages are all that it reads");
    assert_sound(&files, &["main.py"]);
}

#[test]
fn a_lock_file_that_is_missing_stale_or_old_is_called_so() {
    assert_snapshot!(refused(&[("Pipfile", MANIFEST)]), @"`Pipfile` names dependencies but there is no `Pipfile.lock`, so two builds of one commit could differ: run `pipenv lock` and commit `Pipfile.lock`");
    assert_snapshot!(refused(&[("Pipfile", MANIFEST), ("Pipfile.lock", &lock(HASH))]), @"`Pipfile.lock` is stale: `Pipfile` has changed since it was written: run `pipenv lock` and commit `Pipfile.lock`");
    let more = MANIFEST.replace("idna", "rich = \"*\"\nidna");
    assert_snapshot!(refused(&[("Pipfile", &more), ("Pipfile.lock", &lock(HASH))]), @"`Pipfile.lock` is stale: `Pipfile` names `rich`, which it lacks: run `pipenv lock` and commit `Pipfile.lock`");
    let old = lock(HASH).replace("\"pipfile-spec\":6", "\"pipfile-spec\":5");
    assert!(refused(&[("Pipfile", MANIFEST), ("Pipfile.lock", &old)]).contains("not in version 6 of its format"));
}
