//! `--ssh`: keys that stay with whoever builds, used by commands on the farm.

use kiln_harness::ssh::{Agent, Server, programs};
use kiln_harness::{Farm, Ran, commit, copy, output, project, write};

use super::Project;

const USES: &str = "\
FROM base AS run
COPY root /
RUN --mount=type=ssh,required ssh-add -L > /held.pub && echo text > /data && ssh-keygen -q -Y sign -f /held.pub -n file /data
RUN --mount=type=ssh,id=file ssh-add -L > /file.pub && test \"$(wc -l < /file.pub)\" = 1
RUN --mount=type=ssh for attack in -D -x '-d /held.pub' '-s /lib/x.so'; do echo | ssh-add $attack && echo $attack >> /done; done; touch /done
USER app
RUN --mount=type=ssh,uid=1000,mode=0600 ssh-add -l > /tmp/own; stat -c '%F %a %u' $SSH_AUTH_SOCK >> /tmp/own
RUN --mount=type=ssh ssh-add -l > /tmp/others 2>&1 || true
RUN env | grep SSH_AUTH > /tmp/without; ls /run/buildkit >> /tmp/without 2>&1; true
FROM scratch
COPY --from=run /data /data.sig /held.pub /file.pub /done /tmp/own /tmp/others /tmp/without /
COPY --from=run /run /run
";

