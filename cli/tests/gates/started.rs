//! Commands beside a running image.

use kiln_harness::remote::{caller_of, shell};
use kiln_harness::{Farm, write};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use kiln_proto::root::{Service, encode_service};

use super::{ended, image, kept_out, passed};

/// A service that answers with its user and its variable, and logs what it does.
const SERVICE: &str = "RUN mkdir -p /srv/www && printf '#!/bin/sh\\nset -e\\ncd /srv/www\\necho \"$(id -u) $MODE $(hostname)\" > index.html\\n\
                       echo starting as $(id -u)\\ntest \"$MODE\" != broken\\nexec httpd -f -p 8080\\n' > /bin/serve && chmod 755 /bin/serve && chown 1000:1000 /srv/www\n\
                       ENV MODE=prod\nUSER app\nENTRYPOINT [\"/bin/serve\"]\n";

#[test]
fn a_service_is_asked_over_loopback_by_a_command_in_an_image_of_its_own() {
    let run = "test \"$(id -u)\" = 0; test \"$(wget -qO- http://127.0.0.1:8080/)\" = '1000 prod kiln'\n\
               test -e \"$KILN_ROOT/srv/www/index.html\"; test ! -e /srv/www/index.html; grep -q CycloneDX \"$KILN_SBOM\"\n\
               test \"$(ls /sys/class/net)\" = lo";
    let gates = format!("[gates.smoke]\nstart = true\nport = 8080\nimage = \"./base\"\nrun = '''{run}'''\n");
    let Some(dir) = image("served", SERVICE, &gates) else { return };
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(ended(&built), [passed("smoke", false)]);
    assert!(!built.log().contains("starting as"), "what the image prints is shown if the gate fails: {}", built.log());
    assert_eq!(ended(&farm.build(dir.path(), &[]).well()), [passed("smoke", true)]);
}

#[test]
fn without_an_image_of_its_own_a_command_runs_in_the_artifact_as_its_user() {
    let gates = "[gates.smoke]\nstart = true\nready = \"wget -qO- http://127.0.0.1:8080/\"\nrun = \"test $(id -u) = 1000; wget -qO- http://127.0.0.1:8080/ | grep prod\"\n";
    let Some(dir) = image("served-alone", SERVICE, gates) else { return };
    assert_eq!(ended(&Farm::shared().build(dir.path(), &[]).well()), [passed("smoke", false)]);
}

#[test]
fn what_a_service_printed_is_shown_when_the_gate_fails() {
    let gates = "[gates.smoke]\nstart = true\nport = 8080\nimage = \"./base\"\nrun = \"wget -qO- http://127.0.0.1:8080/missing\"\n";
    let Some(dir) = image("served-bad", SERVICE, gates) else { return };
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    kept_out(farm, &built, "served-bad", &["gate `smoke` of artifact `served-bad`: failed with exit code 1"]);
    assert!(built.log().contains("image: starting as 1000"), "{}", built.log());
}

#[test]
fn a_service_that_ends_before_it_listens_fails_the_gate_with_what_it_printed() {
    let gates = "[gates.smoke]\nstart = true\nport = 8080\nimage = \"./base\"\nrun = \"true\"\n";
    let Some(dir) = image("served-dead", &SERVICE.replace("MODE=prod", "MODE=broken"), gates) else { return };
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    kept_out(farm, &built, "served-dead", &["gate `smoke` of artifact `served-dead`"]);
    assert!(
        built.log().contains("the image ended with exit code 1 before it listened at port 8080"),
        "{}",
        built.log()
    );
    assert!(built.log().contains("image: starting as 1000"), "{}", built.log());
}

#[test]
fn a_service_that_never_listens_is_bounded_by_the_gates_timeout() {
    let gates = "[gates.smoke]\nstart = true\nport = 9\nimage = \"./base\"\ntimeout = \"2s\"\nrun = \"true\"\n";
    let Some(dir) = image("served-silent", SERVICE, gates) else { return };
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]);
    kept_out(
        farm,
        &built,
        "served-silent",
        &["gate `smoke` of artifact `served-silent`: was stopped after its 2 s timeout"],
    );
}

/// Signals every process that it can name, but for those of its own.
const KILL_ALL: &str = "pid=1; while [ $pid -le 300 ]; do case \" $own \" in *\" $pid \"*) ;; *) kill -9 $pid 2>/dev/null || : ;; esac; pid=$((pid + 1)); done";
/// What the processes that it sees were started with.
const PROCESSES: &str = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";

