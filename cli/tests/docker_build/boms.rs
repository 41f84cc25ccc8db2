//! The bill of materials of an image: what the databases of its system's package managers say, as SPDX.

use std::path::Path;
use std::process::Command;

use kiln_harness::{Farm, cannot_run, output};
use serde_json::Value;

use super::{Project, json};

/// Writes a database as rpm does: with SQLite, and a header for each package. Some are larger than a page.
const RPM: &str = r#"
import sqlite3, struct, sys
def header(tags):
    index, data = b"", b""
    for tag, value in sorted(tags.items()):
        number = isinstance(value, int)
        data += b"\0" * (-len(data) % 4 if number else 0)
        index += struct.pack(">IIII", tag, 4 if number else 6, len(data), 1)
        data += struct.pack(">I", value) if number else value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(data)) + index + data
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
db.execute("CREATE INDEX Other ON Packages(hnum)")
for n in range(400):
    tags = {1000: f"lib{n}", 1001: "1.2", 1002: f"{n}.el9", 1022: "x86_64", 1044: "lib.src.rpm", 1004: "x" * (n * 37)}
    if n == 7: tags[1003] = 3
    db.execute("INSERT INTO Packages (blob) VALUES (?)", (header(tags),))
db.execute("INSERT INTO Packages (blob) VALUES (?)", (header({1000: "gpg-pubkey", 1001: "1", 1002: "1"}),))
db.execute("INSERT INTO Packages (blob) VALUES (?)", (b"\xff" * 40,))
db.commit()
"#;

/// What is wrong with a document, as SPDX's own tools say; `None`, with a message, if they are not installed.
fn problems(document: &Path) -> Option<String> {
    let tool = Path::new("/opt/kiln-test-tools/bin/pyspdxtools");
    if !tool.exists() {
        cannot_run("the Python package `spdx-tools` is not installed; run `.ci/test`");
        return None;
    }
    let checked = Command::new(tool).arg("-i").arg(document).output().unwrap();
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    Some(if checked.status.success() { String::new() } else { text(&checked.stdout) + &text(&checked.stderr) })
}

#[test]
fn the_packages_of_an_image_are_attached_as_a_valid_document() {
    let dockerfile = "FROM base AS tool\nFROM scratch\nCOPY root /\nCOPY --from=tool /bin/busybox /bin/busybox\n";
    let dpkg = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\nVersion: 1:3.0\n";
    let files = [
        ("root/var/lib/dpkg/status", dpkg),
        ("root/var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12\nArchitecture: all\n"),
        ("root/lib/apk/db/installed", "P:musl\nV:1.2.5-r0\nA:x86_64\n"),
        ("root/usr/lib/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
        ("package-lock.json", r#"{"packages":{"node_modules/left-pad":{"version":"1.3.0"}}}"#),
    ];
    let Some(project) = Project::new(dockerfile, &files) else { return };
    let at = project.path();
    std::fs::create_dir_all(at.join("root/etc")).unwrap();
    std::os::unix::fs::symlink("../usr/lib/os-release", at.join("root/etc/os-release")).unwrap();
    std::fs::create_dir_all(at.join("root/var/lib/rpm")).unwrap();
    output("python3", &["-c", RPM, "root/var/lib/rpm/rpmdb.sqlite"], at);
    let line = ["--sbom=true", "--provenance=false", "-o", "out", "."];
    project.well(Farm::shared(), &line);
    let path = at.join("out/sbom.spdx.json");
    let document = json(&path);
    let packages = document["packages"].as_array().unwrap();
    let purls: Vec<&str> =
        packages.iter().filter_map(|one| one["externalRefs"][0]["referenceLocator"].as_str()).collect();
    for expected in [
        "pkg:deb/debian/libssl3@1%3A3.0?arch=amd64&distro=debian-12&upstream=openssl",
        "pkg:deb/debian/base-files@12?arch=all&distro=debian-12",
        "pkg:apk/debian/musl@1.2.5-r0?arch=x86_64&distro=debian-12",
        "pkg:rpm/debian/lib399@1.2-399.el9?arch=x86_64&distro=debian-12&upstream=lib.src.rpm",
        "pkg:rpm/debian/lib7@1.2-7.el9?arch=x86_64&distro=debian-12&epoch=3&upstream=lib.src.rpm",
        "pkg:npm/left-pad@1.3.0",
    ] {
        assert!(purls.contains(&expected), "expected {expected} in {purls:?}");
    }
    assert_eq!(purls.iter().filter(|purl| purl.starts_with("pkg:rpm/")).count(), 400);
    let described = |kind: &str| {
        let relations = document["relationships"].as_array().unwrap();
        relations.iter().filter(|one| one["relationshipType"] == kind).count()
    };
    assert_eq!((described("DESCRIBES"), described("CONTAINS")), (1, 404));
    // The same image again has the same document.
    std::fs::rename(&path, at.join("first.json")).unwrap();
    project.well(Farm::shared(), &line);
    let (first, again): (Value, Value) = (json(&at.join("first.json")), json(&path));
    assert_eq!(first, again);
    let Some(problems) = problems(&path) else { return };
    assert_eq!(problems, "");
}

#[test]
fn packages_that_no_document_lists_are_named_to_the_user() {
    let note = "the bill of materials lacks the packages of rpm";
    let files =
        [("root/var/lib/rpm/Packages", "an older database"), ("root/usr/lib/sysimage/rpm/Packages.db", "another")];
    let Some(project) = Project::new("FROM scratch\nCOPY root/var /var\n", &files) else { return };
    let line = ["-o", "out", "."];
    for _ in 0..2 {
        let told = project.well(Farm::shared(), &line).err;
        assert!(told.contains(note) && told.contains("`/var/lib/rpm/Packages`"), "{told}");
    }
    kiln_harness::write(project.path(), "Dockerfile", "FROM scratch\nCOPY root/usr /usr\n");
    let told = project.well(Farm::shared(), &line).err;
    assert!(told.contains(note) && told.contains("`/usr/lib/sysimage/rpm/Packages.db`"), "{told}");
    // What was rebuilt leaves the older one beside it.
    output("python3", &["-c", RPM, "root/usr/lib/sysimage/rpm/rpmdb.sqlite"], project.path());
    let told = project.well(Farm::shared(), &line).err;
    assert!(!told.contains(note), "{told}");
}
