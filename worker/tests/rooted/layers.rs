//! The layer of a command: what it changed, and nothing else.

use kiln_trees::root::{Content, Leaf, Node};
use kiln_worker::sandbox::Layout;

use crate::base::{self, busybox};
use crate::place::{Ran, ask, place};

/// The layer is the smallest that leads to what the command left, and a second command sees just that.
async fn holds(ran: &Ran, script: &str) -> String {
    let mut forest = kiln_trees::root::Forest::new(crate::support::F);
    place().load(&mut forest, &ran.before);
    place().load(&mut forest, &ran.after);
    let smallest = forest.diff(&ran.before, &ran.after).unwrap();
    assert_eq!(Some(smallest), ran.layer, "expected the smallest layer");
    place().run(ask(ran.after, script)).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_changed_is_its_layer_and_the_next_one_sees_it() {
    let root = busybox(&place().cas);
    let script = "echo new > usr/share/new; echo changed > usr/share/one; rm usr/share/two; mkdir -p made/below; ln -s ../etc/known made/link;
        chmod 600 etc/known; mv usr/share/deep usr/share/moved";
    let ran = place().run(ask(root, script)).await;
    ran.ok();
    let expected = [
        "etc/known",
        "made/below/",
        "made/link",
        "-usr/share/deep",
        "usr/share/moved/er/file",
        "usr/share/new",
        "usr/share/one",
        "-usr/share/two",
    ];
    assert_eq!(ran.paths(), expected);
    let Some(Node::Leaf(known)) = ran.node("etc/known") else { panic!("a file") };
    assert_eq!(known.attributes.mode, 0o600);
    let seen = holds(
        &ran,
        "cat usr/share/new usr/share/one usr/share/moved/er/file made/link; ls usr/share; stat -c %a etc/known",
    )
    .await;
    assert_eq!(seen, "new\nchanged\ndeep\nknown\nmoved\nnew\none\n600\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_touched_or_looked_at_leaves_no_trace() {
    let root = busybox(&place().cas);
    let script = "touch etc/known usr/share; chmod 700 var; chmod 755 var; cp etc/known etc/copy; rm etc/copy; cat etc/known > same; cat same > etc/known; rm same;
        cat /etc/resolv.conf /etc/hosts > /dev/null; mkdir gone; rmdir gone; echo > /dev/shm/x; ls /proc /sys > /dev/null";
    let ran = place().run(ask(root, script)).await;
    ran.ok();
    assert_eq!(ran.paths(), Vec::<String>::new());
    assert_eq!(ran.after, root, "expected the root unchanged");
    assert_eq!(ran.times.0.keys().collect::<Vec<_>>(), [&Vec::<u8>::new()]);
    // Neither of a root without a single directory.
    let bare = {
        let mut forest = kiln_trees::root::Forest::new(crate::support::F);
        let empty = forest.put(kiln_trees::root::Directory::empty(base::attributes(0o755, 0, 0)));
        let Some(Node::Leaf(Leaf { content: Content::File(program), .. })) = ran.left("bin/busybox") else {
            panic!("a program")
        };
        let builder = base::Builder::default().leaf("sh", Content::File(program), base::attributes(0o755, 0, 0));
        builder.over(&place().cas, &mut forest, empty)
    };
    let mut bare = ask(bare, "");
    bare.arguments = ["/sh", "-c", "echo here; echo > /etc/resolv.conf || echo closed"].map(str::to_owned).into();
    let ran = place().run(bare).await;
    assert_eq!(ran.ok(), "here\nclosed\n");
    assert_eq!(ran.paths(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_made_anew_loses_what_was_in_it_and_no_more() {
    let root = busybox(&place().cas);
    let ran = place().run(ask(root, "rm -r usr/share; mkdir usr/share; echo two > usr/share/two; echo x > usr/share/x; rm -r var; echo file > var")).await;
    ran.ok();
    assert_eq!(ran.paths(), ["-usr/share/deep", "-usr/share/one", "usr/share/x", "var"]);
    assert_eq!(holds(&ran, "ls usr/share; cat var").await, "two\nx\nfile\n");
    let again = place().run(ask(ran.after, "rm var; mkdir -p var/lib; rm -r usr; mkdir -p usr/share/one/below")).await;
    again.ok();
    assert_eq!(again.paths(), ["usr/share/one/below/", "-usr/share/two", "-usr/share/x", "var/lib/"]);
    assert_eq!(
        holds(&again, "find usr var | sort").await,
        "usr\nusr/share\nusr/share/one\nusr/share/one/below\nvar\nvar/lib\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_targets_are_any_bytes_and_pipes_and_hard_links_stay_what_they_are() {
    let root = busybox(&place().cas);
    let script = r#"printf x > "$(printf 'not\377utf8')"; ln -s "$(printf 'to\376')" link; mkfifo -m 640 pipe; chown app:app pipe
        echo one > first; ln first second; mkdir d; ln first d/third; ln usr/share/one linked; nc -l -U socket & sleep 0; printf '%%' > '%41'"#;
    let ran = place().run(ask(root, script)).await;
    ran.ok();
    let Some(Node::Leaf(odd)) = ran.at(ran.layer.unwrap(), b"not\xffutf8") else { panic!("a file") };
    assert!(matches!(odd.content, Content::File(_)));
    let Some(Node::Leaf(link)) = ran.node("link") else { panic!("a link") };
    assert_eq!(link.content, Content::Symlink(b"to\xfe".to_vec()));
    let Some(Node::Leaf(pipe)) = ran.node("pipe") else { panic!("a pipe") };
    assert_eq!((pipe.content, pipe.attributes), (Content::Fifo, base::attributes(0o640, 1000, 1001)));
    let group = |path: &str| match ran.node(path) {
        Some(Node::Leaf(leaf)) => leaf.links,
        other => panic!("a file at {path}: {other:?}"),
    };
    assert!(group("first").is_some() && group("first") == group("second") && group("second") == group("d/third"));
    assert!(
        group("linked").is_some() && group("linked") == group("usr/share/one") && group("linked") != group("first")
    );
    assert_eq!(ran.node("socket"), None);
    let script = r#"[ first -ef d/third ] && [ linked -ef usr/share/one ] && stat -c %h first; [ -p pipe ] && readlink link; ls | grep -c 'not.utf8'; cat '%41'"#;
    // The same as it lies here, and as another worker unpacks it.
    assert_eq!(holds(&ran, script).await, "3\nto\u{fffd}\n1\n%");
    let dir = tempfile::tempdir().unwrap();
    let other = crate::place::Place::open(dir.path(), None);
    assert_eq!(other.run(ask(ran.after, script)).await.ok(), "3\nto\u{fffd}\n1\n%");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_restored_and_reported() {
    let root = busybox(&place().cas);
    let mut times = kiln_trees::root::Times::default();
    let at = |seconds| kiln_trees::root::Time { seconds, nanos: 500_000_000 };
    times.0.insert(b"etc/known".to_vec(), at(1_000_000_000));
    times.0.insert(b"usr/share".to_vec(), at(1_100_000_000));
    let dir = tempfile::tempdir().unwrap();
    let own = crate::place::Place::open(dir.path(), None);
    let mut first = ask(
        root,
        "stat -c %Y etc/known usr/share usr/share/one; touch -d @1200000000 usr/share/new; mkdir etc/more; touch -d @1300000000 etc",
    );
    first.times = Some(own.cas.put(times.encode()));
    let ran = own.run(first).await;
    assert_eq!(ran.ok(), "1000000000\n1100000000\n946684800\n");
    let seconds = |path: &str| ran.times.0.get(path.as_bytes()).map(|time| time.seconds);
    assert_eq!(
        (seconds("usr/share/new"), seconds("etc"), seconds("etc/known")),
        (Some(1_200_000_000), Some(1_300_000_000), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_no_content_and_what_it_names_is_fetched_again_where_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cas = &place().cas;
    let root = busybox(cas);
    let open = || crate::place::Place::with(dir.path(), (Some(Layout::Erofs), None), false);
    let layers = || {
        let entries = std::fs::read_dir(dir.path().join("roots/layers")).unwrap().flatten();
        let mut sizes: Vec<u64> = entries
            .map(|entry| entry.metadata().unwrap())
            .filter(|data| data.is_file())
            .map(|data| data.len())
            .collect();
        sizes.sort_unstable();
        sizes
    };
    {
        let own = open();
        assert_eq!(own.run(ask(root, "cat etc/known; echo more > more; ln more again")).await.ok(), "known\n");
        let images = layers();
        assert!(images.len() == 1 && images[0] < 200_000, "expected one image, without its programs: {images:?}");
        let devices = "echo > /new; stat -c %d / /etc /etc/known /bin/busybox /new | sort -u | wc -l";
        assert_eq!(own.run(ask(root, devices)).await.ok(), "1\n", "files and directories are on one device");
        own.roots.close();
        own.inputs.close();
    }
    // The image is found again; a file that was altered meanwhile, and one that is gone, are not used.
    let objects = kiln_worker::inputs::objects(&dir.path().join("inputs"));
    let known = kiln_harness::find(&objects, &format!("{}-6-f", crate::support::F.digest(b"known\n").hex())).unwrap();
    std::fs::write(&known, "KNOWN\n").unwrap();
    let one = kiln_harness::find(&objects, &format!("{}-4-f", crate::support::F.digest(b"one\n").hex())).unwrap();
    std::fs::remove_file(one).unwrap();
    let own = open();
    assert_eq!(layers().len(), 1);
    assert_eq!(own.run(ask(root, "cat etc/known usr/share/one")).await.ok(), "known\none\n");
    assert_eq!(layers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_from_a_root_that_is_here_is_unpacked_and_a_restart_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cas = &place().cas;
    let root = busybox(cas);
    let mut forest = kiln_trees::root::Forest::new(crate::support::F);
    let other = {
        place().load(&mut forest, &root);
        base::Builder::default().file(cas, "etc/other", 0o644, "other\n").over(cas, &mut forest, root)
    };
    let open = || crate::place::Place::with(dir.path(), (Some(Layout::Unpacked), None), false);
    let layers = || std::fs::read_dir(dir.path().join("roots/layers")).unwrap().count();
    {
        let own = open();
        assert_eq!(own.run(ask(root, "cat etc/known")).await.ok(), "known\n");
        assert_eq!(layers(), 1);
        let (step, _) = own.job(&ask(other, "")).await;
        let names: Vec<_> =
            std::fs::read_dir(&step.layers()[0]).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!((step.layers().len(), layers(), names), (2, 2, vec!["etc".into()]));
        assert_eq!(own.run(ask(other, "cat etc/other etc/known; echo more > more")).await.ok(), "other\nknown\n");
        // What it wrote is a third, and nothing is unpacked for the root that it led to.
        assert_eq!(layers(), 3);
        own.roots.close();
    }
    std::fs::create_dir(dir.path().join("roots/layers/tmp-1-1")).unwrap();
    let own = open();
    assert_eq!(
        layers(),
        3,
        "expected what was half made to be gone, and the rest to be there: {:?}",
        own.sandbox.roots()
    );
    let (step, _) = own.job(&ask(other, "")).await;
    assert_eq!(step.layers().len(), 2);
}