#[test]
fn commands_list_and_use_keys_that_stay_with_whoever_builds_and_do_nothing_else_to_them() {
    let (Some(agent), Some(project)) = (Agent::start(), Project::new(USES, &[])) else { return };
    let at = project.path();
    programs(&["ssh-add", "ssh-keygen"], &at.join("root"));
    let key = format!("file={}", agent.path("file").display());
    let build = |more: &[&str]| {
        let mut command = project.command(Farm::shared(), &[more, &["-o", "out", "."]].concat());
        command.env("SSH_AUTH_SOCK", agent.path("socket"));
        Ran::from(command)
    };
    let ran = build(&["--ssh", "default", "--ssh", &key]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let read = |name: &str| std::fs::read_to_string(at.join("out").join(name)).unwrap();
    let public = |name: &str| std::fs::read_to_string(agent.path(name)).unwrap();
    assert_eq!((read("held.pub"), read("file.pub")), (public("held.pub"), public("file.pub")));
    let check = "ssh-keygen -Y check-novalidate -n file -s data.sig < data";
    assert!(output("sh", &["-c", check], &at.join("out")).contains("Good"), "the signature is by the agent's key");
    assert_eq!(read("done"), "", "no key was removed, and nothing locked");
    assert!(agent.said(&["-l"]).contains("held"));
    let own = read("own");
    assert!(own.contains("held") && own.ends_with("socket 600 1000\n"), "{own}");
    assert!(!read("others").contains("ED25519"), "the socket is root's: {}", read("others"));
    assert!(!read("without").contains("SSH_AUTH_SOCK"), "{}", read("without"));
    assert_eq!(std::fs::read_dir(at.join("out/run")).unwrap().count(), 0, "nothing of sockets is in a layer");

    // Another agent has the same key of the action: whose it was is in none.
    let again = build(&["--ssh", "default", "--ssh", &key]);
    assert!(again.code == 0 && again.err.contains("; 0 instructions run, 6 cached"), "{}", again.err);
    // Nothing of a key file, and no agent, is left.
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("kiln-ssh-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_command_without_its_agent_is_refused_only_if_it_requires_it() {
    let text =
        "FROM base\nRUN --mount=type=ssh test -z \"$SSH_AUTH_SOCK\"\nRUN --mount=type=ssh,id=git,required true\n";
    let Some(project) = Project::new(text, &[]) else { return };
    let farm = Farm::shared();
    let refused = project.build(farm, &["."]);
    assert!(refused.code == 1 && refused.err.contains("the SSH agent `git` is required"), "{}", refused.err);
    assert!(refused.err.contains("`Dockerfile` line 3"), "{}", refused.err);
    let refused = |line: &[&str], words: &str| {
        let mut command = project.command(farm, line);
        command.env_remove("SSH_AUTH_SOCK");
        let ran = Ran::from(command);
        assert!(ran.code == 1 && ran.err.contains(words), "expected `{words}` in {}", ran.err);
    };
    refused(&["--ssh", "default", "."], "`SSH_AUTH_SOCK` is not set");
    refused(&["--ssh", "git=none", "."], "there is no `none`");
    refused(&["--ssh", "git=Dockerfile", "."], "the key `Dockerfile` cannot be used");
}

#[test]
fn a_project_gives_its_dockerfile_an_agent_too() {
    let Some(agent) = Agent::start() else { return };
    let Some(project) = Project::new("FROM base\nCOPY root /\nRUN --mount=type=ssh,required ssh-add -l\n", &[]) else {
        return;
    };
    let at = project.path();
    programs(&["ssh-add"], &at.join("root"));
    copy(project.base.path(), &at.join("base"));
    write(at, ".dockerignore", "base\n");
    let config =
        "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n";
    write(at, "kiln.toml", config);
    let farm = Farm::shared();
    let mut command = farm.build_command(at, &["--ssh", "default"]);
    command.env("SSH_AUTH_SOCK", agent.path("socket"));
    let built = kiln_harness::Built(Ran::from(command)).well();
    assert!(built.log().contains("held"), "{}", built.log());
    let without = farm.build(at, &["--no-cache"]);
    assert!(without.0.code == 1 && without.message().contains("give it by `--ssh default`"), "{}", without.message());
}

#[test]
fn a_repository_is_added_over_ssh_with_a_key_of_whoever_builds() {
    let Some(agent) = Agent::start() else { return };
    let Some(server) = Server::start(&agent.path("held.pub")) else { return };
    let repository = project(&[("file", "from afar\n"), ("below/other", "other\n")]);
    let head = commit(repository.path());
    // The machine's loopback, where the server is, is closed to steps otherwise.
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--network-isolation", "off"]);
    farm.wait_for_worker("one");
    let remote = server.url(repository.path());
    let dir =
        project(&[("Dockerfile", &format!("FROM scratch\nADD {remote} /all/\nADD {remote}#{head}:below /below/\n"))]);
    let build = |more: &[&str]| {
        let mut command =
            farm.command(&[&["docker", "build", "--progress", "plain", "-o", "out"], more, &["."]].concat());
        command.current_dir(dir.path()).env("SSH_AUTH_SOCK", agent.path("socket"));
        Ran::from(command)
    };
    let refused = build(&[]);
    let words = format!("`{remote}` is fetched over SSH, which needs an SSH agent: give it by `--ssh default`");
    assert!(refused.code == 1 && refused.err.contains(&words), "{}", refused.err);
    let stranger = build(&["--ssh", &format!("default={}", agent.path("file").display())]);
    assert!(stranger.code == 1 && stranger.err.contains("Permission denied (publickey"), "{}", stranger.err);
    let built = build(&["--ssh", "default"]);
    assert_eq!(built.code, 0, "{}", built.err);
    let read = |path: &str| std::fs::read_to_string(dir.path().join("out").join(path)).unwrap();
    assert_eq!((read("all/file"), read("below/other")), ("from afar\n".to_owned(), "other\n".to_owned()));
    let listed = output("find", &["-mindepth", "1"], &dir.path().join("out"));
    assert_eq!(listed.lines().count(), 6, "expected the repository's files and nothing else: {listed}");
    // A branch is asked again, and a commit is not.
    write(repository.path(), "file", "from afar, later\n");
    commit(repository.path());
    let again = build(&["--ssh", "default"]);
    assert!(again.code == 0 && again.err.contains("1 instruction run, 1 cached"), "{}", again.err);
    assert_eq!((read("all/file"), read("below/other")), ("from afar, later\n".to_owned(), "other\n".to_owned()));
}
