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
async fn calls_that_no_library_sees_are_recorded_too() {
    let place = confined();
    // From a program's own system call, from within the C library, and from a static program.
    let script = "perl -e 'my ($a, $b, $c) = (\"own-call\", \"/build/old-call\", \"x\" x 1000); syscall(257, -100, $a, 0); syscall(4, $b, $c)'
         perl -e 'opendir(D, \"of-library\"); exec \"./nothing\"' 2>/dev/null
         busybox test -e by-static; busybox cat in.txt >/dev/null";
    let numbers = cfg!(target_arch = "x86_64");
    let seen = accesses(&place, script).await;
    assert!(!seen.incomplete);
    for path in ["/build/of-library", "/build/./nothing", "/build/by-static", "/build/in.txt"] {
        assert!(seen.paths.contains(path), "expected `{path}` among {:?}", seen.paths);
    }
    for path in ["/build/own-call", "/build/old-call"] {
        assert!(!numbers || seen.paths.contains(path), "expected `{path}` among {:?}", seen.paths);
    }
    assert!(!seen.paths.iter().any(|path| path.starts_with("/kiln/recorder")), "{:?}", seen.paths);
}

/// Prints what the C library's functions answer, as programs that are recorded see them.
const ANSWERS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    const char *paths[] = {"in.txt", "sub/../in.txt", "link", "/build/link/..", "dangling", "none/below", "in.txt/below", "",
        ".", "/usr//bin/./env", "/bin/sh", "loop", "/build/sub/", "/build/in.txt/", "/build/none/a/b", "/build/sub/none/../x"};
    for (unsigned at = 0; at < sizeof paths / sizeof *paths; at++) {
        char room[PATH_MAX] = "untouched";
        const char *path = paths[at];
        char *real = realpath(path, room);
        printf("%s: %s '%s' %d\n", path, real ? real : "-", room, real ? 0 : errno);
        real = realpath(path, NULL);
        printf("  %s %d\n", real ? real : "-", real ? 0 : errno);
        struct stat data = {0};
        int result = stat(path, &data);
        printf("  stat %d %d %o %ld\n", result, result ? errno : 0, data.st_mode, result ? 0 : (long)data.st_size);
        result = lstat(path, &data);
        printf("  lstat %d %d %o\n", result, result ? errno : 0, data.st_mode);
        int file = open(path, O_RDONLY);
        printf("  open %d %d %d\n", file >= 0, file < 0 ? errno : 0, file < 0 ? 0 : fstat(file, &data));
        if (file >= 0) close(file);
        result = access(path, X_OK);
        printf("  access %d %d\n", result, result ? errno : 0);
        char target[10];
        long length = readlink(path, target, sizeof target);
        printf("  readlink %ld %d\n", length, length < 0 ? errno : 0);
        struct statx more = {0};
        result = statx(AT_FDCWD, path, 0, STATX_SIZE, &more);
        printf("  statx %d %d %llu\n", result, result ? errno : 0, (unsigned long long)more.stx_size);
    }
    umask(0);
    close(open("made", O_CREAT | O_WRONLY | O_EXCL, 0751));
    int sub = open("sub", O_PATH | O_DIRECTORY);
    struct stat data = {0};
    printf("%o %d\n", stat("made", &data) ? 0 : data.st_mode, openat(sub, "deep.txt", O_RDONLY) > 0);
    return 0;
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_recorded_is_answered_as_any_other() {
    let place = confined();
    let script = "ln -s sub link; ln -s gone dangling; ln -s loop loop; gcc -O1 -Wno-nonnull answers.c -o answers && ./answers; mkdir /tmp/deep; \
                  cd /tmp/deep; rmdir ../deep; /build/answers";
    let mut texts = Vec::new();
    for recorded in [false, true] {
        let mut job = place.job(script);
        job.layers.push(place.layer("answers", &[("answers.c", ANSWERS)]));
        job.calls.recorded = recorded;
        let ran = place.run(job).await;
        assert_eq!(ran.exit(), &Exit::Code(0), "{}", ran.err);
        if let Some(seen) = &ran.finished.accesses {
            for path in ["/build/none/below", "/build/sub/deep.txt"] {
                assert!(seen.paths.contains(path), "expected `{path}` among {:?}", seen.paths);
            }
        }
        texts.push(ran.text());
    }
    assert!(texts[0].contains("/usr/bin/env") && texts[0].lines().count() > 200, "{}", texts[0]);
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_job_spoils_is_incomplete() {
    let place = confined();
    let spoil = |how: &str| format!("{how}; cat in.txt");
    for how in [
        "printf '\\377\\377\\377\\377\\377\\377\\377\\377' | busybox dd of=/kiln/recorder/log conv=notrunc 2>/dev/null",
        "busybox sh -c 'head -c 4096 /dev/zero | busybox dd of=/kiln/recorder/log bs=8 seek=1 conv=notrunc 2>/dev/null'",
    ] {
        let seen = accesses(&place, &spoil(how)).await;
        assert!(seen.incomplete, "{how}");
    }
    let read_only = place
        .script("for f in /kiln/recorder/recorder.so /etc/ld.so.preload /kiln/recorder/new; do echo x > $f; done")
        .await;
    assert_ne!(read_only.exit(), &Exit::Code(0));
    let mut job = place.job("for f in /kiln/recorder/recorder.so /etc/ld.so.preload /kiln/recorder/new; do (echo x > $f) 2>/dev/null && echo wrote $f; done; \
                             rm -f /kiln/recorder/log; echo done");
    job.calls.recorded = true;
    assert_eq!(place.run(job).await.text(), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_has_looked_at_so_far_is_known_while_it_runs() {
    let place = confined();
    // It goes on when it has been seen to have looked at the first file.
    let mut job = place
        .job("test -e /build/first; echo said; until [ -e /kiln/call/go ]; do sleep 0.01; done; test -e second; true");
    let directory = place.dir.path().join("offered");
    std::fs::create_dir_all(&directory).unwrap();
    let begun = watch::Sender::new(None);
    let mut told = begun.subscribe();
    let offered = Offer {
        directory: directory.clone(),
        to: "/kiln/call".into(),
        programs: "/kiln/call/bin".into(),
        begun,
        port: None,
    };
    (job.calls.offer, job.calls.recorded) = (Some(offered), true);
    let look = async {
        let begun = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        loop {
            let seen = begun.looks.so_far().await.expect("expected a job that is recorded to answer");
            if seen.paths.contains("/build/first") {
                assert!(!seen.paths.contains("/build/second") && !seen.incomplete);
                std::fs::write(directory.join("go"), "").unwrap();
                return begun;
            }
        }
    };
    let (ran, begun) = tokio::join!(place.run(job), look);
    let seen = ran.finished.accesses.clone().unwrap();
    assert!(seen.paths.contains("/build/first") && seen.paths.contains("/build/second"));
    assert_eq!(begun.looks.so_far().await, None, "nobody answers for a job that is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_path_looks_at_nothing() {
    let place = confined();
    // As Rust's library does to find out whether the kernel has statx(2).
    let script = "python3 -c 'import ctypes; ctypes.CDLL(None).statx(0, None, 0, 4095, None)'; test -e after; true";
    let seen = accesses(&place, script).await;
    assert!(!seen.incomplete && seen.paths.contains("/build/after"));
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
    job.calls.offer =
        Some(Offer { directory, to: "/kiln/call".into(), programs: "/kiln/call/bin".into(), begun, port: None });
    let running = place.run(job);
    let look = async {
        let begun = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        // The command has begun when it has written the file: a shell opens it some time before.
        loop {
            if let Ok(root) = begun.root()
                && std::fs::read(root.join("build/made")).is_ok_and(|found| found == b"x\n")
            {
                return begun;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let watch = async {
        let begun = look.await;
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
