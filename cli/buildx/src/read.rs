//! From flags and variables to a request.

use std::collections::BTreeMap;

use kiln_dockerfile::{NamedContext, Platform};

use crate::annotation::Annotation;
use crate::attest::Attestations;
use crate::call::{self, Call, Method};
use crate::csv::{boolean, fields};
use crate::error::{Error, hint};
use crate::flags::{Effect, Flag};
use crate::output::{self, Format, Output, Place, Said};
use crate::request::{Network, Progress, Request};
use crate::scan::Given;
use crate::secret;

const PROGRESS: [&str; 6] = ["auto", "plain", "tty", "quiet", "rawjson", "none"];
/// The time of what is built, in the environment and as a build argument.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The value of a variable; none if it is not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What flags say together.
#[derive(Default)]
struct Together {
    said: Said,
    push: bool,
    load: bool,
    progress: Option<String>,
    platforms: Vec<String>,
}

/// The request of these flags.
pub(crate) fn read(given: Given, variables: Variables<'_>) -> Result<Request, Error> {
    let [context] = given.arguments.as_slice() else { return Err(Error::Arguments(given.arguments.len())) };
    let mut request = Request {
        context: context.clone(),
        file: None,
        target: None,
        build_args: BTreeMap::new(),
        contexts: BTreeMap::new(),
        secrets: Vec::new(),
        ssh: Vec::new(),
        platforms: Vec::new(),
        tags: Vec::new(),
        outputs: Vec::new(),
        format: Format::default(),
        no_cache: false,
        no_cache_stages: Vec::new(),
        labels: BTreeMap::new(),
        annotations: Vec::new(),
        hosts: Vec::new(),
        network: Network::Default,
        memory_bytes: None,
        call: Call::default(),
        id_file: None,
        metadata_file: None,
        attestations: Attestations::new(
            variables("BUILDX_NO_DEFAULT_ATTESTATIONS").and_then(|text| boolean(&text)).unwrap_or(false),
        ),
        quiet: false,
        progress: Progress::default(),
        notes: Vec::new(),
    };
    let mut together = Together::default();
    for (flag, value) in &given.flags {
        match flag.effect {
            Effect::Used(_) => take(&mut request, &mut together, flag, value, variables)?,
            Effect::Silent => {}
            Effect::Noted(why) => note(&mut request, flag.name, why),
            Effect::Refused(why) if value != "false" => return Err(Error::refused(&format!("--{}", flag.name), why)),
            Effect::Refused(_) => {}
        }
    }
    finish(&mut request, together, variables)?;
    Ok(request)
}

fn note(request: &mut Request, flag: &str, why: &str) {
    let text = format!("`--{flag}` has no effect: {why}");
    if !request.notes.contains(&text) {
        request.notes.push(text);
    }
}

