//! `kiln plan`: the steps that a build would run, and why. Needs no farm; one that is named is asked for its toolchains.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kiln_planner::plan::{Options, Plan, Scope, Step, Toolchains};
use kiln_projects::shown::{Expected, object, words};
use serde_json::Value;

use super::several;
use crate::farm::{Farm, INSTANCE};
use crate::local::Project;
use crate::{Code, Error, args, local};
use kiln_projects::left_out;
use kiln_proto::v1;
use kiln_terminal as terminal;

pub(super) async fn run(farm: &args::Farm, args: &args::Plan) -> Result<Code, Error> {
    let farm = named(farm).await?;
    let result = match several::is_asked(&args.dir, &args.more, args.affected_by.as_deref()) {
        true => several::plan(farm.as_ref(), args).await,
        false => match planned(farm.as_ref(), args, &args.dir).await {
            Ok(planned) if args.json => local::print_json(&planned.object()),
            Ok(planned) => local::print(terminal::harmless(&planned.words()).as_bytes()),
            Err(error) => Err(error),
        },
    };
    if let Some(farm) = farm {
        farm.close().await;
    }
    result
}

/// A project's plan, with what is shown beside it.
pub(super) struct Planned {
    plan: Plan,
    expected: Expected,
    /// The step that runs the project's tests, if the plan has none itself.
    test: Option<String>,
}

impl Planned {
    pub(super) fn words(&self) -> String {
        let mut words = words(&self.plan, &self.expected);
        if let Some(test) = &self.test {
            words.push_str(&format!("\ntests: `kiln test` runs step `{test}` and what it needs\n"));
        }
        words
    }

    pub(super) fn object(&self) -> Value {
        object(&self.plan, &self.expected)
    }
}

/// The plan of the project in a directory.
pub(super) async fn planned(farm: Option<&Farm>, args: &args::Plan, dir: &Path) -> Result<Planned, Error> {
    let project = Project::open_for(dir, args.dockerfile.wanted())?;
    let scope = if args.test { Scope::Tests } else { Scope::Build };
    let toolchains = match farm {
        Some(farm) => {
            Toolchains::read(&farm.status().await?.toolchains).map_err(|error| Error::Usage(error.to_string()))?
        }
        None => Toolchains::default(),
    };
    let options = Options {
        platforms: args.platform.clone(),
        targets: args.target.clone(),
        language: args.language,
        dockerfile: args.dockerfile.wanted(),
        image: args.image.clone(),
        toolchains,
        ..project.options()
    };
    let mut plan = project.plan_for(&options, scope)?;
    kiln_planner::plan::set_variables(&mut plan, &args.env).map_err(|error| Error::Usage(error.to_string()))?;
    // A Dockerfile copies what git ignores, too.
    if !plan.steps.is_empty() {
        plan.notes.extend(left_out::words(&project.root, &project.left_out));
    }
    let expected = match farm {
        Some(farm) => expected(farm, &mut plan, project.paths.len()).await,
        None => BTreeMap::new(),
    };
    let all = project.plan_for(&options, Scope::All)?;
    // The steps before the last one are those that it needs.
    let test = all.steps.iter().rev().find(|step| step.test).filter(|_| scope == Scope::Build);
    Ok(Planned { plan, expected, test: test.map(|step| step.name.clone()) })
}

/// The farm that the caller names; none if none is named.
async fn named(args: &args::Farm) -> Result<Option<Farm>, Error> {
    if args.farm.as_deref().is_none_or(|url| url.trim().is_empty()) {
        return Ok(None);
    }
    Farm::open(args).await.map(Some)
}

/// How long each step is likely to run, by what it took before on the first target, and how many shards it has if that follows from its tests. A farm that does not know costs a plan nothing.
async fn expected(farm: &Farm, plan: &mut Plan, files: usize) -> BTreeMap<String, Duration> {
    let platform = plan.targets.first().map(|target| target.platform.to_string()).unwrap_or_default();
    let kind = |step: &Step| v1::StepKind {
        step: step.name.clone(),
        platform: platform.clone(),
        command: step.run.clone(),
        files: files as u64,
        image: step.image.clone().unwrap_or_default(),
    };
    let request = v1::ExpectRequest {
        instance: INSTANCE.to_owned(),
        project: plan.name.clone(),
        steps: plan.steps.iter().map(kind).collect(),
    };
    let Ok(answer) = farm.call(farm.builds().expect(request)).await else { return BTreeMap::new() };
    let histories = answer.into_inner().steps;
    for (step, history) in plan.steps.iter_mut().zip(&histories).filter(|(step, _)| step.shards_auto) {
        step.shards = history.shards.max(1);
    }
    let known = plan.steps.iter().zip(histories).filter(|(_, history)| history.at_ms != 0);
    known.map(|(step, history)| (step.name.clone(), Duration::from_millis(history.duration_ms))).collect()
}
