//! A call on another worker: its inputs as a tree on the farm, and its result compared with the step's own files.
//!
//! Invariant: the other worker says what the call saw, and this one decides whether that is what the step has. What does not match is as
//! if the call had never run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_calls::Call;
use kiln_executor::{BUILD, Job, Place};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::root::BUILD_DIRECTORY;
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::v1::run_call_event::Event;
use kiln_proto::{calls, clock, reapi, v1};
use kiln_trees::{Entry, Tree};
use tonic::Streaming;

use super::cell::{Cell, Delivered, Had, Kept, Made, Needs, Ran, Reason, lay, observed, searched};
use super::early::Given;
use super::sight::Sight;

/// Why a call did not run elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// It ran, and has no result that counts.
    Ran(Reason),
    /// The farm did not run it.
    Farm,
    /// It needed more memory than it had.
    Memory,
}

/// A call that the farm has been asked to run.
#[derive(Debug)]
pub(super) struct Offered {
    events: Streaming<v1::RunCallEvent>,
}

/// What an offered call does next.
#[derive(Debug)]
pub(super) enum Next {
    /// It runs on another worker.
    Started,
    /// It waits again.
    Requeued,
    /// It has ended.
    Ended(Box<reapi::ExecuteResponse>),
}

impl Offered {
    /// What happens next.
    ///
    /// # Errors
    /// If the farm does not say.
    pub(super) async fn next(&mut self) -> Result<Next, Failed> {
        let event = self.events.message().await.map_err(|status| {
            tracing::debug!(reason = status.message(), "the farm runs no call");
            Failed::Farm
        })?;
        Ok(match event.and_then(|event| event.event).ok_or(Failed::Farm)? {
            Event::Started(worker) => {
                tracing::debug!(worker, "a call runs elsewhere");
                Next::Started
            }
            Event::Requeued(_) => Next::Requeued,
            Event::Ended(response) => Next::Ended(Box::new(response)),
        })
    }
}

impl Cell {
    /// Asks the farm to run the call on the tree under `root`, which are the step's inputs, with what it needs of the step's own.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(super) async fn offer(
        &self,
        farm: &super::Farm,
        root: &Digest,
        call: &Call,
        needs: Needs,
        memory_bytes: u64,
    ) -> Result<Offered, Failed> {
        let client = farm.client().ok_or(Failed::Farm)?;
        let (inputs, step, links) = (self.inputs.clone(), self.step.clone(), needs.links.clone());
        let laid = tokio::task::spawn_blocking(move || lay(&inputs, &step, needs)).await;
        let (delta, delivered) = laid.map_err(|_| Failed::Farm)?.map_err(Failed::Ran)?;
        let job = self.job(call, &delta).map_err(Failed::Ran)?;
        let mut over = tree(&delivered, &links, &self.step, &job).ok_or(Failed::Ran("outside"))?;
        let mut directory = PathBuf::from(relative_to_inputs(&call.directory)?);
        if let Place::Root(_) = &self.parent.place {
            // Beside its root.
            over = Tree { entries: [(BUILD_DIRECTORY.to_owned(), Entry::Directory(over))].into(), ..Tree::default() };
            directory = Path::new(BUILD_DIRECTORY).join(directory);
        }
        let overlaid = self.inputs.overlaid(&client, root, over).await;
        let (input_root, messages) = overlaid.map_err(|error| {
            tracing::debug!(%error, "cannot make the inputs of a call");
            Failed::Farm
        })?;
        let own = delivered.iter().filter_map(|(path, digest)| {
            Some((*digest, Blob::File(delta.path().join(path.strip_prefix(BUILD).ok()?))))
        });
        let messages = messages.into_iter().map(|message| (message.digest, Blob::Bytes(message.data.into())));
        farm.give(&client, own.chain(messages).collect()).await.map_err(|error| {
            tracing::debug!(%error, "cannot store the inputs of a call");
            Failed::Farm
        })?;
        let request = v1::RunCallRequest {
            command: Some(command(call, job, &directory)?),
            input_root: Some(input_root.to_wire()),
            memory_bytes,
        };
        let events = farm.run(request).await.ok_or(Failed::Farm)?;
        Ok(Offered { events })
    }

    /// The result of a call that ran elsewhere, if it counts.
    ///
    /// # Errors
    /// If it does not.
    pub(super) async fn accept(
        &self,
        (farm, client): (&super::Farm, &Client),
        call: &Call,
        response: reapi::ExecuteResponse,
    ) -> Result<Ran, Failed> {
        let refused = |reason| Failed::Ran(reason);
        let code = response.status.as_ref().map_or(0, |status| status.code);
        if code == tonic::Code::ResourceExhausted as i32 {
            return Err(Failed::Memory);
        }
        let result = response.result.filter(|_| code == 0).ok_or(Failed::Farm)?;
        if result.exit_code != 0 {
            return Err(refused("failed"));
        }
        let is_long = |digest: &Option<reapi::Digest>| digest.as_ref().is_some_and(|digest| digest.size_bytes > 0);
        if is_long(&result.stdout_digest) || is_long(&result.stderr_digest) {
            return Err(refused("too_large"));
        }
        let metadata = result.execution_metadata.unwrap_or_default();
        let sight = calls::sight_of(&metadata).and_then(Sight::read).ok_or(refused("unrecorded"))?;
        let (step, outputs, searched) = (self.step.clone(), call.outputs.clone(), searched(call));
        let compared = tokio::task::spawn_blocking(move || {
            observed(&sight.accesses, &step, Had::Elsewhere(&sight), &searched, &outputs)
        });
        let variant = compared.await.map_err(|_| Failed::Farm)?.map_err(Failed::Ran)?;
        let directory = relative_to_inputs(&call.directory)?;
        let mut made = BTreeMap::new();
        for file in &result.output_files {
            let path = kiln_trees::tree::resolve(directory, &file.path).map(|path| Path::new(BUILD).join(path));
            let digest = Digest::required(DigestFunction::Sha256, file.digest.as_ref()).ok();
            made.insert(path.ok_or(Failed::Farm)?, (digest.ok_or(Failed::Farm)?, file.is_executable));
        }
        if !result.output_symlinks.is_empty() || !result.output_directories.is_empty() {
            return Err(refused("unforeseen_output"));
        }
        farm.held.add(made.values().map(|(digest, _)| *digest));
        let content = self.inputs.content(client, made.values().map(|(digest, _)| *digest)).await;
        let content = content.map_err(|error| {
            tracing::debug!(%error, "cannot fetch what a call made elsewhere");
            Failed::Farm
        })?;
        let mut outputs = Vec::new();
        for output in &call.outputs {
            let Some((digest, executable)) = made.remove(&output.absolute) else {
                if output.required {
                    return Err(refused("no_output"));
                }
                continue;
            };
            let file = if digest.is_empty() { PathBuf::from("/dev/null") } else { content.path(&digest) };
            outputs.push(Made { path: output.absolute.clone(), executable, digest, file });
        }
        let wall = metadata.virtual_execution_duration.as_ref().and_then(clock::read_duration);
        Ok(Ran {
            stdout: result.stdout_raw,
            stderr: result.stderr_raw,
            outputs,
            variant,
            wall: wall.unwrap_or(Duration::ZERO),
            given: Given::default(),
            makers: kiln_proto::made::makers(&metadata),
            _kept: Kept::Fetched(content),
        })
    }
}

