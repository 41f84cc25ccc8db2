//! Go's build cache: where the workers keep it, no step compiles what others then find.

use kiln_detect::{self as detect, GO_CACHES};

use super::{Origin, Plan, Source, Step};

/// The variable with the place of a cache of the steps' own.
const VARIABLE: &str = "GOCACHE";

/// Leaves out the steps of a detected project that only fill its build cache, if every Go that can build it asks the worker for that. In an
/// image no worker answers, so there they stay.
pub(super) fn apply(plan: &mut Plan, source: &dyn Source) {
    let is_go = matches!(&plan.origin, Origin::Detected { language, .. } if language == "go");
    let in_image = plan.targets.iter().any(|target| plan.steps.iter().any(|step| target.image_of(step).is_some()));
    if !is_go || in_image || !detect::go_asks_for_its_cache(source) {
        return;
    }
    let fills = |step: &Step| matches!(&step.outputs[..], [only] if GO_CACHES.contains(&only.as_str()));
    let gone: Vec<String> = plan.steps.iter().filter(|step| fills(step)).map(|step| step.name.clone()).collect();
    plan.steps.retain(|step| !fills(step));
    for step in &mut plan.steps {
        step.needs.retain(|need| !gone.contains(need));
        step.env.remove(VARIABLE);
    }
}
