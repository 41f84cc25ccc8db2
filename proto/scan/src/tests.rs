use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use kiln_trees::tree::{Entry, Tree};
use proptest::prelude::*;

use super::*;

fn options(root: &Path, cache: Option<&Path>) -> Options {
    Options {
        root: root.to_owned(),
        parts: Vec::new(),
        cache: cache.map(Path::to_owned),
        function: DigestFunction::Sha256,
        files: Files::Project,
    }
}

fn paths(root: &Path) -> Vec<String> {
    walk(root, &[]).unwrap().found.into_iter().map(|found| found.path).collect()
}

fn write(root: &Path, path: &str, text: &str) {
    let full = root.join(path);
    fs::create_dir_all(full.parent().unwrap()).unwrap();
    fs::write(full, text).unwrap();
}

/// Sets a file's own times, far enough back that the file counts as settled except for its ctime.
fn age(root: &Path, path: &str, seconds: u64) {
    let at = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(root.join(path)).unwrap().set_modified(at).unwrap();
}

fn git(dir: &Path, arguments: &[&str]) {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=n", "-c", "user.email=e@x.example", "-c", "protocol.file.allow=always", "-C"])
        .arg(dir)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository with these files; those in `force` are added whatever `.gitignore` says.
fn repository(root: &Path, files: &[(&str, &str)], force: &[&str]) {
    for (path, text) in files {
        write(root, path, text);
    }
    git(root, &["init", "-q"]);
    git(root, &["add", "."]);
    if !force.is_empty() {
        git(root, &[&["add", "-f"], force].concat());
    }
    git(root, &["commit", "-q", "-m", "one"]);
}

fn left_out(root: &Path) -> Vec<(String, Why)> {
    walk(root, &[]).unwrap().left_out.into_iter().map(|one| (one.path, one.why)).collect()
}

#[test]
fn outside_a_repository_only_kilnignore_and_what_tools_make_leave_files_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().canonicalize().unwrap();
    write(root, ".gitignore", "lib/\n*.log\n");
    write(root, ".kilnignore", "docs\n!kept.log\n");
    for path in [".hidden", "a/b.c", "a/b.log", "docs/x", "lib/x.c", "target/notes", "bundle/ruby/x", ".env.example"] {
        write(root, path, path);
    }
    for made in ["node_modules/x/index.js", ".venv/pyvenv.cfg", ".env", "a/.env.local", "a/__pycache__/b.pyc"] {
        write(root, made, made);
    }
    write(root, "package.json", "{}");
    fs::create_dir(root.join("empty")).unwrap();
    let expected = [
        ".env.example",
        ".gitignore",
        ".hidden",
        ".kilnignore",
        "a/b.c",
        "a/b.log",
        "bundle/ruby/x",
        "lib/x.c",
        "package.json",
        "target/notes",
    ];
    assert_eq!(paths(root), expected);
    let expected = [
        (".env", Why::Environment),
        (".venv", Why::Made),
        ("a/.env.local", Why::Environment),
        ("a/__pycache__", Why::Made),
        ("node_modules", Why::Made),
    ];
    assert_eq!(left_out(root), expected.map(|(path, why)| (path.to_owned(), why)));
}

#[test]
fn in_a_repository_the_index_decides_and_then_what_is_not_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().canonicalize().unwrap();
    let files = [
        (".gitignore", "lib/\n*.log\nconfigure\n/Cargo.lock\n"),
        (".kilnignore", "secret\n"),
        ("lib/deep/x.c", ""),
        ("lib/y.log", ""),
        ("a/configure", ""),
        ("gone.c", ""),
        ("secret/key", ""),
        ("node_modules/m/index.js", ""),
        ("package.json", "{}"),
    ];
    repository(root, &files, &["lib/deep/x.c", "lib/y.log", "a/configure"]);
    for path in ["untracked.c", "lib/other.c", "a/b.log", "Cargo.lock", "node_modules/stale.js"] {
        write(root, path, "");
    }
    fs::remove_file(root.join("gone.c")).unwrap();
    let expected = [
        ".gitignore",
        ".kilnignore",
        "a/configure",
        "lib/deep/x.c",
        "lib/y.log",
        "node_modules/m/index.js",
        "package.json",
        "untracked.c",
    ];
    assert_eq!(paths(root), expected);
    assert!(left_out(root).contains(&("secret/key".to_owned(), Why::KilnIgnore)));
    assert_eq!(git::ignored(root).unwrap(), ["Cargo.lock", "a/b.log", "lib/other.c"]);
}

