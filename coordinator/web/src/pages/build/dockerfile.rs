//! The Dockerfile of a build, with the time, the hit and the size of each instruction beside it.

use kiln_proto::v1;
use maud::{Markup, html};

use crate::blobs::{self, Files, Found};
use crate::calls::Client;
use crate::markup::{encoded, words};
use kiln_web_model::{Progress, gutter};

/// Largest Dockerfile that is shown, in bytes.
const MAX_BYTES: i64 = 256 << 10;

/// The text of the build's Dockerfile, if it has one in a usual place and the store still has it.
pub(super) async fn read(client: &Client, build: &v1::Build, progress: &Progress) -> Option<String> {
    if !progress.steps.iter().any(|step| step.is_instruction) {
        return None;
    }
    let source = build.source.as_ref()?;
    let files = Files::of(client, &build.instance, source.root.as_ref()?).await.ok()?;
    let named = source.contexts.iter().map(|context| context.file.as_str()).filter(|file| !file.is_empty());
    for name in named.chain(["Dockerfile", "Containerfile"]) {
        let path = format!("{}/{name}", source.project);
        if let Ok(Found::File(file)) = files.find(&path).await
            && let Some(digest) = file.digest.filter(|digest| digest.size_bytes <= MAX_BYTES)
            && let Ok(data) = blobs::read(client, &build.instance, &digest).await
        {
            return String::from_utf8(data).ok();
        }
    }
    None
}

/// The file with its gutter; nothing if none of its instructions is a step.
pub(super) fn section(build: &v1::Build, progress: &Progress, file: Option<&str>) -> Markup {
    let Some(lines) = file.and_then(|file| gutter::of(file, progress)) else { return html! {} };
    html! {
        section aria-labelledby="dockerfile-title" {
            h2 #dockerfile-title { "Dockerfile" }
            ol .dockerfile {
                @for line in &lines { (row(build, progress, line)) }
            }
        }
    }
}

fn row(build: &v1::Build, progress: &Progress, line: &gutter::Line) -> Markup {
    html! {
        li {
            span .gutter {
                @for place in &line.steps {
                    @let step = &progress.steps[*place];
                    @let outcome = step.outcome(progress).word();
                    @let bytes = step.finished.as_ref().map_or(0, |done| done.output_bytes);
                    a class=(outcome) href={ "/builds/" (encoded(&build.id)) "/steps/" (place + 1) } title=(outcome.replace('-', " ")) {
                        span .mark {}
                        (step.took().map(words::duration).unwrap_or_default())
                        @if bytes > 0 { " " span .dim { (words::size(bytes)) } }
                    }
                }
            }
            code { (line.text) }
        }
    }
}
