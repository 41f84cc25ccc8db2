//! What a command in a Docker container can see, do and leave, on a real engine.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_harness::engine::{BUSYBOX, Engine, FOREIGN, WITH_VOLUME};
use kiln_worker::docker::{Config, Docker};
use kiln_worker::executor::{Chunk, Error, Executor, Exit, Finished, Job, Place as In, Secrets, Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

/// A worker's Docker, with its own state directory.
struct Place {
    dir: tempfile::TempDir,
    docker: Docker,
    engine: &'static Engine,
}

async fn place() -> Option<Place> {
    let engine = kiln_harness::engine::shared()?;
    let dir = tempfile::tempdir().unwrap();
    let docker = Docker::open(config(&engine.host, dir.path())).await.unwrap();
    Some(Place { dir, docker, engine })
}

fn config(host: &str, state: &std::path::Path) -> Config {
    Config {
        host: host.to_owned(),
        network: "host".to_owned(),
        worker: "tester".to_owned(),
        state: state.to_owned(),
        credentials: kiln_worker::docker::Own::File(state.join("config.json")),
        init: Some(env!("CARGO_BIN_EXE_kiln-worker").into()),
    }
}

impl Place {
    /// A read-only layer of inputs with these files.
    fn layer(&self, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let layer = self.dir.path().join("inputs/units").join(name);
        for (path, text) in files {
            let path = layer.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        layer
    }

    fn job(&self, script: &str) -> Job {
        self.job_in(BUSYBOX, script)
    }

    fn job_in(&self, image: &str, script: &str) -> Job {
        let layer = self.dir.path().join("inputs/units/inputs");
        if !layer.exists() {
            self.layer("inputs", &[("in.txt", "input\n"), ("sub/deep.txt", "deep\n")]);
        }
        Job {
            place: In::Image(format!("docker-daemon:{image}").parse().unwrap(), None),
            tenant: String::new(),
            layers: vec![layer],
            arguments: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            environment: BTreeMap::new(),
            secrets: Secrets::default(),
            working_directory: String::new(),
            make_directories: Vec::new(),
            beside: Vec::new(),
            network: false,
            timeout: Some(Duration::from_secs(60)),
            milli_cpus: 1000,
            memory_bytes: 256 * MIB,
            disk_bytes: 1 << 30,
            max_processes: 200,
            calls: Default::default(),
            session: None,
            conditions: Default::default(),
            usage: None,
        }
    }

    async fn run(&self, job: Job) -> Ran {
        self.run_until(job, CancellationToken::new()).await
    }

    async fn run_until(&self, job: Job, cancel: CancellationToken) -> Ran {
        run(&self.docker, job, cancel).await.unwrap()
    }

    async fn script(&self, script: &str) -> Ran {
        self.run(self.job(script)).await
    }

    fn state_id(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("docker/id")).unwrap()
    }

    fn containers(&self) -> Vec<String> {
        self.engine.containers(&format!("kiln.state={}", self.state_id()))
    }
}

async fn run(docker: &Docker, job: Job, cancel: CancellationToken) -> Result<Ran, Error> {
    let (sender, mut receiver) = mpsc::channel(16);
    let collect = async {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(Chunk { stream, data }) = receiver.recv().await {
            if stream == Stream::Stdout { &mut out } else { &mut err }.extend_from_slice(&data);
        }
        (out, err)
    };
    let (finished, (out, err)) = tokio::join!(docker.run(job, sender, cancel), collect);
    Ok(Ran { finished: finished?, out, err: String::from_utf8_lossy(&err).into_owned() })
}

#[derive(Debug)]
struct Ran {
    finished: Finished,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn exit(&self) -> &Exit {
        &self.finished.exit
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    fn left(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.finished.tree.root().join(path)).ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_left_and_inputs_are_never_written_through() {
    let Some(place) = place().await else { return };
    let mut job = place.job(
        "pwd; cat in.txt; echo changed > in.txt; chmod 777 sub/deep.txt; rm -r sub; mkdir new; echo out > new/file; \
         ln -s file new/link; echo o > made/for/out; echo told >&2; stat -c %u in.txt new",
    );
    job.make_directories.push("made/for".into());
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::Code(0), "{}", ran.err);
    assert_eq!((ran.text().as_str(), ran.err.as_str()), ("/build\ninput\n1000\n1000\n", "told\n"));
    assert_eq!(ran.left("new/file").as_deref(), Some("out\n"));
    assert_eq!(ran.left("made/for/out").as_deref(), Some("o\n"));
    assert_eq!(ran.left("in.txt").as_deref(), Some("changed\n"));
    assert!(!ran.finished.tree.root().join("sub").exists(), "expected the removed directory to be gone");
    let cached = place.dir.path().join("inputs/units/inputs");
    assert_eq!(std::fs::read_to_string(cached.join("in.txt")).unwrap(), "input\n");
    assert_eq!(std::fs::read_to_string(cached.join("sub/deep.txt")).unwrap(), "deep\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_not_root_has_no_privilege_and_no_network_and_cannot_write_the_image() {
    let Some(place) = place().await else { return };
    let ran = place
        .script(
            "id -u; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; ls /sys/class/net; hostname; echo x > /etc/x; mkdir /var/x; \
             echo $HOME; touch $HOME/there /tmp/there && echo writable; ls /kiln/init; cat /proc/1/environ /proc/1/mem",
        )
        .await;
    let text = ran.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1000");
    for capabilities in &lines[1..6] {
        assert!(capabilities.starts_with("Cap") && capabilities.ends_with("\t0000000000000000"), "{capabilities}");
    }
    assert_eq!(lines[6], "NoNewPrivs:\t1");
    assert_eq!(lines[7..11], ["lo", "kiln", "/tmp/home", "writable"], "{text}");
    assert!(
        ran.err.contains("/etc/x: Read-only file system") && ran.err.contains("'/var/x': Read-only"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("'/proc/1/environ': Permission denied"), "expected the init to be hidden: {}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_tries_to_leave_its_container_is_refused() {
    let Some(place) = place().await else { return };
    let attempts = [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /",
        "umount /proc",
        "unshare -r true",
        "unshare -m true",
        "chroot / true",
        "mknod /tmp/mem c 1 1",
        "mknod /build/disk b 8 0",
        "head -c 1 /dev/mem",
        "head -c 1 /dev/sda",
        "sh -c 'echo x > /proc/sys/kernel/core_pattern'",
        "sh -c 'echo h > /proc/sysrq-trigger'",
        "sh -c 'echo 1 > /proc/sys/vm/drop_caches'",
        "sh -c 'head -c 1 /proc/kcore | grep .'",
        "ls /proc/1/root/",
        "ls /proc/1/fd/",
        "readlink /proc/1/exe",
        "dmesg",
        "renice -n -5 $$",
        "sh -c 'ulimit -Hc unlimited'",
        "hostname other",
        "ls /var/run/docker.sock /run/docker.sock",
    ];
    let tried = attempts.iter().enumerate();
    let script: String = tried.map(|(at, attempt)| format!("{attempt} >/dev/null && echo open {at}\n")).collect();
    let ran = place.script(&format!("{script}kill -9 1; echo alive; grep Seccomp: /proc/self/status")).await;
    assert_eq!(ran.text(), "alive\nSeccomp:\t2\n", "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_images_variables_its_own_over_them_and_none_of_the_workers() {
    let Some(place) = place().await else { return };
    let mut job = place.job("env | sort");
    job.environment.insert("OWN".into(), "1".into());
    let text = place.run(job.clone()).await.text();
    for line in ["FROM_IMAGE=yes", "OWN=1", "HOME=/tmp/home", "PATH=/bin", "USER=kiln", "TMPDIR=/tmp"] {
        assert!(text.lines().any(|found| found == line), "expected `{line}` among:\n{text}");
    }
    assert!(!text.contains("CARGO") && !text.contains("HOSTNAME"), "expected no other variables:\n{text}");
    job.environment.insert("FROM_IMAGE".into(), "no".into());
    assert!(place.run(job).await.text().contains("FROM_IMAGE=no\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_signals_and_programs_that_are_not_there_are_told_apart() {
    let Some(place) = place().await else { return };
    assert_eq!(place.script("exit 42").await.exit(), &Exit::Code(42));
    assert_eq!(place.script("kill -TERM $$").await.exit(), &Exit::Signal(15));
    let mut job = place.job("");
    job.arguments = vec!["no-such-program".into()];
    let ran = place.run(job.clone()).await;
    assert_eq!(ran.exit(), &Exit::Code(127));
    assert!(ran.err.contains("`no-such-program` is not installed in the image; PATH is `/bin`"), "{}", ran.err);
    job.arguments = vec!["./in.txt".into()];
    assert_eq!(place.run(job.clone()).await.exit(), &Exit::Code(126));
    job.arguments = vec!["/bin/cat".into(), "../in.txt".into()];
    job.working_directory = "sub".into();
    assert_eq!(place.run(job).await.text(), "input\n", "expected the working directory to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_comes_while_the_command_runs() {
    let Some(place) = place().await else { return };
    let (sender, mut receiver) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let job = place.job("echo first; echo second > /dev/stderr; sleep 1000");
    let (docker, stop) = (place.docker.clone(), cancel.clone());
    let running = tokio::spawn(async move { docker.run(job, sender, stop).await });
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(String::from_utf8(receiver.recv().await.unwrap().data.to_vec()).unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["first\n", "second\n"]);
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap().exit, Exit::Cancelled);
}

/// Whether a process whose command line contains this is on the machine.
fn runs(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(marker)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_too_long_is_stopped_with_all_that_it_started() {
    let Some(place) = place().await else { return };
    let mut job = place.job("echo begun; sleep 54321 & setsid sh -c 'trap \"\" TERM; sleep 54321' & wait");
    job.timeout = Some(Duration::from_millis(700));
    let ran = place.run(job).await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::TimedOut, "begun\n"));
    assert!(!runs("sleep\x0054321"), "expected no process to be left");
    assert_eq!(place.script("exit 0").await.exit(), &Exit::Code(0), "expected the next command to run");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_processes_are_limited_and_it_is_told() {
    let Some(place) = place().await else { return };
    let mut job = place.job("x=a; while :; do x=$x$x; done");
    job.memory_bytes = 48 * MIB;
    let ran = place.run(job.clone()).await;
    assert_eq!(ran.exit(), &Exit::OutOfMemory, "{}", ran.err);
    drop(ran);
    job.arguments[2] = "true".into();
    assert_eq!(place.run(job).await.exit(), &Exit::Code(0), "expected the next command not to be blamed");
    let mut job = place.job("i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; wait");
    job.max_processes = 40;
    assert_eq!(place.run(job).await.exit(), &Exit::TooManyProcesses);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_uses_over_time_is_its_own_and_a_short_one_has_none() {
    let Some(place) = place().await else { return };
    let busy = "end=$(($(date +%s) + 4)); while [ $(date +%s) -lt $end ]; do :; done";
    for _ in 0..2 {
        let ran = place.script(busy).await;
        assert_eq!(ran.exit(), &Exit::Code(0), "{}", ran.err);
        let samples = ran.finished.samples.to_wire().unwrap();
        assert!((2..=6).contains(&samples.until_ms.len()), "expected about one a second: {samples:?}");
        let used = &samples.milli_cpus;
        assert!(used.iter().any(|milli| *milli > 20) && used.iter().all(|milli| *milli < 2_500), "{samples:?}");
        assert!(samples.memory_bytes.iter().any(|bytes| *bytes > 0), "{samples:?}");
    }
    assert_eq!(place.script("true").await.finished.samples.to_wire(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_writes_more_than_it_may_is_stopped_and_it_is_told() {
    let Some(place) = place().await else { return };
    for path in ["/build/large", "/tmp/large"] {
        let mut job = place.job(&format!("while :; do dd if=/dev/zero bs=1M count=16 >> {path}; done"));
        job.disk_bytes = 32 * MIB;
        assert_eq!(place.run(job).await.exit(), &Exit::DiskFull, "expected `{path}` to be counted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_there_only_for_a_step_that_asks_for_it() {
    let Some(place) = place().await else { return };
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write;
        while let Ok((mut caller, _)) = server.accept() {
            let _ = caller.write_all(b"reached\n");
        }
    });
    let mut job = place.job(&format!("nc 127.0.0.1 {port} < /dev/null"));
    assert_eq!(place.run(job.clone()).await.text(), "");
    job.network = true;
    assert_eq!(place.run(job).await.text(), "reached\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_actions_share_a_container_and_nothing_of_one_meets_the_next() {
    let Some(place) = place().await else { return };
    // Everything that a command can write to, found by trying.
    let litter = "touch /build/litter /tmp/litter /tmp/home/litter /dev/shm/litter; mkdir -p /dev/shm/d/e; chmod 0 /dev/shm/d/e /dev/shm/d; \
                  mkdir /tmp/deep; chmod 0 /tmp/deep; touch /dev/mqueue/litter; \
                  for d in $(find / -xdev -type d -writable 2>/dev/null | grep -v -E '^/(proc|build|tmp)'); do touch $d/litter; done; \
                  awk '{print $2}' /proc/mounts | while read m; do touch $m/litter 2>/dev/null; done; \
                  (setsid sleep 98765 >/dev/null 2>&1 &) ; nohup nc -l -p 7777 >/dev/null 2>&1 & \
                  export LEFT=1; ipcs >/dev/null 2>&1; umask 0; cd /tmp; true";
    assert_eq!(place.script(litter).await.exit(), &Exit::Code(0));
    let look = "find / -name '*litter*' 2>/dev/null | grep -v /proc; ls -A /tmp /dev/shm /dev/mqueue /tmp/home; ps -o comm; env | grep LEFT; umask; \
                netstat -ltn 2>/dev/null | grep 7777; cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg | grep -v key; pwd";
    let ran = place.script(look).await;
    let text = ran.text();
    let expected = "/dev/mqueue:\n\n/dev/shm:\n\n/tmp:\nhome\n\n/tmp/home:\nCOMMAND\n{init}\nsh\nps\n0022\n/build\n";
    let init = text.lines().skip_while(|line| *line != "COMMAND").nth(1).unwrap_or_default().to_owned();
    assert_eq!(text, expected.replace("{init}", &init), "expected a container as new: {}", ran.err);
    drop(ran);
    assert_eq!(place.containers().len(), 1, "expected one container for all of this");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_an_action_used_is_free_for_the_next() {
    let Some(place) = place().await else { return };
    // The server closes first, so the kernel keeps its port for a minute.
    let talk =
        "echo hello | nc -l -p 7070 -w 1 & sleep 0.3; nc 127.0.0.1 7070 < /dev/null; wait; cat /proc/net/tcp | wc -l";
    assert!(place.script(talk).await.text().contains("hello"));
    assert_eq!(place.script("cat /proc/net/tcp /proc/net/tcp6 | grep -vc local").await.text(), "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_and_queues_of_an_action_are_gone_when_the_next_begins() {
    let Some(place) = place().await else { return };
    let Some(layer) = ipc_maker(&place) else { return };
    let mut job = place.job("/build/ipc make && cat /proc/sysvipc/*");
    job.layers = vec![layer];
    let made = place.run(job.clone()).await;
    assert_eq!(made.exit(), &Exit::Code(0), "{}", made.err);
    let rows = |text: String| text.lines().filter(|line| !line.trim_start().starts_with("key")).count();
    assert_eq!(rows(made.text()), 3, "expected a segment, a semaphore and a queue to have been there");
    drop(made);
    job.arguments[2] = "cat /proc/sysvipc/*".into();
    assert_eq!(rows(place.run(job).await.text()), 0, "expected them to be gone");
    assert_eq!(place.containers().len(), 1, "expected the same container");
}

/// A static program that makes one System V object of each kind.
fn ipc_maker(place: &Place) -> Option<std::path::PathBuf> {
    let layer = place.layer(
        "ipc",
        &[(
            "ipc.c",
            "#include <sys/ipc.h>\n#include <sys/shm.h>\n#include <sys/sem.h>\n#include <sys/msg.h>\n\
             int main(void) { return shmget(7, 4096, IPC_CREAT | 0600) < 0 || semget(7, 1, IPC_CREAT | 0600) < 0 || \
             msgget(7, IPC_CREAT | 0600) < 0; }\n",
        )],
    );
    let built = std::process::Command::new("cc").current_dir(&layer).args(["-static", "-o", "ipc", "ipc.c"]).status();
    if built.is_ok_and(|status| status.success()) {
        return Some(layer);
    }
    kiln_harness::cannot_run("`cc` makes no static program");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_init_was_tampered_with_is_not_used_again() {
    let Some(place) = place().await else { return };
    let look = "awk '{print $19}' /proc/self/stat; taskset -p $$ | sed 's/.*: //'; ionice -p $$";
    let fresh = place.script(look).await.text();
    for tamper in ["renice -n 5 -p 1", "taskset -p 1 1", "ionice -c 3 -p 1"] {
        assert_eq!(place.script(tamper).await.exit(), &Exit::Code(0), "expected `{tamper}` to be possible");
        assert_eq!(place.script(look).await.text(), fresh, "expected nothing of `{tamper}` to be left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_never_share_a_container_and_neither_do_actions_with_other_limits() {
    let Some(place) = place().await else { return };
    let mut job = place.job("true");
    for (tenant, memory) in [("a", 64), ("b", 64), ("b", 128), ("a", 64), ("b", 128)] {
        job.tenant = tenant.into();
        job.memory_bytes = memory * MIB;
        assert_eq!(place.run(job.clone()).await.exit(), &Exit::Code(0));
    }
    assert_eq!(place.containers().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_at_the_same_time_have_containers_of_their_own() {
    let Some(place) = place().await else { return };
    let one = place.script("echo one > out; sleep 0.5; cat out; ps | grep -c sleep");
    let two = place.script("echo two > out; sleep 0.5; cat out; ps | grep -c sleep");
    let (one, two) = tokio::join!(one, two);
    assert_eq!((one.text().lines().next(), two.text().lines().next()), (Some("one"), Some("two")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_volumes_gets_a_container_for_each_action_and_leaves_no_volume() {
    let Some(place) = place().await else { return };
    let before = place.engine.ok(&["volume", "ls", "--quiet"]);
    let ran =
        place.run(place.job_in(WITH_VOLUME, "cat in.txt; echo new > in.txt; mkdir made; stat -c %u in.txt made")).await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "input\n1000\n1000\n"), "{}", ran.err);
    assert_eq!(ran.left("in.txt").as_deref(), Some("new\n"));
    let cached = place.dir.path().join("inputs/units/inputs/in.txt");
    assert_eq!(std::fs::read_to_string(cached).unwrap(), "input\n", "expected the cache to be as it was");
    drop(ran);
    until("the container is gone", || place.containers().is_empty()).await;
    assert_eq!(place.engine.ok(&["volume", "ls", "--quiet"]), before);
}

/// Waits until the condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "expected that {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_somebody_removed_is_replaced() {
    let Some(place) = place().await else { return };
    assert_eq!(place.script("true").await.exit(), &Exit::Code(0));
    for container in place.containers() {
        place.engine.ok(&["rm", "--force", &container]);
    }
    assert_eq!(place.script("exit 3").await.exit(), &Exit::Code(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_under_its_command_is_the_workers_fault() {
    let Some(place) = place().await else { return };
    let (docker, job) = (place.docker.clone(), place.job("sleep 1000"));
    let running = tokio::spawn(async move { run(&docker, job, CancellationToken::new()).await });
    until("the container runs", || !place.containers().is_empty() && runs("sleep\x001000")).await;
    for container in place.containers() {
        let _ = place.engine.docker(&["kill", &container]);
    }
    let Err(Error::Worker(words)) = running.await.unwrap() else { panic!("expected it to be the worker's fault") };
    assert!(words.contains("the container ended under the command"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_left_is_removed_and_everything_else_is_left_alone() {
    let Some(place) = place().await else { return };
    let state = place.state_id();
    let start = |labels: &[&str]| {
        let mut arguments = vec!["run", "--detach", "--network", "none"];
        labels.iter().for_each(|label| arguments.extend(["--label", *label]));
        arguments.extend([BUSYBOX, "sleep", "1000"]);
        place.engine.ok(&arguments)
    };
    let ours = start(&[&format!("kiln.state={state}"), "kiln.worker=tester"]);
    let others = start(&["kiln.state=0123456789abcdef", "kiln.worker=tester"]);
    let peoples = start(&[]);
    let again = Docker::open(config(&place.engine.host, place.dir.path())).await.unwrap();
    let left = place.engine.ok(&["ps", "--quiet", "--no-trunc"]);
    assert!(!left.contains(&ours), "expected the container of an earlier run to be gone");
    assert!(left.contains(&others) && left.contains(&peoples), "expected those of others to be untouched");
    place.engine.ok(&["rm", "--force", &others, &peoples]);
    let ran = run(&again, place.job("cat in.txt"), CancellationToken::new()).await.unwrap();
    assert_eq!(ran.text(), "input\n", "expected a container to run after the sweep");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_held_or_not_for_this_machine_is_told_and_whose_fault_it_is() {
    let Some(place) = place().await else { return };
    let absent = run(&place.docker, place.job_in("kiln-test/absent:1", "true"), CancellationToken::new()).await;
    let Err(Error::Worker(words)) = absent else {
        panic!("expected another worker to be able to do better: {absent:?}")
    };
    assert!(words.contains("`kiln-test/absent:1`") && words.contains("load it"), "{words}");
    let foreign = run(&place.docker, place.job_in(FOREIGN, "true"), CancellationToken::new()).await;
    let Err(Error::Action(words)) = foreign else { panic!("expected the action to be refused: {foreign:?}") };
    assert!(words.contains("is not for linux/") && words.contains("but for linux/"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_none_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (host, word) in [
        (format!("unix://{}/absent.sock", dir.path().display()), "No such file"),
        (format!("unix://{}", file.display()), "not a socket"),
        ("tcp://elsewhere.example:2375".to_owned(), "on this machine"),
        ("docker.sock".to_owned(), "on this machine"),
    ] {
        let error = Docker::open(config(&host, dir.path())).await.expect_err("expected no engine").to_string();
        assert!(error.contains(&host) && error.contains(word), "expected `{word}` in: {error}");
    }
}

#[test]
fn a_worker_that_must_have_docker_does_not_start_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = format!("unix://{}/absent.sock", dir.path().display());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kiln-worker"))
        .args(["--coordinator", "http://127.0.0.1:1", "--docker", "required", "--docker-host", &host, "--state-dir"])
        .arg(dir.path().join("state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "expected the worker not to start: {said}");
    assert!(said.contains(&format!("there is no Docker Engine at `{host}`")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_a_helper_and_a_name_is_resolved_with_them() {
    let Some(place) = place().await else { return };
    let Some(registry) = kiln_harness::private_registry::PrivateRegistry::start() else { return };
    let image = registry.push(place.engine, BUSYBOX, "helped:1");
    let mut job = place.job("");
    job.place = In::ImageResolver;
    job.arguments = vec![image.clone(), format!("linux/{}", place.docker.architecture())];
    let resolver = place.docker.resolver();
    let refused = ask(&resolver, job.clone()).await;
    assert!(matches!(&refused, Err(Error::Worker(words)) if words.contains("docker login")), "{refused:?}");
    registry.write_helper(&place.dir.path().join("config.json"));
    let resolved = ask(&resolver, job.clone()).await.unwrap();
    let (repository, digest) = resolved.split_once('@').unwrap();
    assert!(image.starts_with(repository) && digest.starts_with("sha256:"), "{resolved}");
    let mut job = place.job("echo $FROM_IMAGE");
    job.place = In::Image(resolved.parse().unwrap(), None);
    let ran = place.run(job).await;
    assert!(ran.err.contains("kiln: pulled"), "expected the pull to be reported: {}", ran.err);
    assert_eq!(ran.text(), "yes\n");
}

async fn ask(resolver: &kiln_worker::docker::Resolver, job: Job) -> Result<String, Error> {
    let (sender, mut receiver) = mpsc::channel(16);
    resolver.run(job, sender, CancellationToken::new()).await?;
    let mut text = Vec::new();
    while let Some(chunk) = receiver.recv().await {
        text.extend_from_slice(&chunk.data);
    }
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_is_told_and_what_the_engine_holds_is_taken_where_it_holds_it() {
    let Some(place) = place().await else { return };
    let gone = "127.0.0.1:1/kiln-test/gone:1";
    let mut job = place.job("");
    job.place = In::ImageResolver;
    job.arguments = vec![gone.to_owned(), format!("linux/{}", place.docker.architecture())];
    let away = ask(&place.docker.resolver(), job.clone()).await;
    assert!(
        matches!(&away, Err(Error::Worker(words)) if words.contains("127.0.0.1:1")),
        "expected the change to be reported: {away:?}"
    );
    place.engine.ok(&["tag", BUSYBOX, gone]);
    let said = ask(&place.docker.resolver(), job).await.unwrap();
    assert!(said.starts_with(&format!("docker-daemon:{}", place.engine.id(BUSYBOX))), "{said}");
    assert!(said.contains("using the image of that name"), "expected a note: {said}");
    place.engine.ok(&["rmi", gone]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_pulled_goes_when_it_is_old_unless_somebody_else_uses_it() {
    let Some(place) = place().await else { return };
    let Some(registry) = kiln_harness::private_registry::PrivateRegistry::start() else { return };
    let (engine, config_dir) = (place.engine, registry.right().display().to_string());
    // Images of different content, pulled as a worker does: by digest.
    let pull = |name: &str| {
        let container = engine.ok(&["create", BUSYBOX, "true"]);
        let local = format!("kiln-test/{name}:1");
        engine.ok(&["commit", "--change", &format!("LABEL name={name}"), &container, &local]);
        engine.ok(&["rm", &container]);
        let reference = registry.push(engine, &local, &format!("{name}:1"));
        engine.ok(&["rmi", "--force", &local]);
        let by_digest = registry.by_digest(engine, &reference);
        engine.ok(&["--config", &config_dir, "pull", "--quiet", &by_digest]);
        by_digest
    };
    let unused = pull("unused");
    let (tagged, by_tag, stopped, base) = (pull("tagged"), pull("by-tag"), pull("stopped"), pull("base"));
    engine.ok(&["tag", &tagged, "kiln-test/mine:1"]);
    let tag = by_tag.split_once('@').unwrap().0.to_owned() + ":1";
    engine.ok(&["--config", &config_dir, "pull", "--quiet", &tag]);
    let container = engine.ok(&["create", &stopped, "true"]);
    let made = engine.ok(&["create", &base, "true"]);
    engine.ok(&["commit", &made, "kiln-test/derived:1"]);
    engine.ok(&["rm", &made]);
    let derived = engine.ok(&["create", "kiln-test/derived:1", "true"]);

    // A worker that pulled them all long ago.
    let kept = [&tagged, &by_tag, &stopped, &base];
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(state.path().join("docker")).unwrap();
    let file = state.path().join("docker/pulled.json");
    let names: BTreeMap<&String, u64> = kept.into_iter().chain([&unused]).map(|name| (name, 1)).collect();
    std::fs::write(&file, serde_json::to_vec(&names).unwrap()).unwrap();
    let _worker = Docker::open(config(&engine.host, state.path())).await.unwrap();
    until("unused images to be removed", || !std::fs::read_to_string(&file).unwrap().contains(&unused)).await;
    let there = |name: &str| engine.docker(&["image", "inspect", name]).status.success();
    assert!(!there(&unused));
    // They are removed in the order of their names, and `unused` is the last.
    for name in kept {
        assert!(there(name), "expected `{name}` to stay");
    }
    engine.ok(&["rm", &container, &derived]);
    engine.ok(&["rmi", "--force", "kiln-test/mine:1", "kiln-test/derived:1", &tag]);
}
