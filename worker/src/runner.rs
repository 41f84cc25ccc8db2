//! Runs one lease: inputs, command, outputs, result.
//!
//! Invariant: faults are distinguished. The action's own fault becomes a REAPI status in the response; the worker's
//! becomes a worker fault, so that another worker may try.

mod ground;
mod shell;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_broker::{Broker, Compilers, Farm, Serving, Sources, Wanted};
use kiln_proto::channel::Channel;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::possession::{Challenge, Named};
use kiln_proto::protobuf::Timestamp;
use kiln_proto::transfer::{self, Blob, Client};
use kiln_proto::v1::lease_finished::Outcome;
use kiln_proto::{clock, precondition, reapi, rpc, v1};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{Instrument, info_span};

use crate::inputs::{self, Inputs};
use crate::leases::Leases;
use crate::outputs;
use crate::roots::{Roots, Step};
use crate::tally::Tally;
use crate::telling;
use ground::{Gathered, Ground};
use kiln_executor::mask::{Masked, Patterns};
use kiln_executor::output_log::{self, OutputLog};
use kiln_executor::samples::SoFar;
use kiln_executor::{self as executor, Chunk, Executor, Exit, Finished, Job, Place, Stream};

/// Maximum number of processes and threads of one action at once.
const MAX_PROCESSES: u32 = 4096;
/// Maximum bytes of what a call prints that are a part of its answer.
const MAX_TOLD: u64 = 256 << 10;
/// How long a transfer waits for a broken connection to be restored.
const RECONNECTING: Duration = Duration::from_secs(600);
/// Pause before a transfer is retried on the same connection.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs leases on this machine.
#[derive(Debug)]
pub struct Runner {
    worker: String,
    inputs: Inputs,
    /// Roots of actions, if this worker runs any in roots of their own.
    roots: Option<Roots>,
    /// Answers the compiler calls of steps, if this worker splits steps into them.
    broker: Option<Broker>,
    executor: Arc<dyn Executor>,
    scratch: PathBuf,
    channel: watch::Sender<Option<Channel>>,
    tally: Tally,
}

/// The lease on whose behalf blobs are transferred.
struct At<'a> {
    instance: &'a str,
    function: DigestFunction,
    grant: &'a [u8],
    /// What it proves with that it has a blob; none: whatever it names is sent.
    challenge: Option<Challenge>,
}

/// Why a lease has no result.
enum Fault {
    /// The action's fault, as a REAPI status.
    Action(rpc::Status),
    /// The worker's fault.
    Worker(String),
}

fn action_fault(code: Code, message: impl Into<String>) -> Fault {
    Fault::Action(rpc::Status { code: code as i32, message: message.into(), details: Vec::new() })
}

impl Runner {
    /// Creates a runner; `scratch` holds output logs while commands run.
    pub fn new(worker: String, inputs: Inputs, executor: Arc<dyn Executor>, scratch: PathBuf) -> Self {
        Self {
            worker,
            inputs,
            roots: None,
            broker: None,
            executor,
            scratch,
            channel: watch::Sender::new(None),
            tally: Tally::default(),
        }
    }

    /// Runs actions in these roots too.
    #[must_use]
    pub fn with_roots(mut self, roots: Option<Roots>) -> Self {
        self.roots = roots;
        self
    }

    /// Answers compiler calls of steps.
    #[must_use]
    pub fn with_broker(self, broker: Option<Broker>) -> Self {
        Self { broker, ..self }
    }

    /// Transfers use this connection from now on.
    pub fn set_channel(&self, channel: Channel) {
        self.channel.send_replace(Some(channel));
    }

    /// Flushes the input cache to disk, for a clean shutdown. Blocks.
    pub fn close(&self) {
        self.inputs.close();
        if let Some(roots) = &self.roots {
            roots.close();
        }
    }

    /// Free bytes on the disk where actions run.
    pub fn disk_free(&self) -> u64 {
        rustix::fs::statvfs(&self.scratch).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
    }

    /// Bytes of cached inputs.
    pub fn cache_bytes(&self) -> u64 {
        self.inputs.bytes()
    }

    /// Bytes of input files fetched from the farm.
    pub fn fetched_bytes(&self) -> u64 {
        self.inputs.fetched_bytes()
    }

