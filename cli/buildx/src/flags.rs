//! All flags of `docker build` and `docker buildx build`, and what Kiln makes of each.

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A value.
    Value,
    /// Nothing, or `=true` or `=false`.
    Bool,
}

/// What a flag is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It changes the build. The text is its help.
    Used(&'static str),
    /// It is accepted and changes nothing, as in BuildKit.
    Silent,
    /// It is accepted and changes nothing, which a note says.
    Noted(&'static str),
    /// It is refused, because the result would be another.
    Refused(&'static str),
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Its name, without dashes.
    pub(crate) name: &'static str,
    /// Its letter.
    pub(crate) short: Option<char>,
    /// What follows it.
    pub(crate) takes: Takes,
    /// What stands for its value in the help.
    pub(crate) value: &'static str,
    /// What it is for.
    pub(crate) effect: Effect,
}

const fn value(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Value, value, effect: Effect::Used(help) }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Bool, value: "", effect: Effect::Used(help) }
}

const fn without(name: &'static str, takes: Takes, effect: Effect) -> Flag {
    Flag { name, short: None, takes, value: "", effect }
}

const fn short(letter: char, flag: Flag) -> Flag {
    Flag { short: Some(letter), ..flag }
}

const LIMITS: Effect = Effect::Noted("the farm limits what commands may use");
const CACHE: Effect = Effect::Noted("the farm caches every step, for everybody");

/// The flags.
pub(crate) const FLAGS: &[Flag] = &[
    value("add-host", "NAME:ADDRESS", "a host that commands can resolve; the address is in no key"),
    value("allow", "NAME", "allow `network.host`"),
    value(
        "annotation",
        "[LEVEL[PLATFORM]:]KEY=VALUE",
        "annotate the manifest, index, manifest-descriptor or index-descriptor",
    ),
    value("attest", "type=TYPE[,…]", "attach an attestation: type=provenance,mode=min|max or type=sbom"),
    value("build-arg", "NAME[=VALUE]", "a value for an ARG; without a value it is taken from the environment"),
    value(
        "build-context",
        "NAME=CONTEXT",
        "a directory, docker-image://, oci-layout://, repository or archive by name",
    ),
    without("builder", Takes::Value, Effect::Noted("the farm is the builder; choose it with `KILN_FARM`")),
    without("cache-from", Takes::Value, CACHE),
    without("cache-to", Takes::Value, CACHE),
    value("call", "METHOD[,format=json]", "`build`, or what to do instead: `check`, `outline` or `targets`"),
    without("cgroup-parent", Takes::Value, LIMITS),
    switch("check", "the same as --call=check"),
    without("compress", Takes::Bool, Effect::Silent),
    without("cpu-period", Takes::Value, LIMITS),
    without("cpu-quota", Takes::Value, LIMITS),
    short('c', without("cpu-shares", Takes::Value, LIMITS)),
    without("cpuset-cpus", Takes::Value, LIMITS),
    without("cpuset-mems", Takes::Value, LIMITS),
    short('D', without("debug", Takes::Bool, Effect::Silent)),
    without("detach", Takes::Bool, Effect::Refused("use `kiln build --detach`")),
    short('f', value("file", "PATH", "the Dockerfile, relative to the current directory; `-` is standard input")),
    without("force-rm", Takes::Bool, Effect::Silent),
    value("iidfile", "PATH", "write the image's id to this file"),
    without("invoke", Takes::Value, Effect::Refused("the farm has no interactive debugger")),
    without("isolation", Takes::Value, Effect::Noted("every command runs in namespaces of its own")),
    value("label", "KEY=VALUE", "a label of the image"),
    switch("load", "load the image into the local Docker; the same as --output=type=docker"),
    short('m', value("memory", "SIZE", "how much memory a command may use, such as 4g; default: 2g")),
    without("memory-swap", Takes::Value, LIMITS),
    value("metadata-file", "PATH", "write what was built to this file, as JSON"),
    value("network", "MODE", "the network of commands: default, none or host"),
    switch("no-cache", "run every command again"),
    value("no-cache-filter", "STAGE", "run the commands of this stage again"),
    without("on", Takes::Value, Effect::Refused("the farm has no interactive debugger")),
    short(
        'o',
        value(
            "output",
            "DIR|-|type=TYPE[,…]",
            "where the result goes: local, tar, oci, docker, image, registry or cacheonly",
        ),
    ),
    value("platform", "A[,B]", "linux/amd64, linux/arm64, or both; default: this machine's"),
    without("policy", Takes::Value, Effect::Refused("source policies are not evaluated")),
    without("print", Takes::Value, Effect::Refused("use `--call`")),
    value("progress", "TYPE", "auto, plain, tty, quiet or rawjson"),
    value("provenance", "VALUE", "`false`, `true`, or mode=min|max; default: mode=min"),
    without("pull", Takes::Bool, Effect::Silent),
    switch("push", "push the image; the same as --output=type=registry"),
    short('q', switch("quiet", "print only the image's id")),
    without("resource", Takes::Value, LIMITS),
    without("rm", Takes::Bool, Effect::Silent),
    without("root", Takes::Value, Effect::Refused("there is no local build server")),
    value("sbom", "VALUE", "`true` attaches the bill of materials, as SPDX"),
    value("secret", "id=ID[,src=PATH|,env=NAME]", "a secret that commands can mount"),
    without("security-opt", Takes::Value, Effect::Noted("a Dockerfile says it for each command: `RUN --security=…`")),
    without("server-config", Takes::Value, Effect::Refused("there is no local build server")),
    without("shm-size", Takes::Value, LIMITS),
    without(
        "squash",
        Takes::Bool,
        Effect::Refused("each instruction is a layer; copy the files into a last stage instead"),
    ),
    value("ssh", "default|ID[=PATH]", "an SSH agent for `RUN --mount=type=ssh`, or keys; they stay on this machine"),
    without("stream", Takes::Bool, Effect::Silent),
    short('t', value("tag", "NAME[:TAG]", "a name of the image; repeatable")),
    value("target", "STAGE", "the stage to build; default: the last one"),
    without("ulimit", Takes::Value, LIMITS),
];

