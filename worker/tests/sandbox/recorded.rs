//! Jobs that are recorded, and jobs that are part of another.

use std::path::{Path, PathBuf};

use kiln_worker::executor::Exit;
use kiln_worker::executor::calls::{Accesses, Limits, Offer};
use tokio::sync::watch;

use super::place::{Place, confined};

async fn accesses(place: &Place, script: &str) -> Accesses {
    let mut job = place.job(script);
    job.calls.recorded = true;
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::Code(0), "{}", ran.err);
    ran.finished.accesses.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_looks_at_is_recorded_whether_or_not_it_is_there() {
    let place = confined();
    let seen = accesses(
        &place,
        "cat in.txt >/dev/null; [ ! -e absent ]; cd sub; cat deep.txt ../in.txt >/dev/null; ls . >/dev/null",
    )
    .await;
    assert!(!seen.incomplete);
    for path in ["/build/in.txt", "/build/absent", "/build/sub/deep.txt", "/build/sub/../in.txt"] {
        assert!(seen.paths.contains(path), "expected `{path}` among {:?}", seen.paths);
    }
    assert!(seen.paths.iter().any(|path| path.ends_with("/cat")), "expected the programs that were started");
    assert!(seen.listed.contains("/build/sub"), "{:?}", seen.listed);
    assert!(!seen.paths.contains("/build/never"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_is_recorded_with_the_headers_that_it_read_and_looked_for() {
    let place = confined();
    let source = "#include \"own.h\"\n#include <stddef.h>\n#if __has_include(\"maybe.h\")\n#endif\nint x = OWN;\n";
    let mut job = place.job("gcc -Iother -Ifirst -c main.c");
    job.layers.push(place.layer("c", &[("main.c", source), ("first/own.h", "#define OWN 1\n"), ("other/x.h", "")]));
    job.calls.recorded = true;
    let ran = place.run(job).await;
    assert_eq!(ran.exit(), &Exit::Code(0), "{}", ran.err);
    let seen = ran.finished.accesses.clone().unwrap();
    assert!(!seen.incomplete);
    for path in
        ["/build/main.c", "/build/first/own.h", "/build/other/own.h", "/build/first/maybe.h", "/build/other/maybe.h"]
    {
        assert!(seen.paths.contains(path), "expected `{path}` among {:?}", seen.paths);
    }
    assert!(seen.paths.iter().any(|path| path.ends_with("/stddef.h")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_at_once_are_recorded_completely() {
    let place = confined();
    let script = "for i in $(seq 100); do test -e probe-$i & done; wait";
    let seen = accesses(&place, script).await;
    for number in 1..=100 {
        assert!(seen.paths.contains(&format!("/build/probe-{number}")), "{number}");
    }
    assert!(!seen.incomplete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reaches_what_it_is_offered_and_its_root_can_be_read() {
    let place = confined();
    let directory = place.dir.path().join("offered");
    std::fs::create_dir_all(directory.join("bin")).unwrap();
    std::fs::write(directory.join("bin/cc"), "#!/bin/sh\necho shim\n").unwrap();
    std::fs::set_permissions(directory.join("bin/cc"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut job = place.job("cc; echo x > made; echo ready; echo y 2>/dev/null > /kiln/call/bin/cc || echo read-only; until [ -e /kiln/call/go ]; do sleep 0.01; done");
    let begun = watch::Sender::new(None);
    let mut told = begun.subscribe();
    job.calls.offer = Some(Offer { directory, to: "/kiln/call".into(), programs: "/kiln/call/bin".into(), begun });
    let running = place.run(job);
    let look = async {
        let begun = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        // The command has begun when it has made the file.
        loop {
            if let Ok(root) = begun.root()
                && root.join("build/made").exists()
            {
                return (root, begun);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let watch = async {
        let (root, begun) = look.await;
        assert_eq!(std::fs::read_to_string(root.join("build/made")).unwrap(), "x\n");
        part_of(&place, begun.limits).await;
        std::fs::write(place.dir.path().join("offered/go"), "").unwrap();
    };
    let (ran, ()) = tokio::join!(running, watch);
    assert_eq!(ran.text(), "shim\nready\nread-only\n", "{}", ran.err);
}

/// Another job is in the same control groups, if there are any.
async fn part_of(place: &Place, limits: Limits) {
    let groups = |text: &str| -> Vec<PathBuf> {
        text.lines().filter_map(|line| line.rsplit_once(':')).map(|(_, group)| Path::new(group).to_owned()).collect()
    };
    let mut job = place.job("cat /proc/self/cgroup");
    job.calls.part_of = Some(limits);
    let child = groups(&place.run(job).await.text());
    let own = groups(&place.script("cat /proc/self/cgroup").await.text());
    assert_eq!(child.len(), own.len());
    let with_limits = |groups: &[PathBuf]| {
        groups.iter().filter(|group| group.to_string_lossy().contains("kiln-")).cloned().collect::<Vec<_>>()
    };
    assert!(with_limits(&own).is_empty() || with_limits(&own) != with_limits(&child), "two jobs in one group");
}
