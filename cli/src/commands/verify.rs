//! `kiln verify`, and `kiln farm keys`.

use std::path::Path;
use std::time::SystemTime;

use kiln_attest::Keys;
use kiln_images::reference::Reference;
use kiln_images::registry::{Credentials, Options, Registries};
use kiln_proto::clock::read_timestamp;
use kiln_proto::v1;
use kiln_terminal as terminal;
use kiln_verify::{Evidence, Outcome, Policy, Report};
use serde_json::{Value, json};

use super::time;
use crate::farm::Farm;
use crate::{Code, Error, args, deliver, local};

pub(super) async fn run(farm: &args::Farm, args: args::Verify) -> Result<Code, Error> {
    let policy = args.policy.as_deref().map(Policy::read).transpose()?.unwrap_or_default();
    let trusted = match args.key.as_slice() {
        [] => None,
        files => Some(kiln_verify::of_files(files)?),
    };
    let here = gather(&args).await?;
    let (evidence, keys) = match (here, trusted) {
        (Some(evidence), Some(keys)) => (evidence, keys),
        (here, trusted) => ask(farm, &args, here, trusted).await?,
    };
    let report = kiln_verify::verify(&evidence, &keys, &policy, SystemTime::now());
    if args.json {
        local::print_json(&json!(report))?;
    } else {
        local::print(shown(&report).as_bytes())?;
        report.warnings.iter().for_each(|words| terminal::say_warning(&terminal::harmless(words)));
    }
    Ok(if report.verified { Code::Success } else { Code::Failed })
}

/// What there is on this machine or in a registry; `None`: it is on the farm.
async fn gather(args: &args::Verify) -> Result<Option<Evidence>, Error> {
    let path = Path::new(&args.what);
    if path.exists() {
        return Ok(Some(kiln_verify::on_disk(path, &args.bundle)?));
    }
    if !kiln_verify::is_image(&args.what) {
        return Ok(None);
    }
    let reference: Reference = args.what.parse().map_err(|error| Error::Usage(format!("{error}")))?;
    let options = Options { insecure: args.insecure_registry.clone(), ..Default::default() };
    let credentials = Credentials::of_user().map_err(|error| kiln_verify::Error::from(Box::new(error)))?;
    let registries = Registries::new(options, credentials);
    let mut evidence = kiln_verify::in_registry(&registries, &reference, args.content).await?;
    evidence.bundles.extend(kiln_verify::read_bundles(&args.bundle)?);
    Ok(Some(evidence))
}

/// Asks the farm for what is missing.
async fn ask(
    farm: &args::Farm,
    args: &args::Verify,
    here: Option<Evidence>,
    trusted: Option<Keys>,
) -> Result<(Evidence, Keys), Error> {
    let farm = Farm::open(farm).await?;
    let asked = async {
        let keys = match trusted {
            Some(keys) => keys,
            None => published(&farm).await?.0,
        };
        let evidence = match here {
            Some(evidence) => evidence,
            None => {
                let request =
                    v1::GetArtifactRequest { id: args.what.clone(), host_platform: local::host().to_string() };
                let artifact = farm.call(farm.artifacts().get(request)).await?.into_inner();
                deliver::evidence(&farm, artifact).await?
            }
        };
        Ok((evidence, keys))
    };
    let asked = asked.await;
    farm.close().await;
    asked
}

/// The keys that a farm publishes, and its name in provenance.
async fn published(farm: &Farm) -> Result<(Keys, String), Error> {
    let answer = farm.call(farm.farm().keys(v1::KeysRequest {})).await?.into_inner();
    let read = |key: &v1::SigningKey| {
        let at = |at: &Option<_>| at.as_ref().and_then(read_timestamp);
        kiln_verify::of_wire(&key.id, &key.pem, at(&key.created), at(&key.not_after))
    };
    let keys = answer.keys.iter().map(read).collect::<Result<_, _>>()?;
    Ok((Keys::new(keys), answer.builder))
}

/// `kiln farm keys`.
pub(super) async fn keys(farm: &Farm, as_json: bool) -> Result<Code, Error> {
    let (keys, builder) = published(farm).await?;
    if !as_json {
        return local::print(format!("builder: {}\n\n{}", terminal::harmless(&builder), keys.pem()).as_bytes());
    }
    let at = |at: Option<SystemTime>| at.map(|at| time(Some(kiln_proto::clock::timestamp(at))));
    let key = |key: &kiln_attest::Key| {
        json!({
            "id": key.public.id(),
            "algorithm": key.public.algorithm().name(),
            "created": at(key.created),
            "not_after": at(key.not_after),
            "pem": key.public.pem(),
        })
    };
    local::print_json(&json!({ "builder": builder, "keys": keys.iter().map(key).collect::<Vec<Value>>() }))
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for verdict in &report.verdicts {
        let name = if verdict.name == report.artifact { String::new() } else { format!(", {}", verdict.name) };
        text += &format!("{}{name}\n", report.artifact);
        for check in &verdict.checks {
            let outcome = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Refused => "REFUSED",
                Outcome::Stated => "stated",
            };
            // A line of its own is what only this command writes.
            let found = check.text.replace(['\n', '\r'], " ");
            text += &format!("  {outcome:<8} {:<15} {found}\n", check.check);
        }
    }
    text += if report.verified { "verified\n" } else { "refused\n" };
    terminal::harmless(&text)
}
