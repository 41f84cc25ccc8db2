use std::fs;

use super::*;

fn staged(output: &Output, files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = output.staging().unwrap();
    let root = dir.path().join("new");
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (dir, root)
}

fn place(output: &Output, name: &str, content: &str, files: &[(&str, &str)]) -> Result<Placed, Error> {
    let (_dir, root) = staged(output, files);
    output.place(name, &root, content, "app@1")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_kiln_wrote_is_replaced_and_a_new_directory_is_ignored_by_git() {
    let dir = tempfile::tempdir().unwrap();
    let output = Output::new(&dir.path().join("deep/out"), Some(&dir.path().canonicalize().unwrap())).unwrap();
    assert_eq!(place(&output, "app", "one", &[("a", "1"), ("b/c", "2")]).unwrap().kept, None);
    assert_eq!(output.current("app", "one"), Some(output.dir().join("app")));
    assert_eq!(output.current("app", "two"), None);
    assert_eq!(place(&output, "app", "two", &[("a", "3")]).unwrap().kept, None);
    assert_eq!(names(&output.dir().join("app")), ["a"]);
    assert_eq!(names(output.dir()), [".gitignore", ".kiln-output.json", "app"]);
    assert_eq!(fs::read_to_string(output.dir().join(".gitignore")).unwrap(), "*\n");
}

#[test]
fn what_kiln_did_not_write_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let output = Output::new(dir.path(), None).unwrap();
    fs::create_dir(dir.path().join("app")).unwrap();
    fs::write(dir.path().join("app/mine"), "1").unwrap();
    std::os::unix::fs::symlink("app", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("file"), "2").unwrap();
    for name in ["app", "link", "file"] {
        let error = place(&output, name, "one", &[("a", "1")]).unwrap_err();
        assert!(matches!(&error, Error::InTheWay { path, .. } if path.ends_with(name)), "{error}");
        assert!(error.to_string().contains("kiln fetch app@1"), "{error}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("app/mine")).unwrap(), "1");
    assert_eq!(names(dir.path()), ["app", "file", "link"]);
}

#[test]
fn what_somebody_changed_since_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let output = Output::new(&dir.path().join("out"), None).unwrap();
    place(&output, "app", "one", &[("a", "1")]).unwrap();
    fs::create_dir(output.dir().join("app/__pycache__")).unwrap();
    fs::write(output.dir().join("app/__pycache__/a.pyc"), "x").unwrap();
    assert!(output.current("app", "one").is_some(), "byte code is nobody's work");
    fs::write(output.dir().join("app/notes"), "mine").unwrap();
    assert_eq!(output.current("app", "one"), None);
    let kept = place(&output, "app", "one", &[("a", "1")]).unwrap().kept.unwrap();
    assert_eq!(fs::read_to_string(kept.join("notes")).unwrap(), "mine");
    fs::write(output.dir().join("app/a"), "edited").unwrap();
    let second = place(&output, "app", "two", &[("a", "2")]).unwrap().kept.unwrap();
    assert_ne!(kept, second);
    assert_eq!(fs::read_to_string(second.join("a")).unwrap(), "edited");
}

#[test]
fn a_source_tree_is_not_written_to_but_in_a_directory_of_kilns_own() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().canonicalize().unwrap().join("tree");
    fs::create_dir_all(tree.join("src")).unwrap();
    fs::write(tree.join("src/main.c"), "").unwrap();
    for above in [tree.clone(), dir.path().to_owned(), tree.join("src/..")] {
        let error = Output::new(&above, Some(&tree)).unwrap_err();
        assert!(matches!(error, Error::AboveSource { .. }), "{error}");
    }
    let error = Output::new(&tree.join("src"), Some(&tree)).unwrap_err();
    assert!(matches!(&error, Error::NotOwn { found, .. } if found == "main.c"), "{error}");
    let own = Output::new(&tree.join("out"), Some(&tree)).unwrap();
    place(&own, "app", "one", &[("a", "1")]).unwrap();
    Output::new(&tree.join("out"), Some(&tree)).unwrap();
    std::os::unix::fs::symlink("src", tree.join("alias")).unwrap();
    assert!(matches!(Output::new(&tree.join("alias"), Some(&tree)), Err(Error::NotOwn { .. })));
}
