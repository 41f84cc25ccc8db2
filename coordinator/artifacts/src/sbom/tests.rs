//! Lock files as the tools write them, and the SBOMs made from them.

use kiln_planner::plan::MemorySource;

use super::*;

fn purls(path: &str, text: &str) -> Vec<String> {
    let source = MemorySource::from_iter([(path, text)]);
    packages(&[&source]).keys().map(Package::purl).collect()
}

#[test]
fn each_lock_files_packages_are_named_as_their_registry_names_them() {
    let cargo = "version = 4\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\
                 [[package]]\nname = \"serde\"\nversion = \"1.0.2\"\nsource = \"registry+https://x\"\nchecksum = \"ab\"\n";
    assert_eq!(purls("Cargo.lock", cargo), ["pkg:cargo/serde@1.0.2"]);
    let npm = r#"{"lockfileVersion":3,"packages":{"":{"name":"own"},
        "node_modules/@a/b":{"version":"1.2.3","integrity":"sha512-AAEC"},
        "node_modules/x/node_modules/y":{"version":"2.0.0","dev":true},
        "node_modules/own":{"link":true}}}"#;
    assert_eq!(purls("web/package-lock.json", npm), ["pkg:npm/%40a/b@1.2.3", "pkg:npm/y@2.0.0"]);
    let uv = "version = 1\n[[package]]\nname = \"app\"\nversion = \"1\"\nsource = { virtual = \".\" }\n\
              [[package]]\nname = \"Zope.Interface\"\nversion = \"5\"\nsource = { registry = \"x\" }\n";
    assert_eq!(purls("uv.lock", uv), ["pkg:pypi/zope-interface@5"]);
    let requirements = "# pins\nidna==3.7 --hash=sha256:ab\nrequests[socks]==2.31 ; python_version > \"3\"\nflask>=2\n-r other.txt\nx==1.*\n";
    assert_eq!(purls("requirements.txt", requirements), ["pkg:pypi/idna@3.7", "pkg:pypi/requests@2.31"]);
    let go = "golang.org/x/net v0.1.0 h1:abc=\ngolang.org/x/net v0.1.0/go.mod h1:def=\n";
    assert_eq!(purls("go.sum", go), ["pkg:golang/golang.org/x/net@v0.1.0"]);
    let ruby = "GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (3.0.8)\n    sinatra (4.0.0)\n      rack (>= 3)\n\nDEPENDENCIES\n  sinatra\n";
    assert_eq!(purls("Gemfile.lock", ruby), ["pkg:gem/rack@3.0.8", "pkg:gem/sinatra@4.0.0"]);
    let bun = "{\n  \"packages\": {\n    \"@a/b\": [\"@a/b@1.2.3\", \"\", {}, \"sha512-AAEC\"],\n\n    \"own\": [\"own@workspace:own\"],\n  }\n}\n";
    assert_eq!(purls("bun.lock", bun), ["pkg:npm/%40a/b@1.2.3"]);
    let deno = r#"{"version":"5","npm":{"@a/b@1.2.3_c@2.0.0":{"integrity":"sha512-AAEC"},"ms@2.1.3":{}}}"#;
    assert_eq!(purls("deno.lock", deno), ["pkg:npm/%40a/b@1.2.3", "pkg:npm/ms@2.1.3"]);
    let composer =
        r#"{"packages":[{"name":"a/b","version":"v1.2.0"},{"name":"own/c","version":"1","dist":{"type":"path"}}]}"#;
    assert_eq!(purls("composer.lock", composer), ["pkg:composer/a/b@1.2.0"]);
    let pipenv =
        r#"{"default":{"Idna":{"version":"==3.7"},"own":{"path":"."}},"develop":{"pytest":{"version":"==8.0"}}}"#;
    assert_eq!(purls("Pipfile.lock", pipenv), ["pkg:pypi/idna@3.7", "pkg:pypi/pytest@8.0"]);
    assert!(purls("Cargo.lock", "no toml [").is_empty());
}

#[test]
fn the_document_names_its_artifact_hashes_and_who_needs_a_library() {
    let source = MemorySource::from_iter([(
        "package-lock.json",
        r#"{"packages":{"node_modules/b":{"version":"1","integrity":"sha512-AAEC","dev":true}}}"#,
    )]);
    let artifact =
        v1::Artifact { id: "shop-1".into(), name: "shop".into(), kind: "image".into(), ..Default::default() };
    let wants = Wants { needed: vec!["libc.so.6".into()], ..Wants::default() };
    let found = document(&artifact, &[&source], &BTreeMap::from([("usr/bin/shop".to_owned(), wants)]), &[]);
    assert_eq!(
        (&found["bomFormat"], &found["metadata"]["component"]["type"]),
        (&json!("CycloneDX"), &json!("container"))
    );
    let [package, library] = &found["components"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&package["hashes"][0]["content"], &package["scope"]), (&json!("000102"), &json!("excluded")));
    assert_eq!((&library["name"], &library["properties"][0]["value"]), (&json!("libc.so.6"), &json!("usr/bin/shop")));
}

proptest::proptest! {
    #[test]
    fn no_lock_file_panics(text: String) {
        for path in ["Cargo.lock", "package-lock.json", "poetry.lock", "go.sum", "Gemfile.lock", "requirements.txt"] {
            let _ = purls(path, &text);
        }
    }
}