fn take(
    request: &mut Request,
    together: &mut Together,
    flag: &Flag,
    value: &str,
    variables: Variables<'_>,
) -> Result<(), Error> {
    let text = || Some(value.to_owned()).filter(|text| !text.is_empty());
    let truth = value == "true";
    match flag.name {
        "add-host" => {
            for one in fields(value).map_err(|reason| Error::value("--add-host", reason))? {
                request.hosts.push(host(&one)?);
            }
        }
        "allow" => {
            for one in value.split(',') {
                match one {
                    // Whether commands get a worker's network is the worker's decision.
                    "network.host" => {}
                    // What of this machine buildx may read and write: Kiln reads what the command line names, and nothing else.
                    one if one.starts_with("fs") || one == "ssh" => {}
                    other => {
                        return Err(Error::refused("--allow", format!("`{other}`: commands get no such privileges")));
                    }
                }
            }
        }
        "annotation" => {
            let found = Annotation::read(value).map_err(|reason| Error::value("--annotation", reason))?;
            request.annotations.extend(found);
        }
        "attest" => request.attestations.read("--attest", None, value)?,
        "provenance" => request.attestations.read("--provenance", Some("provenance"), value)?,
        "sbom" => request.attestations.read("--sbom", Some("sbom"), value)?,
        "build-arg" => {
            let (name, value) = pair("--build-arg", value)?;
            // As `docker build` does: a variable that is not set is no argument.
            if let Some(value) = value.or_else(|| variables(&name)) {
                request.build_args.insert(name, value);
            }
        }
        "build-context" => {
            let (name, context) = pair("--build-context", value)?;
            let context = context.filter(|context| !context.is_empty());
            let context = context.ok_or_else(|| Error::value("--build-context", "expected NAME=CONTEXT"))?;
            NamedContext::read(&context)
                .map_err(|reason| Error::value("--build-context", format!("`{name}`: {reason}")))?;
            request.contexts.insert(name, context);
        }
        "call" => request.call = call::read(value)?,
        "check" if truth => request.call = Call { method: Method::Check, ..request.call },
        "check" => {}
        "file" => request.file = text(),
        "iidfile" => request.id_file = text(),
        "label" => {
            let (name, value) = pair("--label", value)?;
            request.labels.insert(name, value.unwrap_or_default());
        }
        "load" => together.load = truth,
        "memory" => request.memory_bytes = memory(value)?,
        "metadata-file" => request.metadata_file = text(),
        "network" => {
            request.network = match value {
                "" | "default" | "bridge" => Network::Default,
                "none" => Network::None,
                "host" => Network::Host,
                other => {
                    let hint = hint(other, ["default", "none", "host"]);
                    let reason = format!("unknown network `{other}`{hint}; expected `default`, `none` or `host`");
                    return Err(Error::value("--network", reason));
                }
            };
        }
        "no-cache" => request.no_cache = truth,
        "no-cache-filter" => request.no_cache_stages.extend(value.split(',').map(str::to_owned)),
        "output" => {
            let output = output::read(value, &mut request.format, &mut together.said)?;
            request.outputs.push(output);
        }
        "platform" => together.platforms.extend(value.split(',').map(|one| one.trim().to_owned())),
        "progress" => together.progress = text(),
        "push" => together.push = truth,
        "quiet" => request.quiet = truth,
        "secret" => request.secrets.push(secret::read(value)?),
        "ssh" => request.ssh.push(secret::read_ssh(value)?),
        "tag" => request.tags.push(value.to_owned()),
        "target" => request.target = text(),
        // The table has no other flag that is used, which a test ensures.
        _ => {}
    }
    Ok(())
}

/// A size as Docker writes it: a number of bytes, or of `k`, `m`, `g` or `t`, which count in 1024. None: 0, which is no limit of its own.
fn memory(text: &str) -> Result<Option<u64>, Error> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
    let shift = match unit {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1_u64.checked_shl(shift)?));
    match bytes {
        Some(0) => Ok(None),
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Error::value("--memory", format!("`{text}`: expected a size such as `512m` or `4g`"))),
    }
}

fn pair(flag: &'static str, text: &str) -> Result<(String, Option<String>), Error> {
    match text.split_once('=') {
        Some(("", _)) => Err(Error::value(flag, "no name before `=`")),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None if text.is_empty() => Err(Error::value(flag, "no name")),
        None => Ok((text.to_owned(), None)),
    }
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address can be in brackets.
fn host(text: &str) -> Result<(String, String), Error> {
    let invalid = |reason: String| Error::value("--add-host", reason);
    let parted = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = parted.ok_or_else(|| invalid(format!("`{text}`: expected NAME:ADDRESS")))?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(invalid(format!("`{name}` is not the name of a host")));
    }
    if address == "host-gateway" {
        let reason = "`host-gateway`: commands run on workers, which cannot reach this machine by it; use an address";
        return Err(Error::refused("--add-host", reason));
    }
    address.parse::<std::net::IpAddr>().map_err(|_| invalid(format!("`{address}` is not an address")))?;
    Ok((name.to_owned(), address.to_owned()))
}