#[test]
fn submodules_and_worktrees_are_decided_by_their_own_index() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    repository(&base.join("inner"), &[(".gitignore", "*.o\nout/\n"), ("i.c", ""), ("out/kept", "")], &["out/kept"]);
    let outer = base.join("outer");
    repository(&outer, &[(".gitignore", "deps/\n*.tmp\n"), ("o.c", "")], &[]);
    let url = base.join("inner").display().to_string();
    git(&outer, &["submodule", "--quiet", "add", "-f", &url, "deps/inner"]);
    git(&outer, &["submodule", "--quiet", "add", &url, "plain"]);
    git(&outer, &["commit", "-q", "-m", "two"]);
    write(&outer, "plain/a.o", "");
    let expected = [
        ".gitignore",
        ".gitmodules",
        "deps/inner/.gitignore",
        "deps/inner/i.c",
        "deps/inner/out/kept",
        "o.c",
        "plain/.gitignore",
        "plain/i.c",
        "plain/out/kept",
    ];
    assert_eq!(paths(&outer), expected);
    let tree = base.join("tree");
    git(&base.join("inner"), &["worktree", "add", "-q", &tree.display().to_string()]);
    assert_eq!(paths(&tree), [".gitignore", "i.c", "out/kept"]);
}

#[test]
fn the_repository_above_decides_too_but_nothing_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().canonicalize().unwrap();
    write(root, ".gitignore", "*\n");
    repository(&root.join("repository"), &[(".gitignore", "*.o\n"), ("part/a.c", "")], &[]);
    write(root, "repository/part/a.o", "");
    assert_eq!(paths(&root.join("repository/part")), ["a.c"]);
    // A project in a directory that the repository ignores does not belong to the repository.
    write(root, "repository/.gitignore", "*.o\nscratch/\n");
    write(root, "repository/scratch/p/a.o", "");
    assert_eq!(paths(&root.join("repository/scratch/p")), ["a.o"]);
}

#[test]
fn a_directory_of_kilns_output_is_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().canonicalize().unwrap();
    for path in ["a.c", "kiln-out/app", "other/out/app", "kiln-out/.kiln-output.json", "other/out/.kiln-output.json"] {
        write(root, path, "{}");
    }
    write(root, "mine/kiln-out/app", "");
    assert_eq!(paths(root), ["a.c", "mine/kiln-out/app"]);
}

#[test]
fn a_repository_that_git_will_not_read_is_an_error_and_not_a_guess() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().canonicalize().unwrap();
    repository(root, &[("a.c", "")], &[]);
    fs::write(root.join(".git/index"), "damaged").unwrap();
    let error = walk(root, &[]).unwrap_err();
    assert!(matches!(&error, Error::Git { .. }), "{error}");
    // An invalid one counts as none.
    fs::remove_dir_all(root.join(".git")).unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    assert_eq!(paths(root), ["a.c"]);
}

#[test]
fn what_no_worker_could_have_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = &dir.path().canonicalize().unwrap();
    write(root, "a/file", "");
    symlink("../gone/later", root.join("a/dangling")).unwrap();
    symlink("../a/../a/file", root.join("a/round")).unwrap();
    assert_eq!(paths(root), ["a/dangling", "a/file", "a/round"]);

    for target in ["../../etc", "/etc/passwd", "x/../../../y"] {
        let link = root.join("a/link");
        symlink(target, &link).unwrap();
        let error = walk(root, &[]).unwrap_err();
        assert!(matches!(&error, Error::Link { path, .. } if path == "a/link"), "{error}");
        fs::remove_file(link).unwrap();
    }

    let socket = std::os::unix::net::UnixListener::bind(root.join("a/socket")).unwrap();
    let error = walk(root, &[]).unwrap_err().to_string();
    assert!(error.contains("`a/socket` is a socket"), "{error}");
    drop(socket);
    fs::remove_file(root.join("a/socket")).unwrap();

    use std::os::unix::ffi::OsStrExt;
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"a/\xff")), "").unwrap();
    assert!(matches!(walk(root, &[]).unwrap_err(), Error::Name { .. }));
}

#[test]
fn equal_trees_have_equal_digests_and_the_executable_bit_counts() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &other] {
        write(dir.path(), "src/main.c", "int main(){}");
        write(dir.path(), "run", "#!/bin/sh");
    }
    fs::create_dir(one.path().join("empty")).unwrap();
    let digest = |dir: &tempfile::TempDir| scan(&options(dir.path(), None)).unwrap().digest;
    assert_eq!(digest(&one), digest(&other));
    fs::set_permissions(other.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(digest(&one), digest(&other));
}