/// The flag of this name.
pub(crate) fn by_name(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The flag of this letter.
pub(crate) fn by_letter(letter: char) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.short == Some(letter))
}

/// The help of `kiln docker build`.
pub(crate) fn help() -> String {
    let mut text = "Build an image as `docker build` and `docker buildx build` do, on the farm\n\n\
                    Usage: kiln docker [buildx] build [OPTIONS] PATH | URL | -\n\n\
                    The context is a directory, a repository (`https://….git#REF:DIRECTORY`), the URL of an archive, or `-`: an archive or a\n\
                    Dockerfile on standard input.\n\nOptions:\n"
        .to_owned();
    let mut noted = Vec::new();
    for flag in FLAGS {
        let Effect::Used(words) = flag.effect else {
            noted.push(format!("--{}", flag.name));
            continue;
        };
        let letter = flag.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
        text.push_str(&format!("  {letter}--{}{value}\n          {words}\n", flag.name));
    }
    text.push_str("\nAccepted without effect, or refused with the reason:\n");
    for line in noted.chunks(6) {
        text.push_str(&format!("  {}\n", line.join(" ")));
    }
    text.push_str(
        "\nVariables: BUILDKIT_PROGRESS, BUILDX_NO_DEFAULT_ATTESTATIONS, BUILDX_METADATA_PROVENANCE, DOCKER_DEFAULT_PLATFORM,\n\
         SOURCE_DATE_EPOCH, and KILN_FARM, which chooses the farm.\n\
         Exit codes: 0 success, 1 the build or the request failed, 3 the farm failed, 125 invalid flags, 130 cancelled.\n\n\
         Example: kiln docker build -t registry.example/team/shop:1.4 --push .\n",
    );
    text
}