fn finish(request: &mut Request, together: Together, variables: Variables<'_>) -> Result<(), Error> {
    let Together { mut said, push, load, progress, platforms } = together;
    let platforms = match variables("DOCKER_DEFAULT_PLATFORM").filter(|text| !text.is_empty()) {
        Some(text) if platforms.is_empty() => vec![text],
        _ => platforms,
    };
    for text in platforms {
        let platform = platform(&text)?;
        if let Some(platform) = platform.filter(|platform| !request.platforms.contains(platform)) {
            request.platforms.push(platform);
        }
    }
    if request.file.as_deref() == Some("-") && request.context == "-" {
        return Err(Error::Together("the Dockerfile and the context cannot both be standard input".to_owned()));
    }
    outputs(request, push, load)?;
    request.annotations.append(&mut said.annotations);
    request.tags.extend(said.names.into_iter().filter(|name| !name.is_empty()));
    let epoch = said.epoch.or_else(|| variables(EPOCH)).filter(|text| !text.is_empty());
    if let (Some(epoch), false) = (epoch, request.build_args.contains_key(EPOCH)) {
        request.build_args.insert(EPOCH.to_owned(), epoch);
    }
    let progress = progress.or_else(|| variables("BUILDKIT_PROGRESS").filter(|text| !text.is_empty()));
    request.progress = match progress.as_deref() {
        None | Some("auto") => Progress::Auto,
        Some("plain") => Progress::Plain,
        Some("tty") => Progress::Tty,
        Some("quiet" | "none") => Progress::Quiet,
        Some("rawjson") => Progress::RawJson,
        Some(other) => {
            let reason =
                format!("unknown type `{other}`{}; expected one of {}", hint(other, PROGRESS), PROGRESS.join(", "));
            return Err(Error::value("--progress", reason));
        }
    };
    if request.quiet && !matches!(request.progress, Progress::Auto | Progress::Quiet) {
        let shown = progress.unwrap_or_default();
        return Err(Error::Together(format!("`--progress={shown}` and `--quiet` exclude each other")));
    }
    // As with buildx, the quiet display prints the image's id too.
    request.quiet |= request.progress == Progress::Quiet;
    for variable in ["DOCKER_BUILDKIT", "BUILDX_BUILDER", "BUILDX_CONFIG"] {
        if variables(variable).is_some_and(|value| variable != "DOCKER_BUILDKIT" && !value.is_empty() || value == "0") {
            request.notes.push(format!("`{variable}` has no effect: the farm is the builder"));
        }
    }
    Ok(())
}

/// `--push` and `--load` are outputs, or say more of one.
fn outputs(request: &mut Request, push: bool, load: bool) -> Result<(), Error> {
    let has_image = request.outputs.iter().any(|output| matches!(output, Output::Image { .. }));
    if push {
        for output in &mut request.outputs {
            if let Output::Image { push, .. } = output {
                *push = true;
            }
        }
        if !has_image {
            request.outputs.push(Output::Image { push: true, by_digest: false, insecure: false });
        }
    }
    if load && !request.outputs.contains(&Output::Docker(None)) {
        request.outputs.push(Output::Docker(None));
    }
    let stdout = request.outputs.iter().filter(|output| match output {
        Output::Local(files) | Output::Tar(files) => files.to == Place::Stdout,
        Output::Oci { to, .. } | Output::Docker(Some(to)) => *to == Place::Stdout,
        _ => false,
    });
    let stdout = stdout.count();
    if stdout > 1 {
        return Err(Error::Together("only one output can go to standard output".to_owned()));
    }
    if stdout > 0 && request.quiet {
        return Err(Error::Together(
            "`--quiet` prints the image's id where the output goes; write it to a file".to_owned(),
        ));
    }
    if request.outputs.iter().any(|output| matches!(output, Output::Local(_) | Output::Tar(_)))
        && request.id_file.is_some()
    {
        let words = "the outputs `local` and `tar` have no image's id for `--iidfile`".to_owned();
        return Err(Error::Together(words));
    }
    if request.platforms.len() > 1 && request.outputs.iter().any(|output| matches!(output, Output::Docker(_))) {
        let words =
            "Docker takes an image for one platform; use `--push` or `--output type=oci` for several".to_owned();
        return Err(Error::Together(words));
    }
    Ok(())
}

/// A platform as Kiln names it; none for this machine's.
fn platform(text: &str) -> Result<Option<String>, Error> {
    if matches!(text, "" | "local") {
        return Ok(None);
    }
    let platform =
        Platform::read(text, &Platform::linux("amd64")).map_err(|reason| Error::value("--platform", reason))?;
    let variant = matches!(
        (platform.architecture.as_str(), platform.variant.as_str()),
        ("amd64" | "arm64", "") | ("arm64", "v8")
    );
    if platform.os != "linux" || !variant {
        let reason = format!("`{text}`: Kiln builds for `linux/amd64` and `linux/arm64`");
        return Err(Error::refused("--platform", reason));
    }
    Ok(Some(format!("linux/{}", platform.architecture)))
}
