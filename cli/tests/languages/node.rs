//! Realistic Node projects, built and run.

use std::path::Path;

use kiln_harness::{Farm, commit, output, project, unpack, write};

/// Commands and a linked package replace what a registry would provide.
const SITE: &[(&str, &str)] = &[
    ("index.html", "<p>hello"),
    (
        "package-lock.json",
        r#"{"name":"site","lockfileVersion":3,"requires":true,"packages":{
            "":{"name":"site","devDependencies":{"vite":"file:tools/vite"}},
            "node_modules/vite":{"resolved":"tools/vite","link":true},
            "tools/vite":{"name":"vite","version":"1.0.0","bin":{"vite":"cli.js"},"dev":true}}}"#,
    ),
    (
        "package.json",
        r#"{"name":"site","scripts":{"build":"vite build"},"devDependencies":{"vite":"file:tools/vite"}}"#,
    ),
    (
        "tools/vite/cli.js",
        "#!/usr/bin/env node\nconst fs = require('fs');\nfs.mkdirSync('dist/assets', { recursive: true });\n\
         fs.copyFileSync('index.html', 'dist/index.html');\nfs.writeFileSync('dist/assets/a.js', '');\n",
    ),
    ("tools/vite/package.json", r#"{"name":"vite","version":"1.0.0","bin":{"vite":"cli.js"}}"#),
];

/// A workspace in which one member generates code when it is installed, and another writes into an installed package.
const WORKSPACE: &[(&str, &str)] = &[
    ("node_modules/stale/index.js", "throw new Error('an earlier installation')\n"),
    (
        "package-lock.json",
        r#"{"name":"shop","lockfileVersion":3,"requires":true,"packages":{
            "":{"name":"shop","workspaces":["packages/*"]},
            "node_modules/api":{"resolved":"packages/api","link":true},
            "node_modules/db":{"resolved":"packages/db","link":true},
            "node_modules/lint":{"resolved":"packages/lint","link":true},
            "packages/api":{"version":"1.0.0","dependencies":{"db":"*"},"devDependencies":{"lint":"*"}},
            "packages/db":{"version":"1.0.0","bin":{"migrate":"migrate.js"},"hasInstallScript":true},
            "packages/lint":{"version":"1.0.0"}}}"#,
    ),
    ("package.json", r#"{"name":"shop","private":true,"workspaces":["packages/*"]}"#),
    (
        "packages/api/build.js",
        "const fs = require('fs');\nfs.mkdirSync('../../node_modules/.prisma', { recursive: true });\n\
         fs.writeFileSync('../../node_modules/.prisma/index.js', 'exports.client = 1\\n');\n\
         fs.writeFileSync('tables.json', JSON.stringify(require('db').tables));\n",
    ),
    ("packages/api/main.js", "console.log(require('./tables.json').join(), require('.prisma').client)\n"),
    (
        "packages/api/package.json",
        r#"{"name":"api","version":"1.0.0","scripts":{"build":"migrate && node build.js"},
            "dependencies":{"db":"*"},"devDependencies":{"lint":"*"}}"#,
    ),
    ("packages/db/generate.js", "require('fs').writeFileSync('client.js', 'exports.tables = [\"users\"]\\n')\n"),
    ("packages/db/migrate.js", "#!/usr/bin/env node\nconsole.log('migrated')\n"),
    (
        "packages/db/package.json",
        r#"{"name":"db","version":"1.0.0","main":"client.js","bin":{"migrate":"migrate.js"},
            "scripts":{"postinstall":"node generate.js"}}"#,
    ),
    ("packages/lint/package.json", r#"{"name":"lint","version":"1.0.0"}"#),
];

#[test]
fn a_site_is_its_files_and_not_the_sources() {
    let dir = project(SITE);
    Farm::shared().build(dir.path(), &[]).well();
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(std::fs::read_to_string(unpacked.path().join("index.html")).unwrap(), "<p>hello");
    for path in ["package.json", "node_modules", "dist"] {
        assert!(!unpacked.path().join(path).exists(), "{path}");
    }
}

#[test]
fn members_scripts_run_and_an_edit_leaves_both_layers() {
    let dir = project(WORKSPACE);
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let main = unpacked.path().join("packages/api/main.js");
    assert_eq!(output("node", &[main.to_str().unwrap()], Path::new("/")), "users 1\n");
    assert!(
        !unpacked.path().join("node_modules/stale").exists(),
        "expected the packages of the lock file, not those in the tree"
    );

    write(dir.path(), "packages/api/main.js", "console.log('edited')\n");
    commit(dir.path());
    let edited = farm.build(dir.path(), &[]).well();
    let caches = edited.caches();
    assert_eq!(
        (caches["deps"].as_str(), caches["production"].as_str(), caches["bundle"].as_str()),
        ("hit", "hit", "miss")
    );
}
