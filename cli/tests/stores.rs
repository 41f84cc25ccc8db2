//! Artifacts in stores of plain files: a bucket on a real S3 server, and a repository that accepts files by PUT (here
//! nginx).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kiln_harness::s3::S3;
use kiln_harness::{Built, Farm, Ran, cannot_run, project, until};
use object_store::ObjectStoreExt;

const CONFIG: &str = "name = \"shop\"\nversion = \"1.4\"\n[steps.make]\nrun = \"echo one > one; seq 3000000 > many\"\noutputs = [\"one\", \"many\"]\n\
                      [artifacts.shop]\nfrom = \"make\"\nfiles = [\"one\", \"many\"]\nkind = \"binary\"\n";

/// A build that pushes to these destinations, with these variables.
fn push(farm: &Farm, dir: &Path, places: &[&str], variables: &[(String, String)]) -> Built {
    let more: Vec<&str> = places.iter().flat_map(|place| ["--push", place]).collect();
    let mut command = farm.build_command(dir, &more);
    command.envs(variables.iter().cloned());
    Built(Ran::from(command))
}

fn pushed(built: &Built) -> (String, u64, u64) {
    let pushed = built.of_type("pushed").pop().expect("expected a push among the events");
    let bytes = |name: &str| pushed[name].as_u64().unwrap();
    (pushed["reference"].as_str().unwrap().to_owned(), bytes("bytes_sent"), bytes("bytes_present"))
}

