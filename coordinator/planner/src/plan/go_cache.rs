//! Go's build cache: where the workers keep it, no step compiles what others then find.

use kiln_detect::{self as detect, GO_CACHES};

use super::{Plan, Source, Step};

/// The variable with the place of a cache of the steps' own.
const VARIABLE: &str = "GOCACHE";

/// Leaves out the steps of a detected project that only fill its build cache, if every Go that can build it asks the worker for that. In an
/// image no worker answers, so there they stay.
pub(super) fn apply(plan: &mut Plan, source: &dyn Source) {
    let Some(part) = plan.origin.parts().iter().find(|part| part.language == "go") else { return };
    let own = |step: &Step| part.has(&step.name);
    let in_image =
        plan.targets.iter().any(|target| plan.steps.iter().any(|step| own(step) && target.image_of(step).is_some()));
    if in_image || !detect::go_asks_for_its_cache(source) {
        return;
    }
    let fills = |step: &Step| own(step) && matches!(&step.outputs[..], [only] if GO_CACHES.contains(&only.as_str()));
    let gone: Vec<String> = plan.steps.iter().filter(|step| fills(step)).map(|step| step.name.clone()).collect();
    plan.steps.retain(|step| !gone.contains(&step.name));
    for step in plan.steps.iter_mut().filter(|step| part.has(&step.name)) {
        step.needs.retain(|need| !gone.contains(need));
        step.env.remove(VARIABLE);
    }
}
