//! `kiln test`: a build of only the plan's test steps and what they need.

use kiln_planner::plan::Scope;

use super::build;
use crate::interrupts::Interrupts;
use crate::{Code, Error, args};

pub(super) async fn run(farm: &args::Farm, args: args::Test, interrupts: &Interrupts) -> Result<Code, Error> {
    let args::Test {
        dir,
        platform,
        target,
        language,
        env,
        allow_emulation,
        executor,
        shell_on_failure,
        no_cache,
        secret,
        progress,
        priority,
        queue_timeout,
        store_size,
    } = args;
    let build = args::Build {
        dir,
        more: Vec::new(),
        affected_by: None,
        fail_fast: false,
        platform,
        target,
        language,
        dockerfile: args::Dockerfile::default(),
        image: None,
        env,
        allow_emulation,
        executor,
        // There are no artifacts, so nothing is written there.
        output: "kiln-out".into(),
        request_id: None,
        no_cache,
        verify_reproducible: None,
        secret,
        deliver: args::Deliver::default(),
        detach: false,
        shell_on_failure,
        progress,
        priority,
        queue_timeout,
        store_size,
    };
    build::run_scope(farm, build, Scope::Tests, interrupts).await
}
