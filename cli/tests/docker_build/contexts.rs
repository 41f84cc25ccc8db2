//! Where a context comes from.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kiln_harness::{Farm, Ran, cannot_run, git, has, output, project, until, write};

use crate::{opened, well};

const LIST: &str = "FROM scratch\nCOPY . /\n";

/// The files that a build leaves, with modes.
fn listed(at: &Path) -> String {
    output("sh", &["-c", "find . ! -name . -printf '%P %m\\n' | sort"], at).trim_end().to_owned()
}

/// A build in `dir`, whose files go to the directory that is returned.
fn built(dir: &Path, line: &[&str], stdin: Option<&Path>) -> (tempfile::TempDir, Ran) {
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display().to_string();
    let mut command = Farm::shared().command(&[&["docker", "buildx", "build", "-o", &to], line].concat());
    command.current_dir(dir);
    if let Some(stdin) = stdin {
        command.stdin(Stdio::from(opened(stdin)));
    }
    (out, command.into())
}

#[test]
fn a_directory_is_sent_without_what_dockerignore_names_whatever_git_says() {
    let files = [
        ("Dockerfile", LIST),
        (".gitignore", "made\n"),
        ("made", "1"),
        ("secret.env", "1"),
        ("logs/a.log", "1"),
        ("logs/keep.log", "1"),
        (".dockerignore", "Dockerfile\n.dockerignore\n*.env\nlogs\n!logs/keep.log\n.git\n"),
        ("named/.dockerignore", "no\n"),
        ("named/no", "1"),
        ("named/yes", "1"),
        ("other.Dockerfile", "FROM scratch\nCOPY --from=n . /\nCOPY made /\n"),
        ("other.Dockerfile.dockerignore", "named\n"),
    ];
    let dir = project(&files);
    git(dir.path(), &["init", "--quiet"]);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    output("chmod", &["600", "made"], dir.path());
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("link")).unwrap();
    let (out, ran) = built(dir.path(), &["."], None);
    well(ran);
    let found = listed(out.path());
    for line in ["made 600", "empty 755", "link 777", "logs/keep.log 644", ".gitignore 644", "named/no 644"] {
        assert!(found.lines().any(|one| one == line), "expected `{line}` in:\n{found}");
    }
    assert!(!found.contains("secret.env") && !found.contains("a.log") && !found.contains("\nDockerfile "), "{found}");
    let (out, ran) = built(dir.path(), &["-f", "other.Dockerfile", "--build-context", "n=named", "."], None);
    well(ran);
    assert_eq!(listed(out.path()), ".dockerignore 644\nmade 600\nyes 644");
    // From another directory, and with the Dockerfile on standard input.
    let inline = dir.path().join("inline");
    std::fs::write(&inline, "FROM scratch\nCOPY made /m\n").unwrap();
    let context = dir.path().display().to_string();
    let (out, ran) = built(Path::new("/"), &["-f", "-", &context], Some(&inline));
    well(ran);
    assert_eq!(listed(out.path()), "m 600");
}

#[test]
fn standard_input_is_a_dockerfile_or_an_archive() {
    let dir = project(&[
        ("Dockerfile", LIST),
        ("sub/tool", "x"),
        ("alone", "FROM scratch\nCOPY --from=n a /b\n"),
        ("n/a", "1"),
    ]);
    output("chmod", &["4755", "sub/tool"], dir.path());
    let (out, ran) = built(dir.path(), &["--build-context", "n=n", "-"], Some(&dir.path().join("alone")));
    well(ran);
    assert_eq!(listed(out.path()), "b 644");
    for (flag, name) in [("", "a.tar"), ("z", "a.tar.gz"), ("J", "a.tar.xz"), ("j", "a.tar.bz2")] {
        output("tar", &[&format!("-c{flag}f"), name, "Dockerfile", "sub"], dir.path());
        let (out, ran) = built(dir.path(), &["-"], Some(&dir.path().join(name)));
        well(ran);
        assert_eq!(listed(out.path()), "Dockerfile 644\nsub 755\nsub/tool 4755", "{name}");
    }
    output("tar", &["-cf", "b.tar", "-P", "--transform=s,Dockerfile,../../Dockerfile,", "Dockerfile"], dir.path());
    let (_, ran) = built(dir.path(), &["-"], Some(&dir.path().join("b.tar")));
    assert!(ran.code == 1 && ran.err.contains("leads out"), "{ran:?}");
    let (_, ran) = built(dir.path(), &["-f", "absent", "-"], Some(&dir.path().join("a.tar")));
    assert!(ran.code == 1 && ran.err.contains("no `absent`"), "{ran:?}");
}

