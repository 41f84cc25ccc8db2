//! Commands that take more than they may, or are stopped: each ends, is named for what it did, and leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use kiln_worker::executor::Exit;
use tokio_util::sync::CancellationToken;

use crate::base::busybox;
use crate::place::{MIB, Place, ask, place};

/// Whether a process whose command line contains this is left on the machine.
fn runs(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        !own && String::from_utf8_lossy(&line).contains(marker)
    })
}

/// Waits until every job's directory is gone.
async fn swept(place: &Place) {
    let scratch = place.directory.join("sandbox");
    let jobs = || std::fs::read_dir(&scratch).unwrap().count();
    let gone = async {
        while jobs() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("expected nothing to be left");
}

#[tokio::test(flavor = "multi_thread")]
async fn forking_writing_and_using_memory_without_end_are_stopped_and_named() {
    let root = busybox(&place().cas);
    let marker = "86380.25";
    let fork = format!("while :; do sleep {marker} & done");
    let (_step, job) = place().job(&ask(root, &fork)).await;
    assert_eq!(place().sandboxed(job, CancellationToken::new()).await.0, Exit::TooManyProcesses);
    assert!(!runs(marker));
    for target in ["/big", "/tmp/big", "/var/big"] {
        let script = format!(
            "for part in 1 2 3; do dd if=/dev/zero of={target}$part bs=1000000 count=15 2>/dev/null; done; sleep 1000"
        );
        let (_step, mut job) = place().job(&ask(root, &script)).await;
        job.disk_bytes = 20 * MIB;
        assert_eq!(place().sandboxed(job, CancellationToken::new()).await.0, Exit::DiskFull, "{target}");
    }
    let (_step, mut job) =
        place().job(&ask(root, "dd if=/dev/zero bs=400000000 count=1 2>/dev/null | cat > /dev/null; exit 1")).await;
    job.memory_bytes = 64 * MIB;
    assert_eq!(place().sandboxed(job, CancellationToken::new()).await.0, Exit::OutOfMemory);
    let (_step, mut job) = place().job(&ask(root, "setsid sleep 86380.5 & echo started; sleep 86380.5")).await;
    job.timeout = Some(Duration::from_millis(500));
    assert_eq!(place().sandboxed(job, CancellationToken::new()).await, (Exit::TimedOut, "started\n".to_owned()));
    assert!(!runs("86380.5"));
    assert_eq!(place().run(ask(root, "[ -e /big1 ] || [ -e /tmp/big1 ] || echo well")).await.ok(), "well\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_cancelled_or_killed_leaves_neither_a_process_nor_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let own = Place::open(dir.path(), None);
    let root = busybox(&own.cas);
    let cancel = CancellationToken::new();
    let marker = "86381.25";
    let run = own.run_until(ask(root, &format!("echo x > /started; sleep {marker}")), cancel.clone());
    let started = async {
        let scratch = own.directory.join("sandbox");
        let is_there = |job: std::fs::DirEntry| job.path().join("written/started").exists();
        while !std::fs::read_dir(&scratch).unwrap().flatten().any(is_there) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (ran, ()) = tokio::join!(run, started);
    assert!(ran.status.contains("cancelled") && ran.layer.is_none(), "{}", ran.status);
    assert!(!runs(marker));
    let killed = own.run(ask(root, "echo x > /x; kill -9 $$")).await;
    assert_eq!((killed.code, killed.layer), (137, None));
    let failed = own.run(ask(root, "echo x > /x; exit 4")).await;
    assert_eq!((failed.code, failed.layer), (4, None));
    swept(&own).await;
    let layers = std::fs::read_dir(Path::new(&own.directory).join("roots/layers")).unwrap().count();
    assert_eq!(layers, 1, "expected the root, and nothing of what was written");
    let groups = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!groups().contains(own.directory.to_str().unwrap()), "expected no mount to be left");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_run_at_once_in_one_root_and_share_its_layers() {
    let root = busybox(&place().cas);
    let runs = (0..12).map(|number| place().run(ask(root, &format!("echo {number} > /out; cat /etc/known /out"))));
    for (number, ran) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(ran.ok(), format!("known\n{number}\n"));
        assert_eq!(ran.paths(), ["out"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test -p kiln-worker --test rooted a_step_takes -- --ignored --nocapture"]
async fn a_step_takes() {
    let Some((root, _)) = crate::base::debian(&place().cas) else { return };
    let began = std::time::Instant::now();
    place().run(ask(root, "true")).await.ok();
    eprintln!("unpacking a Debian and `true`: {:?}", began.elapsed());
    let mut took = Vec::new();
    for _ in 0..30 {
        let began = std::time::Instant::now();
        place().run(ask(root, "true")).await.ok();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    eprintln!("`true` on a Debian that is there: median {:?}, 90 % {:?}", took[15], took[27]);
}
