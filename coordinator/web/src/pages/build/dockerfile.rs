//! The Dockerfile of a build, with the time, the hit and the size of each instruction beside it.

use kiln_proto::v1;
use maud::{Markup, html};

use crate::blobs::{self, Files, Found, Space};
use crate::calls::Client;
use crate::markup::{encoded, words};
use kiln_web_model::{Progress, gutter};

/// Largest Dockerfile that is shown, in bytes.
const MAX_BYTES: i64 = 256 << 10;

/// Dockerfiles that are shown of one build.
const MOST: usize = 8;

/// The Dockerfiles of the build with their paths, if the store still has them.
pub(super) async fn read(client: &Client, build: &v1::Build, progress: &Progress) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let root = build.source.as_ref().and_then(|source| source.root.as_ref());
    let (Some(root), true) = (root, progress.steps.iter().any(|step| step.is_instruction)) else { return found };
    let space = Space::of(build);
    let Ok(files) = Files::of(client, space.clone(), root).await else { return found };
    // A build of before they were recorded.
    let paths = match build.dockerfiles.as_slice() {
        [] => vec!["Dockerfile".to_owned(), "Containerfile".to_owned()],
        known => known.to_vec(),
    };
    for path in paths.into_iter().take(MOST) {
        if let Ok(Found::File(file)) = files.find(&path).await
            && let Some(digest) = file.digest.filter(|digest| digest.size_bytes <= MAX_BYTES)
            && let Ok(data) = blobs::read(client, &space, &digest).await
            && let Ok(text) = String::from_utf8(data)
        {
            found.push((path, text));
        }
    }
    found
}

/// Each file with its gutter; none of whose instructions is a step is left out.
pub(super) fn sections(build: &v1::Build, progress: &Progress, files: &[(String, String)]) -> Markup {
    let read = files.iter().filter_map(|(path, text)| Some((path, gutter::of(text, progress)?)));
    html! {
        @for (path, lines) in read {
            section aria-label=(path) {
                h2 { (path) }
                ol .dockerfile {
                    @for line in &lines { (row(build, progress, line)) }
                }
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