#[test]
fn every_blob_of_the_tree_is_at_hand() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/b/c", "1");
    write(dir.path(), "a/d", "2");
    let scanned = scan(&options(dir.path(), None)).unwrap();
    assert_eq!((scanned.files, scanned.hashed, scanned.blobs().len()), (2, 2, 5));
    assert!(scanned.blobs().contains_key(&scanned.digest));
    assert!(matches!(scanned.blobs()[&DigestFunction::Sha256.digest(b"2")], Blob::File(_)));
}

#[test]
fn a_young_file_is_hashed_again_whatever_its_times_say() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), "a", "1");
    age(dir.path(), "a", 3600);
    let options = options(dir.path(), Some(cache.path()));
    assert_eq!(scan(&options).unwrap().hashed, 1);
    // Its ctime is too recent: another write in the same instant would be indistinguishable.
    assert_eq!(scan(&options).unwrap().hashed, 1);
}

fn stat(size: u64, at: i64) -> Stat {
    Stat { size, mtime_ns: at, ctime_ns: at, inode: 7, device: 1 }
}

#[test]
fn a_damaged_cache_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache");
    let mut cache = Cache::default();
    cache.push("a/b", stat(3, 5), [9; 32]);
    cache.push("c", stat(4, -6), [8; 32]);
    cache.save(&file).unwrap();
    let loaded = Cache::load(&file).unwrap();
    assert_eq!(loaded.len(), 2);
    let mut lookup = loaded.lookup();
    let found =
        ["a", "a/b", "b", "c", "d"].map(|path| lookup.get(path, &stat(3, 5)).or(lookup.get(path, &stat(4, -6))));
    assert_eq!(found, [None, Some([9; 32]), None, Some([8; 32]), None]);
    assert_eq!(loaded.lookup().get("a/b", &stat(3, 6)), None);
    let whole = fs::read(&file).unwrap();
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(Cache::load(&file).is_none());
        let mut flipped = whole.clone();
        flipped[cut] ^= 1;
        fs::write(&file, flipped).unwrap();
        assert!(Cache::load(&file).is_none());
    }
}

#[derive(Debug, Clone)]
enum Edit {
    Write(u8, u8),
    KeepingTimes(u8, u8),
    Remove(u8),
    Swap(u8, u8),
    Scan,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (0..4u8, 0..3u8).prop_map(|(file, content)| Edit::Write(file, content)),
        (0..4u8, 0..3u8).prop_map(|(file, content)| Edit::KeepingTimes(file, content)),
        (0..4u8).prop_map(Edit::Remove),
        (0..4u8, 0..4u8).prop_map(|(one, other)| Edit::Swap(one, other)),
        Just(Edit::Scan),
    ];
    proptest::collection::vec(edit, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Same sizes, times set back, files exchanged: the cached scan returns the same as the uncached one.
    #[test]
    fn the_cache_never_gives_a_stale_digest(edits in edits()) {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        let name = |file: u8| root.join(format!("f{file}"));
        write(root, "always", "there");
        for edit in edits.into_iter().chain([Edit::Scan]) {
            match edit {
                Edit::Write(file, content) => fs::write(name(file), [b'0' + content]).unwrap(),
                Edit::KeepingTimes(file, content) => {
                    fs::write(name(file), [b'0' + content]).unwrap();
                    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
                    fs::File::options().write(true).open(name(file)).unwrap().set_modified(at).unwrap();
                }
                Edit::Remove(file) => drop(fs::remove_file(name(file))),
                Edit::Swap(one, other) => drop(fs::rename(name(one), name(other))),
                Edit::Scan => {
                    let cached = scan(&options(root, Some(cache.path()))).unwrap();
                    let plain = scan(&options(root, None)).unwrap();
                    prop_assert_eq!(cached.digest, plain.digest);
                }
            }
        }
    }

    /// For any stat data then and now: a hash is returned only if all of it is equal and was settled.
    #[test]
    fn only_settled_and_equal_states_are_trusted(then in 0..6i64, now in 0..6i64, size in 0..3u64, settled in 0..6i64) {
        let mut cache = Cache::default();
        if stat(1, then).is_older_than(settled) {
            cache.push("a", stat(1, then), [1; 32]);
        }
        let trusted = cache.lookup().get("a", &stat(size, now)).is_some();
        prop_assert_eq!(trusted, then == now && size == 1 && then < settled);
    }
}

