//! Sandboxes that run one job after another: what the next job finds of the last one, and when there is no next job.

use std::path::Path;
use std::time::Duration;

use kiln_worker::executor::calls::Limits;
use kiln_worker::executor::{Conditions, Exit, Job};
use tokio::sync::watch;

use super::place::{MIB, Place, Ran, confined, used};

/// Prints which process namespace a job is in. The number of a process namespace that is gone is used again, so the time when its first process
/// began is added.
const NAMESPACE: &str = "echo $(readlink /proc/self/ns/pid) $(cut -d ' ' -f 22 /proc/1/stat)";

/// The namespace of a job that printed it.
fn namespace(ran: &Ran) -> String {
    ran.text().lines().next().unwrap_or_else(|| panic!("expected a namespace: {}", ran.err)).to_owned()
}

/// The process namespace of a job that has ended and whose tree is gone.
async fn process_namespace(place: &Place, job: Job) -> String {
    namespace(&place.run(job).await)
}

fn is_possible(place: &Place) -> bool {
    if place.sandbox.has_own_ids() && place.sandbox.describe().contains("limits by control groups") {
        return true;
    }
    super::cannot_run("root, on a machine with control groups");
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_job_finds_nothing_of_the_last_one() {
    let place = confined();
    if !is_possible(&place) {
        return;
    }
    let leave = "echo x > left; echo x > in.txt; mkdir -p $HOME/.cache; echo x > $HOME/.cache/left; echo x > /tmp/left; mkdir /tmp/deep;
        echo x > /dev/shm/left; umask 077; cd /tmp/deep; (setsid sleep 86398.125 &) ; perl -e '
            use IPC::SysV; defined shmget(77, 100, 0600 | IPC::SysV::IPC_CREAT()) or die; defined msgget(78, 0600 | IPC::SysV::IPC_CREAT()) or die;
            defined semget(79, 1, 0600 | IPC::SysV::IPC_CREAT()) or die; my $name = \"left\";
            syscall(240, $name, 0101, 0600, 0) < 0 and die \"mq_open: $!\"; open(my $pty, \"+<\", \"/dev/ptmx\") or die'";
    let first = place.script(&format!("{NAMESPACE}; {leave}")).await;
    assert_eq!(first.exit(), &Exit::Code(0), "{}", first.err);
    let before = namespace(&first);
    drop(first);
    let look = "cat in.txt; ls -A /build /tmp /tmp/home /dev/shm /dev/pts; cat /proc/sysvipc/shm /proc/sysvipc/msg /proc/sysvipc/sem | grep -v key;
        pwd; umask; perl -e 'my $name = \"left\"; print syscall(240, $name, 0, 0, 0) < 0 ? \"none\" : \"found\"'";
    let second = place.script(&format!("{NAMESPACE}; {look}")).await;
    let after = namespace(&second);
    assert_eq!(before, after, "expected the next job to run in the same sandbox");
    let fresh = confined().script(&format!("{NAMESPACE}; {look}")).await;
    let found = |ran: &Ran| ran.text().lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(found(&second), found(&fresh), "expected what a job in a new sandbox finds");
    assert!(second.text().contains("input\n") && second.text().ends_with("none"), "{} {}", second.text(), second.err);
    assert!(!super::runs("86398.125"), "expected no process of the first job to be left");
}

#[tokio::test(flavor = "multi_thread")]
async fn process_ids_begin_anew() {
    let place = confined();
    let mut seen = Vec::new();
    for script in ["echo $$", "for i in $(seq 50); do /bin/true; done; echo $$", "echo $$"] {
        seen.push(place.script(script).await.text());
    }
    assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_used_is_not_counted_again() {
    let place = confined();
    let busy = place.script("perl -e '$x = \"x\" x 60000000; for (1..3000000) { $y += $_ }'").await;
    assert_eq!(busy.exit(), &Exit::Code(0), "{}", busy.err);
    let (cpu, peak) = (busy.finished.user_cpu, busy.finished.peak_memory_bytes);
    drop(busy);
    let idle = place.script("true").await;
    assert!(
        idle.finished.user_cpu < cpu / 2 && idle.finished.peak_memory_bytes < peak / 2,
        "{:?} after {cpu:?}, {peak}",
        idle.finished
    );
}

/// Keeps a processor busy until somebody has looked at it more than once.
const BUSY: &str = "perl -e '$x = \"x\" x 50000000; $end = time + 4; $y++ while time < $end'";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_uses_over_time_is_its_own_and_a_short_one_has_none() {
    let place = confined();
    if !place.sandbox.describe().contains("control groups") {
        return;
    }
    for _ in 0..2 {
        let busy = place.script(BUSY).await;
        assert_eq!(busy.exit(), &Exit::Code(0), "{}", busy.err);
        let samples = busy.finished.samples.to_wire().unwrap();
        assert!((2..=6).contains(&samples.until_ms.len()), "expected about one a second: {samples:?}");
        assert!(samples.memory_bytes.iter().any(|bytes| *bytes > 50_000_000), "{samples:?}");
        // Nor is the time of the job before in it: a processor has no more than its time.
        let used: Vec<u32> = samples.milli_cpus.clone();
        assert!(used.iter().any(|milli| *milli > 20) && used.iter().all(|milli| *milli < 1_500), "{samples:?}");
    }
    assert_eq!(place.script("true").await.finished.samples.to_wire(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_stays_while_other_jobs_run() {
    let place = confined();
    let first = place.script(&format!("{NAMESPACE}; echo one > out")).await;
    let second = place.script(&format!("{NAMESPACE}; echo two > out; [ ! -e left ]")).await;
    assert_ne!(namespace(&first), namespace(&second), "expected a sandbox whose tree is needed to be left alone");
    assert_eq!((first.left("out").as_deref(), second.left("out").as_deref()), (Some("one\n"), Some("two\n")));
    assert_eq!(second.exit(), &Exit::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_get_another_sandbox() {
    let place = confined();
    if !is_possible(&place) {
        return;
    }
    let of = |tenant: &str| Job { tenant: tenant.into(), ..place.job(NAMESPACE) };
    let first = process_namespace(&place, of("one")).await;
    assert_ne!(first, process_namespace(&place, of("two")).await, "expected two tenants to share nothing");
    assert_eq!(first, process_namespace(&place, of("one")).await);
    let more = Job { memory_bytes: 600 * MIB, ..of("one") };
    assert_ne!(first, process_namespace(&place, more).await, "expected other limits to need another group");
    let recorded = || {
        let mut job = of("one");
        job.calls.recorded = true;
        job
    };
    let of_recorded = process_namespace(&place, recorded()).await;
    assert_ne!(first, of_recorded);
    assert_eq!(of_recorded, process_namespace(&place, recorded()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_in_which_something_went_wrong_is_not_used_again() {
    let place = confined();
    let marked = |script: &str| place.job(&format!("{NAMESPACE}; {script}"));
    let socket = "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(7777, INADDR_LOOPBACK)); listen(S, 1);
        socket(C, PF_INET, SOCK_STREAM, 0); connect(C, sockaddr_in(7777, INADDR_LOOPBACK)); accept(A, S); close(A); close(C)'";
    let memory = Job { memory_bytes: 64 * MIB, ..marked("head -c 400000000 /dev/zero | tail | wc -c") };
    let processes = Job { max_processes: 20, ..marked("for i in $(seq 40); do sleep 1000 & done; exit 1") };
    let time = Job { timeout: Some(Duration::from_millis(700)), ..marked("sleep 1000") };
    for job in [marked(socket), memory, processes, time] {
        let (limits, script) = ((job.memory_bytes, job.max_processes), job.arguments[2].clone());
        let before = process_namespace(&place, job).await;
        let next = Job { memory_bytes: limits.0, max_processes: limits.1, ..place.job(NAMESPACE) };
        assert_ne!(before, process_namespace(&place, next).await, "{script}");
    }
}

/// The process, as this machine sees it, that is the first one of a process namespace.
fn first_process(namespace: &str) -> i32 {
    let namespace = namespace.split(' ').next().unwrap();
    let is_first = |entry: &std::fs::DirEntry| {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let own = std::fs::read_link(entry.path().join("ns/pid"));
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        own.is_ok_and(|own| own == Path::new(namespace))
            && ids.is_some_and(|ids| ids.split_whitespace().last() == Some("1"))
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(is_first);
    found.expect("expected a sandbox that waits").file_name().to_string_lossy().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_was_killed_meanwhile_is_replaced() {
    let place = confined();
    if !is_possible(&place) {
        return;
    }
    let before = process_namespace(&place, place.job(NAMESPACE)).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first_process(&before)), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    // The worker learns of it a moment later.
    let after = loop {
        let ran = place.sandbox_result(place.job(NAMESPACE)).await;
        if let Ok(ran) = ran {
            break namespace(&ran);
        }
    };
    assert_ne!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_part_of_a_job_shares_a_sandbox_only_within_it() {
    let place = confined();
    if !is_possible(&place) {
        return;
    }
    let mut seen = Vec::new();
    for _ in 0..2 {
        let begun = watch::Sender::new(None);
        let mut told = begun.subscribe();
        let directory = place.dir.path().join("offered");
        std::fs::create_dir_all(&directory).unwrap();
        let mut parent = place.job("until [ -e /kiln/call/go ]; do sleep 0.01; done");
        parent.calls.offer = Some(kiln_worker::executor::calls::Offer {
            directory: directory.clone(),
            to: "/kiln/call".into(),
            programs: "/kiln/call/bin".into(),
            begun,
            port: None,
        });
        let parts = async {
            let begun = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            let part = |limits: Limits| {
                let mut job = place.job(NAMESPACE);
                job.calls.part_of = Some(limits);
                job
            };
            let first = process_namespace(&place, part(begun.limits.clone())).await;
            assert_eq!(first, process_namespace(&place, part(begun.limits)).await);
            std::fs::write(directory.join("go"), "").unwrap();
            first
        };
        let (ran, part) = tokio::join!(place.run(parent), parts);
        assert_eq!(ran.exit(), &Exit::Code(0), "{}", ran.err);
        std::fs::remove_file(directory.join("go")).unwrap();
        seen.push(part);
    }
    assert_ne!(seen[0], seen[1], "expected nothing of a job to outlive it");
    seen.push(process_namespace(&place, place.job(NAMESPACE)).await);
    assert!(!seen[..2].contains(&seen[2]));
}

#[tokio::test]
async fn a_job_that_is_to_be_compared_sees_another_host_and_fewer_cpus_and_none_after_it_does() {
    let place = used();
    let look = "hostname; nproc; getent hosts \"$(hostname)\" | cut -d ' ' -f 1";
    let usual = place.script(look).await;
    let mut job = place.job(look);
    job.conditions = Conditions { cpus: Some(1), host_name: Some("kiln-other".to_owned()), directory: None };
    let other = place.run(job).await;
    assert_eq!(other.text(), "kiln-other\n1\n127.0.0.1\n", "{}", other.err);
    let seen = &other.finished.conditions;
    assert_eq!((seen.cpus, seen.host_name.as_deref()), (Some(1), Some("kiln-other")));
    let after = place.script(look).await;
    assert_eq!(after.text(), usual.text(), "a sandbox with other conditions is not used again");
    let told = after.finished.conditions.clone();
    let lines: Vec<String> = after.text().lines().map(str::to_owned).collect();
    assert_eq!((told.host_name.unwrap(), told.cpus.unwrap().to_string()), (lines[0].clone(), lines[1].clone()));
}