    /// The lease counters.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    fn client(&self, at: &At<'_>) -> Result<Client, Fault> {
        let channel = self.channel.borrow().clone();
        let channel = channel.ok_or_else(|| Fault::Worker("no connection to the coordinator".to_owned()))?;
        Ok(Client::for_lease(channel, at.instance, at.function, at.grant).spread())
    }

    /// Performs a transfer and retries it while the connection breaks, until it succeeds, fails for another reason or
    /// is cancelled.
    async fn transfer<T, E, F>(
        &self,
        at: &At<'_>,
        cancel: &CancellationToken,
        is_connection: fn(&E) -> bool,
        fault: fn(E) -> Fault,
        attempt: impl Fn(Client) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, E>>,
    {
        let deadline = tokio::time::Instant::now() + RECONNECTING;
        let mut changed = self.channel.subscribe();
        loop {
            changed.mark_unchanged();
            let client = self.client(at)?;
            let result = tokio::select! {
                result = attempt(client) => result,
                () = cancel.cancelled() => return Err(cancelled()),
            };
            let error = match result {
                Ok(done) => return Ok(done),
                Err(error) if is_connection(&error) && tokio::time::Instant::now() < deadline => error,
                Err(error) => return Err(fault(error)),
            };
            tokio::select! {
                _ = tokio::time::timeout(PAUSE, changed.changed()) => drop(error),
                () = cancel.cancelled() => return Err(cancelled()),
            }
        }
    }

    /// Runs a lease to its end, which is to be reported.
    pub async fn run(&self, lease: v1::Lease, leases: Arc<Leases>, cancel: CancellationToken) -> v1::LeaseFinished {
        let _counted = self.tally.began();
        let (outcome, seal) = match self.carry_out(&lease, &leases, &cancel).await {
            Ok((response, seal)) => (Outcome::Response(response), seal),
            Err(Fault::Action(status)) => {
                let response = reapi::ExecuteResponse { status: Some(status), ..Default::default() };
                (Outcome::Response(response), Bytes::new())
            }
            Err(Fault::Worker(fault)) => {
                tracing::error!(lease = lease.lease, fault, "cannot run a lease");
                (Outcome::WorkerFault(fault), Bytes::new())
            }
        };
        let word = self.tally.ended(&outcome);
        tracing::debug!(outcome = word, "lease ended");
        v1::LeaseFinished { lease: lease.lease, outcome: Some(outcome), seal: seal.into() }
    }

    async fn carry_out(
        &self,
        lease: &v1::Lease,
        leases: &Arc<Leases>,
        cancel: &CancellationToken,
    ) -> Result<(reapi::ExecuteResponse, Bytes), Fault> {
        let function = DigestFunction::from_wire(lease.digest_function)
            .map_err(|error| action_fault(Code::InvalidArgument, error.to_string()))?;
        let (action, command) = (lease.action.clone().unwrap_or_default(), lease.command.clone().unwrap_or_default());
        let root = Digest::required(function, action.input_root_digest.as_ref())
            .map_err(|error| action_fault(Code::InvalidArgument, error.to_string()))?;
        let mut metadata = reapi::ExecutedActionMetadata {
            worker: self.worker.clone(),
            queued_timestamp: lease.queued.map(|at| Timestamp { seconds: at.seconds, nanos: at.nanos }),
            ..Default::default()
        };
        let challenge = Challenge::from_wire(&lease.challenge);
        let at = &At { instance: &lease.instance, function, grant: &lease.grant, challenge };
        let began = Instant::now();
        let mut ground =
            self.ground(at, cancel, lease, &action, &command, &root).instrument(info_span!("fetch inputs")).await?;
        // The same time for all inputs: how long the fetch took would reveal whether another tenant's action had cached
        // them here.
        let ready = Some(clock::now());
        metadata.worker_start_timestamp = ready;
        metadata.input_fetch_start_timestamp = ready;
        metadata.input_fetch_completed_timestamp = ready;
        metadata.execution_start_timestamp = ready;
        let mut job = ground.job(lease, &action, &command)?;
        if let Some(shell) = &lease.shell {
            leases.started(lease.lease).await;
            return Err(self.shell(at, lease, shell, job, cancel).await);
        }
        let in_root = matches!(ground, Ground::Root(_));
        let call = self.broker.as_ref().filter(|_| lease.call && (in_root || job.place == Place::Machine));
        job.calls.recorded = call.is_some();
        let serving = self.serve(at, lease, (&root, &action), &ground, &mut job).await?;
        leases.started(lease.lease).await;
        let limits = v1::Capacity { milli_cpus: job.milli_cpus, memory_bytes: job.memory_bytes };
        let started = Instant::now();
        let telling = serving.as_ref().map(|serving| telling::tell(serving.counts(), lease.lease, leases.clone()));
        let so_far = Arc::<SoFar>::default();
        let telling = (telling, telling::tell_usage(so_far.clone(), limits, lease.lease, leases.clone()));
        job.usage = Some(so_far);
        let (finished, stdout, stderr) =
            self.execute(lease.lease, job, leases, cancel, function).instrument(info_span!("execute")).await?;
        drop(telling);
        let mut lists = Vec::new();
        if let Some(serving) = serving {
            let calls = serving.finish().await;
            tracing::debug!(?calls, "the step's compiler calls");
            self.tally.called(&calls);
            let mut told = calls.to_wire();
            if !calls.facts.keys.is_empty() {
                let list = Bytes::from(calls.facts.list());
                let digest = function.digest(&list);
                told.keys = Some(digest.to_wire());
                lists.push((digest, Blob::Bytes(list)));
            }
            kiln_proto::calls::add(&mut metadata, &told);
            if calls.is_wrong {
                let words = "the result of a compiler call that the step used was wrong; it has been removed, and the step runs again";
                return Err(Fault::Worker(words.to_owned()));
            }
        }
        if let Some(broker) = call {
            let command = if in_root { Step::command_on_inputs(&command) } else { command.clone() };
            kiln_proto::calls::add_sight(&mut metadata, &broker.sight(&finished, &command, in_root).await);
        }
        kiln_proto::usage::add(&mut metadata, &usage(&finished, &limits));
        let seen = finished.conditions.clone();
        let seen = v1::RunConditions {
            cpus: seen.cpus.unwrap_or_default(),
            host_name: seen.host_name.unwrap_or_default(),
            directory: seen.directory.unwrap_or_default(),
            ..v1::RunConditions::default()
        };
        kiln_proto::conditions::add(&mut metadata, &seen);
        if finished.exit == Exit::NoRoom {
            let words = "the disk of this worker is full, but the command did not fill it";
            return Err(Fault::Worker(words.to_owned()));
        }
        let ended = Instant::now();
        metadata.execution_completed_timestamp = Some(clock::now());
        metadata.virtual_execution_duration = Some(clock::duration(finished.wall));

        metadata.output_upload_start_timestamp = Some(clock::now());
        let mut result = reapi::ActionResult::default();
        let status = verdict(&finished.exit, lease, &mut result);
        let mut gathered = Gathered::default();
        if matches!(finished.exit, Exit::Code(_) | Exit::Signal(_)) {
            gathered = self.gather(at, cancel, &mut ground, &finished, &command).await?;
            let collected = gathered.collected();
            result.output_files = collected.output_files;
            result.output_directories = collected.output_directories;
            result.output_symlinks = collected.output_symlinks;
            #[allow(deprecated)]
            {
                result.output_file_symlinks = collected.output_file_symlinks;
                result.output_directory_symlinks = collected.output_directory_symlinks;
            }
        }
        // Whoever waits for a call takes what it printed with the answer.
        let is_told = call.is_some() && stdout.digest.size + stderr.digest.size <= MAX_TOLD;
        if is_told {
            let failed = |error| Fault::Worker(format!("cannot read what the call printed: {error}"));
            result.stdout_raw = stdout.read().await.map_err(failed)?;
            result.stderr_raw = stderr.read().await.map_err(failed)?;
        } else {
            result.stdout_digest = Some(stdout.digest.to_wire());
            result.stderr_digest = Some(stderr.digest.to_wire());
            let logs = [&stdout, &stderr];
            lists
                .extend(logs.iter().filter_map(|log| Some((log.digest, Blob::File(log.file.as_ref()?.to_path_buf())))));
        }
        result.execution_metadata = Some(metadata);
        let named = Named::of(function, &result).map_err(|error| Fault::Worker(error.to_string()))?;
        let blobs = &[gathered.blobs(), &lists].concat();
        let named = &named;
        let give =
            |client: Client| async move { client.give_result(blobs.clone(), at.challenge.as_ref(), named).await };
        let giving = self.transfer(at, cancel, transfer::Error::is_connection, result_fault, give);
        let seal = giving.instrument(info_span!("upload outputs")).await?;
        self.keep(at, cancel, &mut ground, &finished, gathered).await?;
        let metadata = result.execution_metadata.get_or_insert_default();
        metadata.output_upload_completed_timestamp = Some(clock::now());
        metadata.worker_completed_timestamp = Some(clock::now());
        let (inputs, ran, outputs) = (started - began, ended - started, ended.elapsed());
        tracing::debug!(?inputs, ?ran, ?outputs, "a command has run");
        let message = words(&finished.exit);
        let response =
            reapi::ExecuteResponse { result: Some(result), status: Some(status), message, ..Default::default() };
        Ok((response, seal))
    }

    /// Answers the compiler calls of a job whose lease says so.
    async fn serve(
        &self,
        at: &At<'_>,
        lease: &v1::Lease,
        (root, action): (&Digest, &reapi::Action),
        ground: &Ground,
        job: &mut Job,
    ) -> Result<Option<Serving>, Fault> {
        // What a call is given and prints is kept, and values of secrets must not be.
        let is_apt = match &job.place {
            // Elsewhere than in a network of its own, others could reach what is offered.
            Place::Root(rooted) => !job.network || (self.executor.has_own_networks() && !rooted.host_network),
            Place::Machine => true,
            Place::Image(..) | Place::ImageResolver => false,
        };
        let is_apt = is_apt && lease.secrets.is_empty();
        let in_root = if lease.split { ground.programs(&job.environment) } else { BTreeSet::new() };
        let compilers = match &job.place {
            Place::Machine if lease.split => Compilers::OfSystem,
            Place::Root(_) => Compilers::Among(&in_root),
            _ => Compilers::None,
        };
        let Some(broker) = self.broker.as_ref().filter(|_| is_apt) else { return Ok(None) };
        let tools = (!lease.tools.is_empty()).then_some((lease.tools.as_str(), lease.tools_read_only));
        let root_of = ground.changed();
        let changes = root_of.as_ref().map(|root| root as &(dyn Sources + Sync));
        let wanted = Wanted { compilers, tools, changes };
        let farm = Farm {
            channel: self.channel.subscribe(),
            instance: at.instance.to_owned(),
            function: at.function,
            grant: at.grant.to_vec(),
            challenge: at.challenge,
            makers: Default::default(),
            held: Default::default(),
        };
        let failed = |error: std::io::Error| Fault::Worker(format!("cannot prepare a step's compiler calls: {error}"));
        let Ok(command) = Digest::required(at.function, action.command_digest.as_ref()) else { return Ok(None) };
        broker.serve(job, (*root, command), farm, wanted).await.map_err(failed)
    }

    async fn execute(
        &self,
        lease: u64,
        job: Job,
        leases: &Arc<Leases>,
        cancel: &CancellationToken,
        function: DigestFunction,
    ) -> Result<(Finished, output_log::Ended, output_log::Ended), Fault> {
        let failed = |error: std::io::Error| Fault::Worker(format!("cannot store the command's output: {error}"));
        let mut stdout = OutputLog::new(self.scratch.join(format!("{lease}.stdout")), function);
        let mut stderr = OutputLog::new(self.scratch.join(format!("{lease}.stderr")), function);
        let (sender, mut receiver) = mpsc::channel::<Chunk>(16);
        let patterns = Patterns::of(&job.secrets, if job.network { self.executor.hidden() } else { &[] });
        let masked = || Masked::new(patterns.as_ref());
        let (mut mask_stdout, mut mask_stderr) = (masked(), masked());
        let run = self.executor.run(job, sender, cancel.clone());
        let tell = async |log: &mut OutputLog, stream, data: Bytes| {
            if !data.is_empty() {
                let offset = log.push(&data).await?;
                leases.output(lease, stream, offset, data).await;
            }
            Ok::<(), std::io::Error>(())
        };
        let follow = async {
            while let Some(Chunk { stream, data }) = receiver.recv().await {
                let (masked, log, stream) = match stream {
                    Stream::Stdout => (&mut mask_stdout, &mut stdout, v1::Stream::Stdout),
                    Stream::Stderr => (&mut mask_stderr, &mut stderr, v1::Stream::Stderr),
                };
                tell(log, stream, masked.push(data)).await?;
            }
            tell(&mut stdout, v1::Stream::Stdout, mask_stdout.finish()).await?;
            tell(&mut stderr, v1::Stream::Stderr, mask_stderr.finish()).await
        };
        let (finished, followed) = tokio::join!(run, follow);
        followed.map_err(failed)?;
        let finished = finished.map_err(executor_fault)?;
        Ok((finished, stdout.finish().await.map_err(failed)?, stderr.finish().await.map_err(failed)?))
    }
}

