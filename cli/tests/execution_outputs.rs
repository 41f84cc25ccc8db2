//! Remote Execution v2: what a command finds, and what it leaves, on a farm of processes. One test for each behaviour.

#![allow(clippy::unwrap_used)]

use kiln_harness::remote::{Caller, caller, code, shell};
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use prost::Message;
use reapi::command::OutputDirectoryFormat as Format;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_blob_is_always_materialised() {
    let caller = caller().await;
    let mut command = shell("test -f none -a ! -s none && test -d nothing && cp none out", &["out"]);
    command.working_directory = String::new();
    // Neither the empty file nor the empty directory's message was ever uploaded to this farm as a blob.
    let empty = Digest::empty(caller.function).to_wire();
    let root = reapi::Directory {
        files: vec![reapi::FileNode { name: "none".into(), digest: Some(empty.clone()), ..Default::default() }],
        directories: vec![reapi::DirectoryNode { name: "nothing".into(), digest: Some(empty.clone()) }],
        ..Default::default()
    };
    let root = caller.put(root.encode_to_vec()).await;
    let action = caller.action(command, &[], |action| action.input_root_digest = Some(root.to_wire())).await;
    let result = caller.execute(&action).await.result.unwrap();
    assert_eq!(result.exit_code, 0, "{}", caller.text(&result.stderr_digest).await);
    assert_eq!(result.output_files[0].digest, Some(empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_paths_replace_the_older_lists() {
    let caller = caller().await;
    let mut command = shell("mkdir -p old; echo o > old/file; echo n > new", &["new"]);
    #[allow(deprecated)]
    {
        command.output_files = vec!["old/file".into()];
        command.output_directories = vec!["old".into()];
    }
    let result = caller.run(command, &[]).await.result.unwrap();
    let paths: Vec<&str> = result.output_files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!((paths, result.output_directories.len()), (vec!["new"], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_where_a_legacy_file_was_asked_for_is_a_failed_precondition() {
    let caller = caller().await;
    let mut command = shell("mkdir out", &[]);
    #[allow(deprecated)]
    {
        command.output_files = vec!["out".into()];
    }
    let response = caller.run(command, &[]).await;
    assert_eq!(code(&response), Code::FailedPrecondition, "{:?}", response.status);
    assert!(response.status.unwrap().message.contains("`out` is a directory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn symbolic_links_are_named_for_new_clients_and_in_the_two_older_lists_for_old_ones() {
    let caller = caller().await;
    let script = "mkdir d; echo f > f; ln -s f to-file; ln -s d to-directory; ln -s nowhere dangling";
    let paths = |links: &[reapi::OutputSymlink]| links.iter().map(|link| link.path.clone()).collect::<Vec<_>>();
    let new = caller.run(shell(script, &["dangling", "to-directory", "to-file"]), &[]).await.result.unwrap();
    assert_eq!(paths(&new.output_symlinks), ["dangling", "to-directory", "to-file"]);
    #[allow(deprecated)]
    {
        assert!(new.output_file_symlinks.is_empty() && new.output_directory_symlinks.is_empty());
        let mut command = shell("", &[]);
        command.output_files = vec!["to-file".into()];
        command.output_directories = vec!["linked".into()];
        command.arguments[2] = "mkdir d; echo f > f; ln -s f to-file; rmdir linked; ln -s d linked".into();
        let old = caller.run(command, &[]).await.result.unwrap();
        assert_eq!(
            (paths(&old.output_file_symlinks), paths(&old.output_directory_symlinks)),
            (vec!["to-file".to_owned()], vec!["linked".to_owned()])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_links_are_allowed_as_advertised_in_inputs_and_in_outputs() {
    let caller = caller().await;
    let link = reapi::SymlinkNode { name: "abs".into(), target: "/etc/passwd".into(), ..Default::default() };
    let root = caller.put(reapi::Directory { symlinks: vec![link], ..Default::default() }.encode_to_vec()).await;
    let command = shell("cp -P abs out", &["out"]);
    let action = caller.action(command, &[], |action| action.input_root_digest = Some(root.to_wire())).await;
    let result = caller.execute(&action).await.result.unwrap();
    assert_eq!(result.output_symlinks[0].target, "/etc/passwd");
}

async fn directory(caller: &Caller, format: Format) -> reapi::OutputDirectory {
    let mut command = shell("mkdir -p out/a/deep out/b/deep; echo x > out/a/deep/x; echo x > out/b/deep/x", &["out"]);
    command.output_directory_format = format as i32;
    caller.run(command, &[]).await.result.unwrap().output_directories.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_directory_comes_in_the_format_that_was_asked_for() {
    let caller = caller().await;
    for (format, tree, root) in
        [(Format::TreeOnly, true, false), (Format::DirectoryOnly, false, true), (Format::TreeAndDirectory, true, true)]
    {
        let out = directory(&caller, format).await;
        assert_eq!((out.tree_digest.is_some(), out.root_directory_digest.is_some()), (tree, root), "{format:?}");
        assert_eq!(out.is_topologically_sorted, tree, "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_are_deterministic_and_parents_come_before_their_children_once_each() {
    let caller = caller().await;
    let (one, two) = (directory(&caller, Format::TreeOnly).await, directory(&caller, Format::TreeOnly).await);
    assert_eq!(one, two, "expected two runs to produce the same tree");
    let digest = Digest::required(caller.function, one.tree_digest.as_ref()).unwrap();
    let data = caller.blobs.get(&digest).await.unwrap();
    let tree = reapi::Tree::decode(data.clone()).unwrap();
    assert_eq!(tree.encode_to_vec(), data, "expected the canonical encoding");
    // `out/a` and `out/b` are the same directory, and so are the two below.
    assert_eq!(tree.children.len(), 2);
    let named = |directory: &reapi::Directory| directory.directories[0].digest.clone().unwrap();
    let of = |directory: &reapi::Directory| caller.function.digest_message(directory).to_wire();
    assert_eq!(named(tree.root.as_ref().unwrap()), of(&tree.children[0]));
    assert_eq!(named(&tree.children[0]), of(&tree.children[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_found_by_an_absolute_path_relative_to_the_working_directory_or_by_the_commands_path() {
    let caller = caller().await;
    let script = "#!/bin/sh\necho found\n";
    for (program, path) in [("/bin/echo", None), ("./tool", None), ("bin/tool", None), ("tool", Some("bin"))] {
        let mut command = shell("", &[]);
        command.arguments = vec![program.into(), "found".into()];
        command.working_directory = "work".into();
        if let Some(path) = path {
            let value = format!("{path}:/usr/bin:/bin");
            command.environment_variables.push(reapi::command::EnvironmentVariable { name: "PATH".into(), value });
        }
        let digest = caller.put(script.into()).await;
        let mut tree = kiln_trees::tree::Tree::default();
        for at in ["work/tool", "work/bin/tool"] {
            tree.insert(at, kiln_trees::tree::Entry::file(digest, true)).unwrap();
        }
        let mut messages = Vec::new();
        let root = tree.encode(caller.function, &mut |encoded| messages.push(encoded.data));
        for message in messages {
            caller.put(message).await;
        }
        let action = caller.action(command, &[], |action| action.input_root_digest = Some(root.to_wire())).await;
        let response = caller.execute(&action).await;
        let result = response.result.unwrap_or_else(|| panic!("`{program}`: {:?}", response.status));
        let out = caller.text(&result.stdout_digest).await;
        assert_eq!((result.exit_code, out.as_str()), (0, "found\n"), "`{program}`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_output_node_properties_are_invalid() {
    let caller = caller().await;
    let mut command = shell("true", &[]);
    command.output_node_properties = vec!["mtime".into()];
    let action = caller.action(command, &[], |_| ()).await;
    let status = caller.start(&action, false).await.expect_err("a refusal");
    assert!(status.code() == Code::InvalidArgument && status.message().contains("`mtime`"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_too_deep_is_a_failed_precondition_that_names_it_and_the_worker_goes_on() {
    let caller = caller().await;
    // Deeper than the maximum length of a path: such a tree is only reachable one level at a time.
    let deep = |levels: u32| {
        format!("mkdir out && cd out && i=0; while [ $i -lt {levels} ]; do mkdir d && cd d; i=$((i+1)); done")
    };
    let response = caller.run(shell(&deep(3_000), &["out"]), &[]).await;
    let status = response.status.clone().unwrap();
    assert_eq!(code(&response), Code::FailedPrecondition, "{status:?}");
    assert!(status.message.contains("output `out` is deeper than 512 directories"), "{}", status.message);
    let allowed = caller.run(shell(&deep(511), &["out"]), &[]).await;
    assert_eq!((code(&allowed), allowed.result.unwrap().output_directories.len()), (Code::Ok, 1));
}
