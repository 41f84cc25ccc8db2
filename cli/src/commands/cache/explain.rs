//! `kiln cache explain`: why a step missed the last time it ran, or in a build.

use kiln_planner::plan::{Artifact, ArtifactKind};
use kiln_progress::is_called;
use kiln_proto::v1;
use kiln_terminal as terminal;

use crate::farm::{Farm, INSTANCE};
use crate::local::Project;
use crate::{Code, Error, args, local};

pub(super) async fn run(farm: &Farm, args: args::Explain) -> Result<Code, Error> {
    let build = match &args.build {
        None => None,
        Some(id) => Some(farm.build(id).await?),
    };
    let (instance, project, id) = match (&build, args.project) {
        (Some(build), _) => (build.instance.clone(), build.project.clone(), build.id.clone()),
        (None, Some(project)) => (INSTANCE.to_owned(), project, String::new()),
        (None, None) => (INSTANCE.to_owned(), planned(&args.dir, &args.step)?, String::new()),
    };
    let step = args.step;
    let explain = async |step: &str| {
        let (instance, project, step, build) = (instance.clone(), project.clone(), step.to_owned(), id.clone());
        let request = v1::ExplainRequest { instance, project, step, build };
        Ok::<_, Error>(farm.call(farm.cache().explain(request)).await?.into_inner())
    };
    let mut answer = explain(&step).await?;
    let called: Vec<&String> = answer.steps.iter().filter(|name| is_called(name, &step)).collect();
    if let ([only], true) = (&called[..], answer.explanations.is_empty()) {
        answer = explain(only).await?;
    }
    let v1::ExplainResponse { explanations, steps } = answer;
    if args.json {
        return local::print_json(&kiln_explain::objects(&explanations));
    }
    if !explanations.is_empty() {
        return local::print(kiln_explain::text(explanations).as_bytes());
    }
    if let Some(build) = &build {
        return local::print(kiln_explain::unknown(build, &step).as_bytes());
    }
    let known = match steps.is_empty() {
        true => format!("no step of project `{project}` has"),
        false => format!("steps of project `{project}` that have run: {}", steps.join(", ")),
    };
    local::print(terminal::harmless(&format!("step `{step}` has never run on this farm; {known}\n")).as_bytes())
}

/// The name of the project in a directory, whose plan must contain the step. Only the farm knows the instructions of a Dockerfile.
fn planned(dir: &std::path::Path, step: &str) -> Result<String, Error> {
    let plan = Project::open(dir)?.plan()?;
    let is_dockerfile = |artifact: &Artifact| matches!(artifact.kind, ArtifactKind::Dockerfile(_));
    if plan.artifacts.iter().any(is_dockerfile) || plan.steps.iter().any(|planned| planned.name == step) {
        return Ok(plan.name);
    }
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    Err(Error::Usage(format!("project `{}` has no step `{step}`; expected one of: {}", plan.name, names.join(", "))))
}