#[test]
fn a_bucket_holds_an_artifact_whole_and_never_another_under_its_id() {
    let Some(s3) = S3::start() else { return };
    let farm = Farm::shared();
    let dir = project(&[("kiln.toml", CONFIG)]);
    let place = "s3://kiln/releases";
    let variables = s3.variables();
    let first = push(farm, dir.path(), &[place], &variables).well();
    let (reference, sent, present) = pushed(&first);
    assert!(sent > 20 << 20 && present == 0, "expected all of it to be sent, found {sent} and {present} bytes");
    let within = reference.strip_prefix("s3://kiln/").unwrap().to_owned();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bucket = s3.bucket();
    let get = |path: &str| {
        let path = object_store::path::Path::from(path);
        runtime.block_on(async { bucket.get(&path).await.unwrap().bytes().await.unwrap() })
    };
    assert_eq!(get(&format!("{within}/one")), "one\n");
    assert!(get(&format!("{within}/shop.provenance.json")).starts_with(b"{"));
    let list: serde_json::Value = serde_json::from_slice(&get(&format!("{within}.json"))).unwrap();
    let paths: Vec<&str> =
        list["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"one") && paths.contains(&"many") && paths.contains(&"shop.provenance.json"), "{list}");

    let (_, again, there) = pushed(&push(farm, dir.path(), &[place], &variables).well());
    assert_eq!((again, there), (0, sent), "expected nothing to be sent twice");

    // The state after an interrupted push: no list yet, and a missing file.
    let remove = |path: String| {
        runtime.block_on(async { bucket.delete(&object_store::path::Path::from(path)).await.unwrap() });
    };
    remove(format!("{within}.json"));
    remove(format!("{within}/one"));
    let (_, rest, there) = pushed(&push(farm, dir.path(), &[place], &variables).well());
    assert_eq!((rest, there), (4, sent - 4), "expected it to resume where it stopped");

    let path = object_store::path::Path::from(format!("{within}.json"));
    runtime.block_on(async { bucket.put(&path, "{}".into()).await.unwrap() });
    let taken = push(farm, dir.path(), &[place], &variables);
    assert_eq!(taken.0.code, 2, "{}", taken.0.err);
    assert!(taken.0.err.contains("already has another artifact"), "{}", taken.0.err);
    assert_eq!(get(&format!("{within}.json")), "{}", "expected it to be left alone");

    let mut wrong = variables.clone();
    wrong
        .iter_mut()
        .filter(|(name, _)| name == "AWS_SECRET_ACCESS_KEY")
        .for_each(|(_, value)| *value = "guessed".into());
    let refused = push(farm, dir.path(), &["s3://kiln/other"], &wrong);
    assert_eq!(refused.0.code, 2, "{}", refused.0.err);
    assert!(refused.0.err.contains("credentials") && !refused.0.err.contains("guessed"), "{}", refused.0.err);
}

/// nginx with WebDAV's PUT at `/raw`, for a user; `/broken` answers 503 and `/full` 507. It ends with this.
struct Nginx {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
}

impl Nginx {
    fn start() -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let Some(program) = program else {
            cannot_run("nginx is not installed (package nginx-light)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        std::fs::create_dir_all(dir.path().join("files/raw")).unwrap();
        // `{PLAIN}` is nginx's own form of a password that is not hashed.
        std::fs::write(dir.path().join("users"), "builder:{PLAIN}let me in\n").unwrap();
        let config = format!(
            "daemon off; user root; pid {root}/pid; error_log {root}/error.log;\n\
             events {{}}\n\
             http {{\n\
               access_log off; client_max_body_size 0;\n\
               client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
               uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
               server {{\n\
                 listen {address}; root {root}/files;\n\
                 location /raw/ {{ dav_methods PUT; create_full_put_path on; auth_basic kiln; auth_basic_user_file {root}/users; }}\n\
                 location /broken/ {{ return 503; }}\n\
                 location /full/ {{ if ($request_method = PUT) {{ return 507; }} }}\n\
               }}\n\
             }}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let child = Command::new(program)
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, dir, address };
        until("nginx to listen", || std::net::TcpStream::connect(&nginx.address).ok());
        Some(nginx)
    }

    fn url(&self, user: &str, path: &str) -> String {
        format!("http://{user}{}/{path}", self.address)
    }

    fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join("files").join(path)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

#[test]
fn a_repository_takes_files_by_put_whole_and_in_order_and_says_why_it_does_not() {
    let Some(nginx) = Nginx::start() else { return };
    let farm = Farm::shared();
    let dir = project(&[("kiln.toml", CONFIG)]);
    let place = nginx.url("builder:let%20me%20in@", "raw/team");
    let first = push(farm, dir.path(), &[&place], &[]).well();
    let (reference, sent, _) = pushed(&first);
    assert!(!first.0.out.contains("let%20me%20in"), "expected no password in {}", first.0.out);
    let within = reference.strip_prefix(&nginx.url("", "")).unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(nginx.file(&within).join("one")).unwrap(), "one\n");
    let many = nginx.file(&within).join("many");
    assert!(many.metadata().unwrap().len() > 20 << 20);
    assert!(nginx.file(&format!("{within}.json")).is_file(), "expected the list");

    // To the destinations that `kiln.toml` names.
    let none = Built(Ran::from(farm.build_command(dir.path(), &["--store"])));
    assert_eq!(none.0.code, 2);
    assert!(none.0.err.contains("[store]"), "{}", none.0.err);
    kiln_harness::write(dir.path(), "kiln.toml", &format!("{CONFIG}[store]\npush = [\"{place}\"]\n"));
    let (same, again, there) = pushed(&Built(Ran::from(farm.build_command(dir.path(), &["--store"]))).well());
    assert_eq!((same, again, there), (reference.clone(), 0, sent));
    // An interrupted push left part of a file, and no list.
    std::fs::remove_file(nginx.file(&format!("{within}.json"))).unwrap();
    std::fs::File::options().write(true).open(&many).unwrap().set_len(1000).unwrap();
    let (_, rest, _) = pushed(&push(farm, dir.path(), &[&place], &[]).well());
    assert!(
        rest < sent && many.metadata().unwrap().len() == rest,
        "expected only the incomplete file to be sent again, found {rest}"
    );

    for (url, code, parts) in [
        (nginx.url("builder:guessed@", "raw/team"), 2, ["401", "KILN_PUSH_AUTHORIZATION"]),
        (nginx.url("", "broken/team"), 3, ["503", "broken"]),
        (nginx.url("", "full/team"), 3, ["no space", "507"]),
        ("http://repository.example/raw".to_owned(), 2, ["plain HTTP", "--insecure-registry repository.example"]),
    ] {
        let refused = push(farm, dir.path(), &[&url], &[]);
        assert_eq!(refused.0.code, code, "{url}: {}", refused.0.err);
        assert!(!refused.0.err.contains("guessed"), "expected no password in {}", refused.0.err);
        for part in parts {
            assert!(refused.0.err.contains(part), "expected {part} in: {}", refused.0.err);
        }
    }
}