#[test]
fn a_service_and_the_command_beside_it_neither_see_nor_signal_each_other() {
    // Both are root, with the capability to signal others.
    let service = format!(
        "#!/bin/sh\nmkdir -p /srv/www; cd /srv/www; httpd -f -p 8080 & own=\"$$ $!\"; rounds=0\n\
         while :; do {PROCESSES} > new; mv new seen; {KILL_ALL}; rounds=$((rounds + 1)); echo $rounds > new; mv new rounds; done\n"
    );
    let gate = format!(
        ": the-gate; own=$$; ask() {{ until wget -qO /tmp/$1 http://127.0.0.1:8080/$1; do sleep 0.05; done; cat /tmp/$1; }}\n\
         until [ \"$(ask rounds)\" -ge 3 ]; do sleep 0.05; done\n\
         {PROCESSES} > /tmp/seen; grep -q 'the-g[a]te' /tmp/seen; if grep 'the-serv[i]ce' /tmp/seen; then exit 1; fi\n\
         ask seen | grep -q 'the-serv[i]ce'; if ask seen | grep 'the-g[a]te'; then exit 1; fi\n\
         {KILL_ALL}; before=$(ask rounds); until [ \"$(ask rounds)\" -gt $before ]; do sleep 0.05; done"
    );
    let gates = format!("[gates.apart]\nstart = true\nport = 8080\nrun = '''set -e; mkdir -p /tmp\n{gate}'''\n");
    let dockerfile = "COPY --chmod=755 the-service /bin/the-service\nENTRYPOINT [\"/bin/the-service\"]\n";
    let Some(dir) = image("served-alone-in-its-processes", dockerfile, &gates) else { return };
    write(dir.path(), "the-service", &service);
    assert_eq!(ended(&Farm::shared().build(dir.path(), &[]).well()), [passed("apart", false)]);
}

/// `ipc make N` leaves something numbered N with every means by which one process may tell another, but for the network; `ipc look N` prints
/// which of these it finds.
const IPC: &str = r#"#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
int main(int count, char **words) {
    int make = !strcmp(words[1], "make"), number = atoi(words[2]), flags = make ? IPC_CREAT | 0666 : 0;
    int mode = make ? O_CREAT | O_RDWR : O_RDWR;
    char name[32], file[32];
    snprintf(name, sizeof name, "/of-%d", number);
    snprintf(file, sizeof file, "/dev/of-%d", number);
    if (shmget(number, 4096, flags) >= 0) puts("segment");
    if (semget(number, 1, flags) >= 0) puts("semaphore");
    if (msgget(number, flags) >= 0) puts("messages");
    if (mq_open(name, mode, 0666, NULL) >= 0) puts("queue");
    if (shm_open(name, mode, 0666) >= 0) puts("memory");
    if (open(file, mode, 0666) >= 0) puts("device");
    return 0;
}
"#;

#[test]
fn a_service_and_the_command_beside_it_share_no_memory_no_queue_and_no_device() {
    // Both are root.
    let all = "segment semaphore messages queue memory device ";
    let service = "#!/bin/sh\nmkdir -p /srv/www; cd /srv/www; ipc make 7 > made; httpd -p 8080; rounds=0\n\
                   put() { cat > new; mv new $1; }\n\
                   while :; do ipc look 7 | put own; ipc look 8 | put others; ls /dev /dev/shm | put listed\n\
                   rounds=$((rounds + 1)); echo $rounds | put rounds; done\n";
    let gate = format!(
        "words() {{ tr '\\n' ' '; }}; ask() {{ wget -qO- http://127.0.0.1:8080/$1; }}\n\
         ipc make 8 > /made; test \"$(words < /made)\" = '{all}'; test -z \"$(ipc look 7)\"; test \"$(ls /dev/shm)\" = of-8\n\
         until before=$(ask rounds); do sleep 0.05; done; until [ \"$(ask rounds)\" -ge $((before + 2)) ]; do sleep 0.05; done\n\
         test \"$(ask made | words)\" = '{all}'; test \"$(ask own | words)\" = '{all}'; test -z \"$(ask others)\"\n\
         ask listed | grep -q of-7; if ask listed | grep of-8; then exit 1; fi\n"
    );
    let gates = format!("[gates.apart]\nstart = true\nport = 8080\nrun = '''set -ex\n{gate}'''\n");
    let dockerfile = "COPY --chmod=755 the-service ipc /bin/\nENTRYPOINT [\"/bin/the-service\"]\n";
    let Some(dir) = image("served-without-shared-memory", dockerfile, &gates) else { return };
    write(dir.path(), "the-service", service);
    write(dir.path(), "ipc.c", IPC);
    let built =
        std::process::Command::new("cc").current_dir(dir.path()).args(["-static", "-o", "ipc", "ipc.c"]).status();
    if !built.is_ok_and(|status| status.success()) {
        return kiln_harness::cannot_run("`cc` makes no static program");
    }
    assert_eq!(ended(&Farm::shared().build(dir.path(), &[]).well()), [passed("apart", false)]);
}

