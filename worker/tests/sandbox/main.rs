//! What a command in the sandbox can see, do and leave.

#![allow(clippy::unwrap_used)]
// The same attempts are made in sandboxes that are new and in those that were used.
#![allow(clippy::duplicate_mod)]

#[path = "../support/attempts.rs"]
mod attempts;
mod calls;
mod devices;
mod escape;
mod ids;
mod kept;
mod network;
mod place;
mod port;
mod recorded;
mod used;

use std::path::Path;
use std::time::Duration;

use kiln_worker::executor::{Chunk, Exit};
use kiln_worker::sandbox::{Config, Error, Isolation, Mode, Sandbox, Tools};
use place::{MIB, confined, place};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Whether a process whose command line contains this is left on the machine.
fn runs(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        !own && String::from_utf8_lossy(&line).contains(marker)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_left_and_inputs_are_never_written_through() {
    let place = confined();
    let ran = place
        .script("pwd; cat in.txt; echo changed > in.txt; chmod 777 sub/deep.txt; rm -r sub; mkdir new; echo out > new/file; ln -s file new/link")
        .await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "/build\ninput\n"), "{}", ran.err);
    assert_eq!(ran.left("in.txt").as_deref(), Some("changed\n"));
    assert_eq!(ran.left("new/link").as_deref(), Some("out\n"));
    assert_eq!(ran.left("sub/deep.txt"), None);
    let layer = place.dir.path().join("layers/inputs");
    assert_eq!(
        std::fs::read_to_string(layer.join("in.txt")).unwrap(),
        "input\n",
        "expected the cache's own file not to change"
    );
    assert_eq!(std::fs::read_to_string(layer.join("sub/deep.txt")).unwrap(), "deep\n");
    let root = ran.finished.tree.root().to_owned();
    drop(ran);
    let again = place.script("cat in.txt").await;
    assert_eq!(again.text(), "input\n");
    assert!(!root.join("new").exists(), "expected the tree to be gone once nobody holds it");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_become_one_tree() {
    let place = confined();
    let mut job = place.job("cat sub/deep.txt sub/more.txt other/file; echo x > sub/new");
    job.layers.push(place.layer("second", &[("sub/more.txt", "more\n"), ("other/file", "other\n")]));
    job.make_directories = vec!["made/below".into()];
    let ran = place.run(job).await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "deep\nmore\nother\n"), "{}", ran.err);
    assert!(ran.finished.tree.root().join("made/below").is_dir());
    assert!(ran.finished.tree.root().join("sub/new").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_is_read_only_and_the_worker_is_out_of_sight() {
    let place = confined();
    let secret = place.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let script = format!(
        "for f in /usr/kiln /etc/kiln /bin/kiln /kiln-file; do if touch $f 2>/dev/null; then echo wrote $f; fi; done
         cat {secret} 2>/dev/null; cat /etc/shadow 2>/dev/null; ls /root /home 2>/dev/null
         id -u; mount -t tmpfs none /tmp 2>/dev/null && echo mounted; mknod /tmp/null c 1 3 2>/dev/null && echo mknod
         echo $HOME $TMPDIR; touch $HOME/x /tmp/y && echo private",
        secret = secret.display()
    );
    let ran = place.script(&script).await;
    assert_eq!(ran.text(), "1000\n/tmp/home /tmp\nprivate\n", "{}", ran.err);
    assert!(!Path::new("/tmp/y").exists(), "expected a private /tmp");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_only_its_own_processes_and_environment() {
    let place = confined();
    let mut job = place.job("ls /proc | grep -c '^[0-9]'; env | grep -v -e ^_= -e ^PWD= -e ^PATH= | sort");
    job.environment.insert("GREETING".into(), "hello world".into());
    let ran = place.run(job).await;
    let text = ran.text();
    let (count, rest) = text.split_once('\n').unwrap();
    assert!(count.parse::<u32>().unwrap() <= 5, "expected a handful of processes, found {count}");
    let names: Vec<&str> = rest.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["GREETING", "HOME", "LANG", "LOGNAME", "TMPDIR", "TZ", "USER"]);
    assert!(rest.contains("GREETING=hello world"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_told_apart() {
    let place = confined();
    assert_eq!(place.script("exit 3").await.exit(), &Exit::Code(3));
    assert_eq!(place.script("kill -SEGV $$").await.exit(), &Exit::Signal(11));
    assert_eq!(place.script("exec nothing-of-this-name").await.exit(), &Exit::Code(127));
    let mut job = place.job("");
    job.arguments = vec!["./absent".into()];
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::Code(127));
    assert!(ran.err.contains("absent"), "expected the program's name in: {}", ran.err);
    let mut job = place.job("");
    job.arguments = vec!["./in.txt".into()];
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::Code(126), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_every_process() {
    let place = confined();
    let marker = "86399.25";
    let mut job = place.job(&format!("setsid sleep {marker} & echo started; sleep {marker}"));
    job.timeout = Some(Duration::from_millis(700));
    let ran = place.run(job).await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::TimedOut, "started\n"));
    assert!(!runs(marker), "expected no process of the job to be left");
}

/// The process that this one started and that a process with this in its command line descends from.
fn ancestor(marker: &str) -> i32 {
    let parent = |pid: i32| -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let own = std::process::id() as i32;
    let has = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != own && String::from_utf8_lossy(&line).contains(marker)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pid = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).find(has).unwrap();
    while parent(pid) != own {
        pid = parent(pid);
    }
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_the_process_that_started_them_and_the_next_gets_another() {
    let place = confined();
    let marker = "86399.75";
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = mpsc::channel::<Chunk>(16);
    let job = place.job(&format!("echo ready; sleep {marker}"));
    let run = place.sandbox.run(job, sender, cancel.clone());
    let meanwhile = async {
        receiver.recv().await.expect("expected the job to become ready");
        let spawner = ancestor(marker);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(spawner), nix::sys::signal::Signal::SIGKILL).unwrap();
        let next = place.script("echo next").await;
        assert_eq!((next.exit(), next.text().as_str()), (&Exit::Code(0), "next\n"), "{}", next.err);
        assert!(runs(marker), "expected the first job to go on");
        cancel.cancel();
        while receiver.recv().await.is_some() {}
    };
    let (finished, ()) = tokio::join!(run, meanwhile);
    assert_eq!(finished.unwrap().exit, Exit::Cancelled);
    assert!(!runs(marker), "expected no process of the job to be left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_at_once() {
    let place = confined();
    let marker = "86399.5";
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = mpsc::channel::<Chunk>(16);
    let job = place.job(&format!("echo ready; sleep {marker}"));
    let run = place.sandbox.run(job, sender, cancel.clone());
    let wait = async {
        receiver.recv().await.expect("expected the job to become ready");
        cancel.cancel();
        while receiver.recv().await.is_some() {}
    };
    let (finished, ()) = tokio::join!(run, wait);
    assert_eq!(finished.unwrap().exit, Exit::Cancelled);
    assert!(!runs(marker));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_left_in_the_background_does_not_outlive_its_command() {
    let place = confined();
    let marker = "86399.75";
    let ran = place.script(&format!("setsid sh -c 'sleep {marker} & sleep {marker}' & echo done")).await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "done\n"));
    assert!(!runs(marker));
}

#[tokio::test(flavor = "multi_thread")]
async fn forking_without_end_is_stopped_and_named() {
    let place = confined();
    // The first ends when it cannot create a process; the processes of the second keep trying forever.
    for script in ["while :; do sleep 1000 & done", "exec perl -e 'fork while 1'"] {
        let mut job = place.job(script);
        job.max_processes = 40;
        let ran = place.run(job).await;
        assert_eq!(ran.exit(), &Exit::TooManyProcesses, "{script}: {}", ran.err);
    }
    assert_eq!(place.script("echo well").await.text(), "well\n", "expected the next job to be untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_the_excess_named() {
    let place = confined();
    let mut job = place.job("head -c 400000000 /dev/zero | tail | wc -c; exit 1");
    job.memory_bytes = 64 * MIB;
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::OutOfMemory, "{} {}", ran.text(), ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_writes_is_bounded() {
    let place = confined();
    for target in ["big", "/tmp/big"] {
        let mut job = place.job(&format!("head -c 60000000 /dev/zero > {target}; echo written; sleep 1000"));
        job.disk_bytes = 20 * MIB;
        let ran = place.run(job).await;
        assert_eq!(ran.exit(), &Exit::DiskFull, "{target}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_output_comes_through_whatever_its_bytes() {
    let place = confined();
    let ran = place.script("printf 'a\\377\\000b'; printf 'to stderr' >&2").await;
    assert_eq!((ran.out.as_slice(), ran.err.as_str()), (b"a\xff\0b".as_slice(), "to stderr"));
    let ran = place.script("head -c 100000000 /dev/zero").await;
    assert_eq!((ran.exit(), ran.out.len()), (&Exit::Code(0), 100_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_run_at_once() {
    let place = confined();
    let jobs = (0..24).map(|number| {
        let job = place.job(&format!("echo {number} > out; cat in.txt"));
        place.run(job)
    });
    for (number, ran) in futures::future::join_all(jobs).await.into_iter().enumerate() {
        assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "input\n"), "{}", ran.err);
        assert_eq!(ran.left("out"), Some(format!("{number}\n")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_measured() {
    let place = confined();
    let ran = place.script("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").await;
    assert_eq!(ran.exit(), &Exit::Code(0));
    assert!(ran.finished.user_cpu > Duration::ZERO && ran.finished.wall >= ran.finished.user_cpu / 4);
    assert!(ran.finished.peak_memory_bytes > 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sandbox_inputs_are_copies_and_it_says_so_loudly() {
    let place = place(Mode::Off);
    assert!(place.sandbox.describe().contains("OFF"), "{}", place.sandbox.describe());
    let ran = place.script("cat in.txt; echo changed > in.txt; echo out > new").await;
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), "input\n"), "{}", ran.err);
    assert_eq!(ran.left("new").as_deref(), Some("out\n"));
    let original = place.dir.path().join("layers/inputs/in.txt");
    assert_eq!(std::fs::read_to_string(original).unwrap(), "input\n");
    let mut job = place.job("sleep 1000");
    job.timeout = Some(Duration::from_millis(300));
    assert_eq!(place.run(job).await.exit(), &Exit::TimedOut);
}

#[test]
fn a_sandbox_that_is_required_and_impossible_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        mode: Mode::Required,
        scratch: dir.path().join("scratch"),
        tools: Tools::discover(),
        root: None,
        sub_ids: None,
        no_ids: None,
        network: Isolation::Auto,
        // A broken init: as if the kernel forbade namespaces.
        init: Some("/bin/false".into()),
        own_credentials: false,
        way: None,
        layout: None,
        objects: std::path::PathBuf::new(),
        host_network: false,
        host_authorities: false,
    };
    let error = Sandbox::open(config.clone()).expect_err("no sandbox can be had");
    assert!(matches!(error, Error::Impossible { .. }) && error.to_string().contains("--sandbox off"), "{error}");
    let auto = Sandbox::open(Config { mode: Mode::Auto, ..config }).unwrap();
    assert!(!auto.is_confined() && auto.describe().contains("unconfined"), "{}", auto.describe());
}

/// Reports that a test could not run, or fails if all tests must run.
fn cannot_run(missing: &str) {
    assert!(std::env::var_os("KILN_TESTS_MUST_RUN").is_none_or(|value| value != "1"), "cannot run: {missing}");
    eprintln!("SKIPPED: {missing}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test -p kiln-worker --test sandbox start_takes -- --ignored --nocapture"]
async fn start_takes() {
    let place = confined();
    let mut took = Vec::new();
    for _ in 0..300 {
        let mut job = place.job("");
        job.arguments = vec!["/bin/true".into()];
        let began = std::time::Instant::now();
        place.run(job).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    eprintln!("/bin/true: median {:?}, 90 % {:?}", took[150], took[270]);
}
