//! What single instructions mean.

use kiln_dockerfile::instruction::{CommandLine, Instruction, Kind, Network};
use kiln_dockerfile::parse;

fn instruction(text: &str) -> Instruction {
    let file =
        parse("Dockerfile", &format!("FROM a\n{text}\n")).unwrap_or_else(|error| panic!("{}", error.render(false)));
    file.stages[0].instructions[0].clone()
}

#[test]
fn from_has_a_base_a_name_and_a_platform() {
    let file = parse("Dockerfile", "ARG A=1 B\nFROM --platform=linux/arm64 base:1 as Build\n").unwrap();
    let stage = &file.stages[0];
    assert_eq!((stage.from.base.value.as_str(), stage.name.as_deref()), ("base:1", Some("build")));
    assert_eq!(stage.from.platform.as_ref().unwrap().value, "linux/arm64");
    assert_eq!(file.arguments.len(), 2);
}

#[test]
fn copy_and_add_have_their_flags() {
    let Kind::Copy(copy) = instruction(
        "COPY --from=b --chown=1:2 --chmod=755 --link --parents=TRUE --exclude=*.o --exclude=x/** a b* /c/",
    )
    .kind
    else {
        panic!()
    };
    assert_eq!(copy.from.unwrap().value, "b");
    assert_eq!((copy.chown.unwrap().value.as_str(), copy.chmod.unwrap().value.as_str()), ("1:2", "755"));
    assert!(copy.link && copy.parents);
    assert_eq!(copy.excludes.iter().map(|word| word.value.as_str()).collect::<Vec<_>>(), ["*.o", "x/**"]);
    assert_eq!(copy.sources.iter().map(|word| word.value.as_str()).collect::<Vec<_>>(), ["a", "b*"]);
    assert_eq!(copy.destination.value, "/c/");
    let Kind::Add(add) = instruction("ADD --keep-git-dir=false --checksum=x --unpack a b").kind else { panic!() };
    assert_eq!((add.keep_git_dir, add.unpack, add.link), (Some(false), Some(true), false));
    for (text, flag) in
        [("COPY --unpack a b", "--unpack"), ("ADD --from=x a b", "--from"), ("ADD --parents a b", "--parents")]
    {
        let error = parse("Dockerfile", &format!("FROM a\n{text}")).unwrap_err();
        assert!(error.message().starts_with(&format!("unknown flag `{flag}`")), "{error}");
    }
}

#[test]
fn copy_takes_files_from_heredocs() {
    let text = "COPY <<one <<-\"two\" file /dir/\na $X\none\n\tb $X\n\ttwo";
    let Kind::Copy(copy) = instruction(text).kind else { panic!() };
    let files: Vec<_> = copy.inline.iter().map(|f| (&*f.name.value, &*f.data, f.expands)).collect();
    assert_eq!(files, [("one", "a $X\n", true), ("two", "b $X\n", false)]);
    assert_eq!(copy.sources.len(), 1);
    let Kind::Copy(copy) = instruction(r#"COPY ["<<EOF", "/x"]"#).kind else { panic!() };
    assert_eq!((copy.sources.len(), copy.inline.len()), (1, 0), "the JSON form has no heredocs");
}

#[test]
fn commands_are_texts_or_lists() {
    let Kind::Run(run) = instruction("RUN --network=host --security=sandbox make all").kind else { panic!() };
    assert_eq!(run.network, Network::Host);
    assert!(matches!(run.command, CommandLine::Shell(text) if text.value == "make all"));
    assert!(matches!(instruction("CMD [\"a\"]").kind, Kind::Cmd(CommandLine::Exec(words)) if words.len() == 1));
    assert!(matches!(instruction("entrypoint a b").kind, Kind::Entrypoint(CommandLine::Shell(_))));
    assert!(matches!(instruction("CMD []").kind, Kind::Cmd(CommandLine::Exec(words)) if words.is_empty()));
    assert!(matches!(instruction("RUN").kind, Kind::Run(_)), "an empty command is the shell's");
}

#[test]
fn a_health_check_has_times_and_a_command() {
    let text =
        "HEALTHCHECK --interval=1m --timeout=1.5s --start-period=2s --start-interval=100ms --retries=4 CMD curl -f x";
    let Kind::Healthcheck(check) = instruction(text).kind else { panic!() };
    assert_eq!((check.interval, check.timeout), (60_000_000_000, 1_500_000_000));
    assert_eq!((check.start_period, check.start_interval, check.retries), (2_000_000_000, 100_000_000, 4));
    assert_eq!(check.test, ["CMD-SHELL", "curl -f x"]);
    let Kind::Healthcheck(check) = instruction("HEALTHCHECK CMD [\"a\", \"b\"]").kind else { panic!() };
    assert_eq!(check.test, ["CMD", "a", "b"]);
    let Kind::Healthcheck(check) = instruction("HEALTHCHECK --interval=1m none").kind else { panic!() };
    assert_eq!((check.test[0].as_str(), check.interval), ("NONE", 0));
}

#[test]
fn onbuild_stores_its_instruction_as_text() {
    let stored = |text: &str| match instruction(text).kind {
        Kind::Onbuild(stored, _) => stored,
        other => panic!("{other:?}"),
    };
    assert_eq!(stored("onbuild  RUN --mount=type=tmpfs,target=/x a \\\n b"), "RUN --mount=type=tmpfs,target=/x a  b");
    assert_eq!(stored("ONBUILD RUN <<EOF cat\nx\nEOF"), "RUN <<EOF cat\nx\nEOF");
}

#[test]
fn ports_are_sorted_and_flags_of_arg_and_stopsignal_have_no_effect() {
    let Kind::Expose(ports) = instruction("EXPOSE 90 80/udp 8000-8001").kind else { panic!() };
    assert_eq!(ports.iter().map(|port| port.value.as_str()).collect::<Vec<_>>(), ["80/udp", "8000-8001", "90"]);
    assert!(matches!(instruction("ARG --x=y A").kind, Kind::Arg(args) if args.len() == 1));
    assert!(matches!(instruction("STOPSIGNAL --x=y 9").kind, Kind::Stopsignal(word) if word.value == "9"));
}