#[test]
fn an_image_of_a_layout_is_the_one_that_is_named() {
    let Some(project) = crate::Project::new("FROM base\nRUN echo made > /made\n", &[]) else { return };
    let at = project.path();
    write(
        at,
        "both",
        "FROM first AS one\nRUN test ! -e /made && echo none > /none\nFROM scratch\nCOPY --from=one /none /\nCOPY --from=second /made /\n",
    );
    project.well(Farm::shared(), &["-t", "x:second", "-o", "type=oci,dest=two,tar=false", "."]);
    let base = format!("oci:{}:12", project.base.path().display());
    output("skopeo", &["--insecure-policy", "copy", "--quiet", &base, "oci:two:first"], at);
    let (first, second) =
        ("--build-context=first=oci-layout://two:first", "--build-context=second=oci-layout://two:second");
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display().to_string();
    project.well(Farm::shared(), &[first, second, "-f", "both", "-o", &to, "."]);
    assert_eq!(listed(out.path()), "made 644\nnone 644");
    let refused =
        project.build(Farm::shared(), &[first, "--build-context=second=oci-layout://two:third", "-f", "both", "."]);
    assert!(refused.code == 1 && refused.err.contains("no image `third`, but `second`, `first`"), "{refused:?}");
}

/// Serves a file over HTTP.
fn serve(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).unwrap_or(0);
            let is_there = String::from_utf8_lossy(&asked[..count]).starts_with("GET /context");
            let status = if is_there { "200 OK" } else { "404 Not Found" };
            let body: &[u8] = if is_there { &file } else { b"" };
            let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(body);
        }
    });
    format!("http://{address}")
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn urls_and_repositories_are_fetched() {
    let dir = project(&[("app/Dockerfile", LIST), ("app/a", "1"), ("b", "2")]);
    output("tar", &["-czf", "context.tar.gz", "-C", "app", "."], dir.path());
    let url = serve(std::fs::read(dir.path().join("context.tar.gz")).unwrap());
    let (out, ran) = built(dir.path(), &[&format!("{url}/context.tar.gz")], None);
    well(ran);
    assert_eq!(listed(out.path()), "Dockerfile 644\na 644");
    let (_, ran) = built(dir.path(), &[&format!("{url}/absent")], None);
    assert!(ran.code == 1 && ran.err.contains("404"), "{ran:?}");
    std::fs::remove_file(dir.path().join("context.tar.gz")).unwrap();
    kiln_harness::commit(dir.path());
    git(dir.path(), &["branch", "release"]);
    write(dir.path(), "app/later", "3");
    kiln_harness::commit(dir.path());
    if !has("git") {
        return cannot_run("git");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Not by `git daemon`, whose child would outlive it.
    let program = format!("{}/git-daemon", output("git", &["--exec-path"], dir.path()).trim());
    let base = format!("--base-path={}", dir.path().display());
    let daemon = Command::new(program)
        .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1", &format!("--port={port}"), &base])
        .arg(dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _daemon = Daemon(daemon);
    let remote = format!("git://127.0.0.1:{port}/.git");
    until("the repository to be served", || {
        Command::new("git").args(["ls-remote", &remote]).output().unwrap().status.success().then_some(())
    });
    let (out, ran) = built(Path::new("/"), &[&format!("{remote}#release:app")], None);
    well(ran);
    assert_eq!(listed(out.path()), "Dockerfile 644\na 644");
    let (out, ran) = built(Path::new("/"), &["-f", "app/Dockerfile", &remote], None);
    well(ran);
    assert_eq!(listed(out.path()), "app 755\napp/Dockerfile 644\napp/a 644\napp/later 644\nb 644");
    let (_, ran) = built(Path::new("/"), &[&format!("{remote}#absent")], None);
    assert!(ran.code == 1 && ran.err.contains("no branch, tag or commit `absent`"), "{ran:?}");
}