/// What the step has made itself, and the directories that the call finds even if they are empty.
fn tree(
    delivered: &Delivered,
    links: &BTreeMap<PathBuf, PathBuf>,
    step: &Arc<super::view::View>,
    job: &Job,
) -> Option<Tree> {
    let mut tree = Tree::default();
    for (path, target) in links.iter().filter(|(_, target)| target.is_relative()) {
        let target = target.to_str()?.to_owned();
        tree.insert(path.strip_prefix(BUILD).ok()?.to_str()?, Entry::Symlink { target }).ok()?;
    }
    for (path, digest) in delivered {
        let executable = step.look_at_own(path.strip_prefix(BUILD).ok()?)?.executable;
        tree.insert(path.strip_prefix(BUILD).ok()?.to_str()?, Entry::file(*digest, executable)).ok()?;
    }
    for directory in job.make_directories.iter().filter(|directory| !directory.is_empty()) {
        tree.insert(directory, Entry::Directory(Tree::default())).ok()?;
    }
    Some(tree)
}

/// A directory of the inputs.
fn relative_to_inputs(directory: &Path) -> Result<&str, Failed> {
    directory.strip_prefix(BUILD).ok().and_then(Path::to_str).ok_or(Failed::Ran("outside"))
}

/// The call as a command of the Remote Execution API.
fn command(call: &Call, job: Job, directory: &Path) -> Result<reapi::Command, Failed> {
    let outside = Failed::Ran("outside");
    let output = |output: &kiln_calls::Output| relative(&call.directory, &output.absolute).ok_or(outside);
    let environment = job.environment.into_iter();
    Ok(reapi::Command {
        arguments: job.arguments,
        environment_variables: environment
            .map(|(name, value)| reapi::command::EnvironmentVariable { name, value })
            .collect(),
        output_paths: call.outputs.iter().map(output).collect::<Result<_, _>>()?,
        working_directory: directory.to_str().ok_or(outside)?.trim_end_matches('/').to_owned(),
        ..Default::default()
    })
}

/// A path as it is called in a directory. Both are absolute.
fn relative(directory: &Path, path: &Path) -> Option<String> {
    let shared = directory.components().zip(path.components()).take_while(|(one, other)| one == other).count();
    let up = directory.components().skip(shared).map(|_| Path::new(".."));
    let down = path.components().skip(shared).map(|part| Path::new(part.as_os_str()));
    let relative: PathBuf = up.chain(down).collect();
    relative.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_called_as_its_directory_calls_it() {
        for (directory, path, expected) in [
            ("/build", "/build/a.o", "a.o"),
            ("/build/src", "/build/src/x/a.o", "x/a.o"),
            ("/build/src/x", "/build/lib/a.o", "../../lib/a.o"),
            ("/build/src", "/build/src.o", "../src.o"),
        ] {
            assert_eq!(
                relative(Path::new(directory), Path::new(path)).as_deref(),
                Some(expected),
                "{directory} {path}"
            );
        }
    }
}
