//! Caches of steps on the worker's own system.

use kiln_proto::v1::{CacheMount, CacheName};
use kiln_sandbox::{Layout, Way};

use crate::place::Place;

fn caches(project: &str, targets: &[&str]) -> Vec<CacheMount> {
    let cache = |target: &&str| {
        let name = CacheName { project: project.into(), id: (*target).to_owned(), ..CacheName::default() };
        CacheMount { target: (*target).to_owned(), name: Some(name), sharing: 0 }
    };
    targets.iter().map(cache).collect()
}

/// Steps one after another on two workers of this kind.
async fn steps(layout: Layout, way: Way) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = [0, 1].map(|at| Place::with(dirs[at].path(), (Some(layout), Some(way)), false));
    let kind = format!("{layout:?} {way:?}");
    let mounts = || caches(&format!("steps {kind}"), &["/build/deep/cache", "/tmp/home/.c", "/tmp/other"]);
    let script = "cat in; touch deep/own ~/own; ls -A deep/cache ~/.c /tmp/other; echo x > deep/cache/x; mkdir ~/.c/d; echo y > ~/.c/d/y\n\
                  ln deep/cache/x deep/cache/hard; ln -s /etc/passwd deep/cache/link; chmod 700 deep/cache/x; id -u";
    let (code, said) = one.step(script, mounts()).await;
    assert_eq!((code, said.as_str()), (0, "given\n/tmp/home/.c:\n\n/tmp/other:\n\ndeep/cache:\n1000\n"), "{kind}");
    let (code, said) = one.step("rm -r ~/.c/d; echo half > deep/cache/half; exit 3", mounts()).await;
    assert_eq!(code, 3, "{kind}: {said}");
    let script = "test ! -e deep/cache/half; cat ~/.c/d/y deep/cache/x; stat -c '%u %g %a %h' deep/cache/x; readlink deep/cache/link\n\
                  rm deep/cache/hard; echo more >> deep/cache/x; rm -r ~/.c/d; mkdir ~/.c/d; echo z > ~/.c/d/z";
    let (code, said) = other.step(script, mounts()).await;
    assert_eq!((code, said.as_str()), (0, "y\nx\n1000 1000 700 2\n/etc/passwd\n"), "{kind}");
    for place in [&one, &other, &one] {
        let (code, said) =
            place.step("cat deep/cache/x; ls -A deep/cache ~/.c/d; echo >> /tmp/other/lines", mounts()).await;
        assert_eq!((code, said.as_str()), (0, "x\nmore\n/tmp/home/.c/d:\nz\n\ndeep/cache:\nlink\nx\n"), "{kind}");
    }
    let (_, said) = other.step("wc -l < /tmp/other/lines", mounts()).await;
    assert_eq!(said, "3\n", "{kind}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_begins_with_what_the_last_one_that_succeeded_left_however_caches_are_mounted() {
    for (layout, way) in [
        (Layout::Erofs, Way::Inside),
        (Layout::Erofs, Way::Outside),
        (Layout::Unpacked, Way::Inside),
        (Layout::Unpacked, Way::Outside),
    ] {
        steps(layout, way).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_nowhere_but_in_the_steps_own_root() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), None);
    let outside = tempfile::Builder::new().prefix("kiln-outside-").tempdir_in("/tmp").unwrap();
    let within = format!("{}/made/here", outside.path().display());
    let (code, said) = place.step(&format!("echo x > {within}/file"), caches("own root", &[&within])).await;
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "expected nothing of it on the machine");
    for target in ["/usr/cache", "/proc/cache"] {
        let (code, said) = place.step("echo ran", caches("own root", &[target])).await;
        assert!(
            code == -1 && said.contains(&format!("there can be no cache at `{target}`")),
            "{target}: {code} {said}"
        );
        assert!(said.contains("choose another path") && !said.contains("ran"), "{said}");
    }
}