/// What a run used of what it was allowed.
fn usage(finished: &Finished, limits: &v1::Capacity) -> v1::Usage {
    let cpu = finished.user_cpu + finished.system_cpu;
    v1::Usage {
        peak_memory_bytes: finished.peak_memory_bytes,
        out_of_memory: finished.exit == Exit::OutOfMemory,
        cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX),
        memory_limit_bytes: limits.memory_bytes,
        reserved_milli_cpus: limits.milli_cpus,
        over_time: finished.samples.to_wire(),
    }
}

/// The status of the response for an exit; also sets the exit code in the result.
fn verdict(exit: &Exit, lease: &v1::Lease, result: &mut reapi::ActionResult) -> rpc::Status {
    let reserved = lease.reserved.unwrap_or_default();
    let (code, message) = match exit {
        Exit::Code(code) => {
            result.exit_code = *code;
            (Code::Ok, String::new())
        }
        Exit::Signal(signal) => {
            result.exit_code = 128 + signal;
            (Code::Ok, String::new())
        }
        Exit::TimedOut => {
            let seconds = lease.timeout.map_or(0, |timeout| timeout.seconds);
            (Code::DeadlineExceeded, format!("the command ran longer than its timeout of {seconds} s and was stopped"))
        }
        Exit::Cancelled => (Code::Cancelled, "the action was cancelled".to_owned()),
        Exit::OutOfMemory => {
            let mib = reserved.memory_bytes >> 20;
            let words =
                format!("the command used more than its limit of {mib} MiB of memory and was stopped; raise `memory`");
            (Code::ResourceExhausted, words)
        }
        Exit::DiskFull | Exit::NoRoom => {
            let words = "the command wrote more than fits on the worker's disk and was stopped";
            (Code::ResourceExhausted, words.to_owned())
        }
        Exit::TooManyProcesses => {
            let words = format!("the command started more than {MAX_PROCESSES} processes and was stopped");
            (Code::ResourceExhausted, words)
        }
    };
    if code != Code::Ok {
        result.exit_code = -1;
    }
    rpc::Status { code: code as i32, message, details: Vec::new() }
}