#[test]
fn a_context_has_what_git_ignores_with_modes_and_empty_directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("node_modules/a")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("out/kept")).unwrap();
    for path in [".gitignore", ".env", "node_modules/a/x", "out/gone", "out/kept/y", "private"] {
        fs::write(root.join(path), "*\n").unwrap();
    }
    fs::set_permissions(root.join("private"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let keeps = Keeps::new(|path, is_directory| match path {
        "out" if is_directory => Kept::IfNeeded,
        "out/gone" => Kept::No,
        _ => Kept::Yes,
    });
    let scanned = scan(&Options { files: Files::Context(keeps), ..options(root, None) }).unwrap();
    let expected = [
        ".env",
        ".gitignore",
        "empty",
        "link",
        "node_modules",
        "node_modules/a",
        "node_modules/a/x",
        "out/kept",
        "out/kept/y",
        "private",
        "socket",
    ];
    assert_eq!(scanned.paths, expected);
    assert_eq!(scanned.left_out, []);
    let Blob::Bytes(data) = &scanned.blobs()[&scanned.digest] else { panic!("a directory") };
    let directory: kiln_proto::reapi::Directory = prost::Message::decode(&data[..]).unwrap();
    let tree = Tree::from_directory(DigestFunction::Sha256, &directory).unwrap();
    assert!(matches!(tree.entries["private"], Entry::File { mode: Some(0o600), .. }), "{tree:?}");
    assert!(matches!(&tree.entries["link"], Entry::Symlink { target } if target == "/etc/passwd"));
    // As BuildKit sends it.
    assert!(matches!(&tree.entries["socket"], Entry::File { digest, .. } if digest.is_empty()), "{tree:?}");
}

#[test]
fn a_context_of_many_directories_is_read_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut expected = Vec::new();
    for number in 0..300 {
        let at = format!("a{}/b{}/c{number}", number % 3, number % 40);
        fs::create_dir_all(root.join(&at)).unwrap();
        fs::write(root.join(&at).join("x"), number.to_string()).unwrap();
        expected.push(format!("{at}/x"));
    }
    symlink("a0", root.join("link")).unwrap();
    expected.sort();
    let context = || Options { files: Files::Context(Keeps::default()), ..options(root, None) };
    let scanned = scan(&context()).unwrap();
    let files: Vec<String> = scanned.paths.iter().filter(|path| path.ends_with("/x")).cloned().collect();
    assert_eq!(files, expected, "each once, and none through the link");
    // One that cannot be sent ends the others.
    fs::write(root.join("a1/b1").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    let error = scan(&context()).unwrap_err();
    assert!(matches!(&error, Error::Name { path } if path.starts_with("a1/b1")), "{error:?}");
}

#[test]
fn a_large_tree_that_is_assembled_in_parts_is_the_same_as_one_in_a_piece() {
    let (function, mode) = (DigestFunction::Sha256, |number: usize| number.is_multiple_of(3).then_some(0o700));
    let mut found = Vec::new();
    // A directory, then what is between it and its files in the order of paths.
    for number in 0..3000 {
        let directory = |name: String| Found { path: name, kind: Kind::Directory { mode: mode(number) } };
        let file = |path: String| Found { path, kind: Kind::Empty { mode: None, executable: false } };
        let name = format!("x{}/y{number:04}", number / 500);
        found.push(directory(name.clone()));
        found.extend((0..2).map(|n| file(format!("{name}-{n}"))));
        found.extend((0..number % 4).map(|n| file(format!("{name}/{n}"))));
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 10_000, "enough for several threads");
    let mut tree = Tree::default();
    for one in &found {
        let entry = match &one.kind {
            Kind::Directory { mode } => Entry::Directory(Tree { mode: *mode, ..Tree::default() }),
            _ => Entry::file(Digest::empty(function), false),
        };
        tree.insert(&one.path, entry).unwrap();
    }
    let mut expected = std::collections::HashSet::new();
    let root = tree.encode(function, &mut |encoded| expected.extend([encoded.digest]));
    let (digest, directories) = assemble::tree(&found, &vec![None; found.len()], function).unwrap();
    assert_eq!(digest, root);
    assert_eq!(directories.iter().map(|encoded| encoded.digest).collect::<std::collections::HashSet<_>>(), expected);
}
