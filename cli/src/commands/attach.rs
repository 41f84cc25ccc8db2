//! `kiln attach`: follows a running build. An interrupt leaves it running, because this command did not start it.

use std::time::Instant;

use kiln_proto::transfer::Moved;

use crate::args;
use crate::farm::Farm;
use crate::follow::{Follow, OnInterrupt};
use crate::interrupts::Interrupts;
use crate::{Code, Error, download, output};
use kiln_progress::show;

pub(super) async fn run(farm: &Farm, args: args::Attach, interrupts: &Interrupts) -> Result<Code, Error> {
    let build = farm.build(&args.build).await?;
    let follow = Follow {
        farm,
        blobs: farm.blobs_of(&build)?,
        build: build.id,
        output: output::of_user(&args.output).map_err(download::Error::from)?,
        moved: Moved::default(),
        on_interrupt: OnInterrupt::Leave,
        began: None,
        deliver: None,
        again: None,
    };
    follow.run(show(args.progress, Instant::now()).as_mut(), interrupts).await
}