#[test]
fn an_image_that_has_nothing_to_start_says_so() {
    let gates = "[gates.smoke]\nstart = true\nport = 8080\nimage = \"./base\"\nrun = \"true\"\n";
    let Some(dir) = image("served-none", "", gates) else { return };
    write(dir.path(), "Dockerfile", "FROM scratch\nCOPY kiln.toml /kiln.toml\n");
    let farm = Farm::shared();
    kept_out(farm, &farm.build(dir.path(), &[]), "served-none", &["it has nothing to start"]);
}

#[test]
fn a_service_sees_nothing_of_the_commands_root_and_cannot_change_the_image() {
    let service = "RUN mkdir /srv && printf '#!/bin/sh\\n{ ls / /.kiln-gate 2>&1; ls -d /proc/self /dev/null; mkdir -p /mnt; mount -t tmpfs none /mnt 2>/dev/null; echo mounts=$?; umount /proc 2>/dev/null; echo umounts=$?; echo x > /srv/new; ls /srv; } > /srv/index.html\\ncd /srv\\nexec httpd -f -p 8080\\n' > /bin/serve && chmod 755 /bin/serve\nENTRYPOINT [\"/bin/serve\"]\n";
    let run = "wget -qO seen http://127.0.0.1:8080/; cat seen; grep -q '/dev/null' seen; grep -q '/proc/self' seen; grep -qx new seen; grep -q '.kiln-gate: No such file' seen; ! grep -qx secret seen; grep -qx 'mounts=[1-9][0-9]*' seen; grep -qx 'umounts=[1-9][0-9]*' seen";
    let gates = format!(
        "[gates.smoke]\nstart = true\nport = 8080\nimage = \"./base\"\ninputs = [\"secret\"]\nrun = '''cd /tmp 2>/dev/null || cd /; {run}'''\n"
    );
    let Some(dir) = image("served-apart", service, &gates) else { return };
    write(dir.path(), "secret", "x\n");
    assert_eq!(ended(&Farm::shared().build(dir.path(), &[]).well()), [passed("smoke", false)]);
    let layout = kiln_harness::find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let listed = std::process::Command::new("sh")
        .args(["-c", "for blob in \"$0\"/blobs/sha256/*; do tar -tzf \"$blob\" 2>/dev/null; done; true"])
        .arg(layout.parent().unwrap())
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("bin/serve") && !listed.contains("srv/new"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_of_remote_execution_starts_a_service_elsewhere_than_in_a_mount_of_its_own() {
    let farm = tokio::task::spawn_blocking(Farm::shared).await.unwrap();
    let caller = caller_of(&farm.url, DigestFunction::Sha256).await;
    let service = |root: &str, port: Option<u16>| Service {
        root: root.to_owned(),
        argv: vec!["/bin/true".to_owned()],
        env: Vec::new(),
        user: String::new(),
        cwd: "/".to_owned(),
        port,
    };
    let properties = |service: String| {
        let own = [("kiln.root", "root".to_owned()), ("kiln.service", service)];
        let own = own.map(|(name, value)| reapi::platform::Property { name: name.to_owned(), value });
        move |action: &mut reapi::Action| action.platform = Some(reapi::Platform { properties: own.to_vec() })
    };
    let command = || reapi::Command { working_directory: "root".to_owned(), ..shell("true", &[]) };
    let unreadable = ["{}".to_owned(), encode_service(&service("/", None)), encode_service(&service("/a/../..", None))];
    for text in unreadable.into_iter().chain([encode_service(&service("/a", Some(0)))]) {
        let action = caller.action(command(), &[("root/in", "x")], properties(text.clone())).await;
        let refused = caller.start(&action, true).await.expect_err(&text);
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{text}: {refused:?}");
        assert!(refused.message().contains("kiln.service"), "{refused:?}");
    }
    let text = encode_service(&service("/etc", None));
    let action = caller.action(command(), &[("root/in", "x")], properties(text)).await;
    let response = caller.execute(&action).await;
    let status = response.status.unwrap();
    assert_eq!(code_of(&status), tonic::Code::InvalidArgument, "{status:?}");
    assert!(status.message.contains("nothing is mounted at `/etc`"), "{status:?}");
}

fn code_of(status: &kiln_proto::rpc::Status) -> tonic::Code {
    tonic::Code::from_i32(status.code)
}
