//! Users and groups of actions: each action has its own, so it can only use up its own limits.

use std::os::unix::fs::MetadataExt;

use kiln_worker::executor::Exit;
use tokio_util::sync::CancellationToken;

use super::place::{Place, Ran, confined};

/// Users of the processes whose command line contains this.
fn users(marker: &str) -> Vec<u32> {
    let of = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        let matches = !own && String::from_utf8_lossy(&line).contains(marker);
        matches.then(|| entry.metadata().ok().map(|data| data.uid())).flatten()
    };
    let mut users: Vec<u32> = std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// A place whose actions have their own ids; on this machine, for root.
fn place_with_ids() -> Option<Place> {
    let place = confined();
    if place.sandbox.has_own_ids() {
        return Some(place);
    }
    super::cannot_run("a worker that is root, on a file system that maps owners");
    None
}

/// Runs a script until it prints something, inspects it, and ends it.
async fn while_it_runs<T>(place: &Place, script: &str, look: impl FnOnce() -> T) -> (Ran, T) {
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
    let run = place.sandbox.run(place.job(script), sender, cancel.clone());
    let mut out = Vec::new();
    let wait = async {
        let first: Option<kiln_worker::executor::Chunk> = receiver.recv().await;
        out.extend(first.iter().flat_map(|chunk| chunk.data.to_vec()));
        let looked = look();
        cancel.cancel();
        while receiver.recv().await.is_some() {}
        looked
    };
    let (finished, looked) = tokio::join!(run, wait);
    (Ran { finished: finished.unwrap(), out, err: String::new() }, looked)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_actions_at_once_are_two_users_and_neither_is_the_workers() {
    let Some(place) = place_with_ids() else { return };
    let mine = rustix::process::geteuid().as_raw();
    let (one, two) = ("86391.25", "86392.25");
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
    let first = place.sandbox.run(place.job(&format!("echo ready; sleep {two}; true")), sender, cancel.clone());
    let second = async {
        receiver.recv().await.expect("expected the first to become ready");
        let look = || (users(one), users(two));
        let (_, seen) = while_it_runs(&place, &format!("echo ready; sleep {one}; true"), look).await;
        cancel.cancel();
        while receiver.recv().await.is_some() {}
        seen
    };
    let (finished, users) = tokio::join!(first, second);
    finished.unwrap();
    let (first, second) = users;
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
    assert!(first[0] != mine && second[0] != mine && first[0] >= 65_536, "{first:?} {second:?}, the worker is {mine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_counts_by_user_is_not_the_workers() {
    let Some(place) = place_with_ids() else { return };
    // As many inotify instances as one user may have, and as many pending signals and queues.
    let script = r#"
exec python3 -c '
import ctypes, time
libc = ctypes.CDLL(None)
made = 0
while libc.inotify_init1(0) >= 0: made += 1
print("made", made, flush=True)
time.sleep(1000)
'"#;
    let look = || {
        let python = "import ctypes; print(ctypes.CDLL(None).inotify_init1(0))";
        std::process::Command::new("/usr/bin/python3").args(["-c", python]).output().unwrap()
    };
    let (ran, mine) = while_it_runs(&place, script, look).await;
    assert!(ran.text().starts_with("made ") && ran.text() != "made 0\n", "{}", ran.text());
    let text = String::from_utf8_lossy(&mine.stdout).trim().to_owned();
    assert!(text.parse::<i32>().is_ok_and(|descriptor| descriptor >= 0), "expected the worker to watch files: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_action_owns_its_inputs_and_on_disk_all_is_the_workers() {
    let Some(place) = place_with_ids() else { return };
    let layer = place.layer("closed", &[("closed/secret.txt", "closed\n")]);
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str, mode| {
            std::fs::set_permissions(layer.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("closed/secret.txt", 0o600);
        mode("closed", 0o700);
    }
    let mut job = place.job(
        "id -u; stat -c '%u %g %a' in.txt closed closed/secret.txt /tmp; cat closed/secret.txt; chmod 640 in.txt; \
         touch -d @7 closed/secret.txt; echo new > new; ln closed/secret.txt linked; mkdir -m 700 own; echo x > own/x; stat -c %u new own",
    );
    job.layers.push(layer);
    let ran = place.run(job).await;
    let expected = "1000\n1000 1000 644\n1000 1000 700\n1000 1000 600\n1000 1000 755\nclosed\n1000\n1000\n";
    assert_eq!((ran.exit(), ran.text().as_str()), (&Exit::Code(0), expected), "{}", ran.err);
    assert_eq!(ran.left("own/x").as_deref(), Some("x\n"));
    let scratch = std::fs::read_dir(place.dir.path().join("scratch")).unwrap().flatten().next().unwrap().path();
    let mine = rustix::process::geteuid().as_raw();
    for path in ["written/new", "written/own/x", "written/in.txt", "tmp/home"] {
        assert_eq!(scratch.join(path).symlink_metadata().unwrap().uid(), mine, "expected `{path}` to be the worker's");
    }
    let owner = place.dir.path().join("layers/closed/closed/secret.txt").metadata().unwrap();
    assert_eq!((owner.uid(), owner.mtime() == 7), (mine, false), "expected the cache's file unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_user_is_one_of_the_workers_machine() {
    let Some(place) = place_with_ids() else { return };
    let script = "cat /proc/self/uid_map; grep -E '^(Groups|CapEff|CapBnd):' /proc/self/status; id -G";
    let ran = place.script(script).await;
    let text = ran.text();
    let map: Vec<u64> = text.lines().next().unwrap().split_whitespace().map(|part| part.parse().unwrap()).collect();
    assert!(map[0] == 0 && map[1] >= 65_536 && map[2] == 65_536, "{text}");
    assert!(text.contains("CapEff:\t0000000000000000") && text.ends_with("\n1000\n"), "{text}");
    assert!(text.lines().any(|line| line.trim_end() == "Groups:"), "expected none of the worker's groups: {text}");
}