/// Details that the exit code alone does not show, such as a death by a signal rather than an exit with such a code.
fn words(exit: &Exit) -> String {
    match exit {
        Exit::Signal(signal) => {
            let name = nix::sys::signal::Signal::try_from(*signal).map_or("unknown", nix::sys::signal::Signal::as_str);
            format!("the command was killed by signal {signal} ({name})")
        }
        _ => String::new(),
    }
}

fn cancelled() -> Fault {
    action_fault(Code::Cancelled, "the action was cancelled")
}

fn executor_fault(error: executor::Error) -> Fault {
    match error {
        executor::Error::Worker(words) => Fault::Worker(words),
        executor::Error::Action(words) => action_fault(Code::InvalidArgument, words),
        executor::Error::Cancelled => cancelled(),
    }
}

fn input_fault(error: inputs::Error) -> Fault {
    match error {
        inputs::Error::Missing(digests) => Fault::Action(precondition::missing(&digests)),
        inputs::Error::Invalid(words) => action_fault(Code::InvalidArgument, words),
        other => Fault::Worker(other.to_string()),
    }
}

fn result_fault(error: transfer::Error) -> Fault {
    match error {
        // The farm takes no such outputs.
        transfer::Error::Status(status) if status.code() == Code::OutOfRange => {
            action_fault(Code::InvalidArgument, status.message())
        }
        other => Fault::Worker(format!("cannot store the outputs: {other}")),
    }
}

fn output_fault(error: outputs::Error) -> Fault {
    match error {
        outputs::Error::Precondition(words) => action_fault(Code::FailedPrecondition, words),
        outputs::Error::Invalid(words) => action_fault(Code::InvalidArgument, words),
        other => Fault::Worker(other.to_string()),
    }
}
