//! What commands and `ADD` tell the network, and whom they trust there.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use kiln_harness::bases::debian_layout;
use kiln_harness::certificates::certificates;
use kiln_harness::registry::{Registry, Setup};
use kiln_harness::{Built, Farm, Ran, project, write};

use crate::on_busybox;

/// A server that gives a file to whoever says this in `Authorization`. Returns its address, and what it was told.
fn guarded(expected: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = told.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let said = head.iter().find_map(|line| line.strip_prefix("Authorization: ")).unwrap_or_default().to_owned();
            let status = if said == expected { "200 OK" } else { "401 Unauthorized" };
            heard.lock().unwrap().push(said);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
    (address, told)
}

/// A farm whose steps reach this machine.
fn farm(more: &[&str], variables: &[(&str, &str)]) -> Farm {
    let farm = Farm::start(&[]);
    let more = [&["--network-isolation", "off"], more].concat();
    farm.start_worker_in(&farm.url, "one", &more, variables);
    farm.wait_for_worker("one");
    farm
}

#[test]
fn a_download_is_authorized_by_the_secret_that_is_named_after_its_host() {
    let farm = farm(&[], &[]);
    let (address, told) = guarded("Bearer hunter22");
    let (other, others) = guarded("Basic aHVudGVyMjI6");
    let text = format!("FROM scratch\nADD http://{address}/a /a\nADD http://{other}/b /b\n");
    let dir = project(&[("Dockerfile", &text), ("token", "hunter22\n")]);
    let docker = |secrets: &[&str]| {
        let mut command = farm.command(&["docker", "build", "--progress", "plain"]);
        command.args(secrets.iter().flat_map(|secret| ["--secret", secret])).args(["-o", "out", "."]);
        command.current_dir(dir.path()).env("HEADER", "Basic aHVudGVyMjI6");
        Ran::from(command)
    };
    let token = format!("id=HTTP_AUTH_TOKEN_{address},src=token");
    let header = format!("id=HTTP_AUTH_HEADER_{other},env=HEADER");
    let built = docker(&[&token, &header]);
    assert_eq!(built.code, 0, "{}", built.err);
    assert_eq!(std::fs::read_to_string(dir.path().join("out/b")).unwrap(), "hello");
    assert!(!built.err.contains("hunter22") && !built.out.contains("hunter22"), "{}", built.err);
    let refused = docker(&[&token]);
    assert!(refused.code == 1 && refused.err.contains("401"), "{}", refused.err);
    // Nobody is told what is for another server.
    assert!(told.lock().unwrap().iter().all(|said| said == "Bearer hunter22"), "{told:?}");
    assert!(others.lock().unwrap().iter().all(|said| !said.contains("Bearer")), "{others:?}");

    // Names in a `kiln.toml` have `_` for what names cannot have.
    let config =
        "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\nsecrets = [\"HTTP_AUTH_TOKEN_127_0_0_1\"]\n";
    write(dir.path(), "kiln.toml", config);
    write(dir.path(), "Dockerfile", &format!("FROM scratch\nADD http://{address}/a /a\n"));
    farm.build(dir.path(), &["--secret", "HTTP_AUTH_TOKEN_127_0_0_1=token"]).well();
}

#[test]
fn a_command_sees_the_name_of_the_machine_that_the_build_says() {
    let text = "FROM base\nRUN hostname > /name; grep -c \" localhost $(hostname)$\" /etc/hosts >> /name\n\
                FROM scratch\nCOPY --from=0 /name /\n";
    let Some(dir) = on_busybox(text, &[]) else { return };
    let farm = Farm::shared();
    let name = |arguments: &[&str]| -> String {
        let context = format!("base=oci-layout://{}", dir.path().join("base").display());
        let mut command = farm.command(&["docker", "build", "--build-context", &context, "-o", "out"]);
        command.args(arguments).arg(".").current_dir(dir.path());
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "{}", ran.err);
        std::fs::read_to_string(dir.path().join("out/name")).unwrap()
    };
    assert_eq!(name(&[]), "kiln\n1\n");
    assert_eq!(name(&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=build-7.example"]), "build-7.example\n1\n");
    let built = farm.build(dir.path(), &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=a b"]);
    assert!(built.0.code == 1 && built.message().contains("at most 64 letters"), "{}", built.message());
}

#[test]
fn commands_trust_the_machines_authorities_only_if_the_worker_says_so_and_keep_nothing_of_them() {
    let made = certificates();
    let read = |name: &str| std::fs::read_to_string(made.path().join(name)).unwrap();
    let (certificate, key) = (read("server.pem"), read("server.key"));
    let tls = Registry::with(&Setup { tls: Some((&certificate, &key)), ..Setup::default() });
    let (Some(base), Some(server)) = (debian_layout(), tls) else { return };
    let text = format!(
        "FROM base\nRUN python3 -c \"import urllib.request as u; print(u.urlopen('https://{}/v2/').status)\"\n\
         RUN env | grep -c -i ssl_cert > /trusted || true\n\
         RUN --network=none env | grep -c -i ssl_cert > /offline || true\n\
         RUN --network=none test ! -e /dev/kiln\n",
        server.name
    );
    let config =
        "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n";
    let dir = project(&[("kiln.toml", config), ("Dockerfile", &text), (".dockerignore", "base\n")]);
    kiln_harness::copy(base, &dir.path().join("base"));
    let authority = made.path().join("ca.pem");
    let variables = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let build = |more: &[&str]| -> Built { farm(more, &variables).build(dir.path(), &[]) };
    let without = build(&[]);
    assert!(
        without.0.code == 1 && without.log().contains("CERTIFICATE_VERIFY_FAILED"),
        "{} {}",
        without.log(),
        without.message()
    );
    let with = build(&["--trust-host-ca"]).well();
    assert!(with.log().contains("200"), "{}", with.log());
    let image = kiln_harness::find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let names = crate::names_in(image.parent().unwrap());
    assert!(names.contains("trusted") && !names.iter().any(|name| name.contains("dev/kiln")), "{names:?}");
    // Other farms without it have the same keys: what such a command left is a hit.
    let layers = |name: &str| {
        let mut found = String::new();
        for blob in std::fs::read_dir(image.parent().unwrap().join("blobs/sha256")).unwrap() {
            let mut command = std::process::Command::new("tar");
            let listed = command.arg("xzOf").arg(blob.unwrap().path()).arg(name).output().unwrap();
            found.push_str(&String::from_utf8_lossy(&listed.stdout));
        }
        found
    };
    assert_eq!((layers("trusted").trim(), layers("offline").trim()), ("2", "0"));

    // A farm of `kiln up` can be told the same.
    let up = |more: &[&str]| -> Built {
        let data = tempfile::tempdir().unwrap();
        let mut command = Farm::shared().command(&["up", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(data.path()).args(more).envs(variables).env("KILN_NETWORK_ISOLATION", "off");
        let mut up = kiln_harness::Lasting::start(command);
        let line = up.line_with("ready: ");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        let mut command = Farm::shared().command(&["build", "--progress", "json", "--farm", url]);
        command.current_dir(dir.path());
        Built(Ran::from(command))
    };
    let without = up(&[]);
    assert!(without.0.code == 1 && without.log().contains("CERTIFICATE_VERIFY_FAILED"), "{}", without.log());
    assert!(up(&["--trust-host-ca"]).well().log().contains("200"));
}
