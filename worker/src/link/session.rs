//! One connection to the coordinator, from connecting to its end.

use std::sync::Arc;
use std::time::Duration;

use kiln_proto::channel::{Channel, Dial, MAX_MESSAGE_BYTES};
use kiln_proto::v1;
use kiln_proto::v1::workers_client::WorkersClient;
use kiln_proto::v1::{coordinator_message, worker_message};
use kiln_telemetry::trace;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::fence::Fence;
use super::{Identity, Leases, Stopping};
use crate::runner::Runner;

/// Messages queued while the connection is slow.
const OUTBOX: usize = 256;
/// Heartbeat interval if the coordinator names none.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The worker is shutting down.
    Stopped,
    /// The worker's identity changed, so it registers again.
    Changed,
    /// The connection broke or was refused.
    Broken { after_registering: bool, reason: String },
    /// Another worker with this name is connected.
    NameInUse { reason: String },
}

/// Why the session ended early.
enum Failed {
    NameInUse(String),
    Broken(String),
}

impl Failed {
    fn of(status: tonic::Status) -> Self {
        let reason = status.message().to_owned();
        if status.code() == tonic::Code::AlreadyExists { Self::NameInUse(reason) } else { Self::Broken(reason) }
    }
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

fn wrap(message: worker_message::Message) -> v1::WorkerMessage {
    v1::WorkerMessage { message: Some(message) }
}

pub(super) async fn run(
    farm: &Dial,
    identity: &watch::Receiver<Identity>,
    runner: &Arc<Runner>,
    leases: &Arc<Leases>,
    stopping: &Stopping,
    fence: &mut Fence,
) -> Ended {
    let mut identity = identity.clone();
    let now = identity.borrow_and_update().clone();
    let (outbox, inbox) = mpsc::channel(OUTBOX);
    let (connection, running) = leases.connect();
    let mut registered = false;
    let talking = async {
        let channel = tokio::select! {
            channel = farm.connect() => channel.map_err(|error| error.to_string())?,
            () = stopping.leave.cancelled() => return Ok(()),
        };
        let queues = (outbox, inbox);
        let current = (connection, running);
        let talking = talk(&channel, &now, runner, leases, stopping, fence, queues, current, &mut registered);
        // However it ended, another coordinator may be better.
        talking.await.inspect_err(|_| channel.leave())
    };
    let ended = tokio::select! {
        result = talking => Some(result),
        // If the identity can no longer change, only the session itself ends this.
        Ok(()) = identity.changed() => None,
    };
    leases.disconnect();
    runner.tally().linked(false);
    match ended {
        None => Ended::Changed,
        Some(Ok(())) => Ended::Stopped,
        Some(Err(Failed::NameInUse(reason))) => Ended::NameInUse { reason },
        Some(Err(Failed::Broken(reason))) => Ended::Broken { after_registering: registered, reason },
    }
}

#[allow(clippy::too_many_arguments)]
async fn talk(
    channel: &Channel,
    identity: &Identity,
    runner: &Arc<Runner>,
    leases: &Arc<Leases>,
    stopping: &Stopping,
    fence: &mut Fence,
    (outbox, inbox): (mpsc::Sender<v1::WorkerMessage>, mpsc::Receiver<v1::WorkerMessage>),
    (connection, running): (u64, Vec<v1::RunningLease>),
    registered: &mut bool,
) -> Result<(), Failed> {
    runner.set_channel(channel.clone());
    let mut client = WorkersClient::new(channel.clone())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let register = v1::Register {
        worker: identity.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: Some(identity.environment.clone()),
        capacity: Some(identity.capacity),
        running,
        session: identity.session.clone(),
        tenants: identity.tenants.clone(),
        shows: true,
    };
    outbox.send(wrap(worker_message::Message::Register(register))).await.map_err(|error| error.to_string())?;
    let answers = client.link(ReceiverStream::new(inbox)).await.map_err(Failed::of)?;
    let mut answers = answers.into_inner();
    // In a separate task, because there may be more messages than the outbox holds.
    let (kept, resend) = (leases.clone(), outbox.clone());
    let resending = tokio::spawn(async move { kept.catch_up(connection, resend).await });
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    let mut told = false;
    loop {
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(message)) => match message.message {
                    Some(coordinator_message::Message::Registered(welcome)) => {
                        if let Err(past) = fence.admit(welcome.epoch) {
                            if past.is_news {
                                tracing::warn!(url = channel.url(), "{past}");
                            }
                            return Err(past.to_string().into());
                        }
                        *registered = true;
                        runner.tally().linked(true);
                        tracing::info!(url = channel.url(), name = identity.name, "registered");
                        if let Some(every) = welcome.heartbeat_interval.filter(|every| every.seconds > 0) {
                            heartbeat = tokio::time::interval(Duration::from_secs(every.seconds as u64));
                        }
                        welcome.unwanted.iter().for_each(|lease| leases.cancel(*lease));
                    }
                    // Before its greeting, nobody knows whether the coordinator still leads the farm.
                    Some(_) if !*registered => return Err("the coordinator did not begin with a greeting".to_owned().into()),
                    Some(coordinator_message::Message::Lease(lease)) => begin(runner, leases, lease),
                    Some(coordinator_message::Message::Cancel(cancel)) => leases.cancel(cancel.lease),
                    Some(coordinator_message::Message::FinishedAck(ack)) => leases.acknowledged(ack.lease),
                    None => {}
                },
                Ok(None) => return Err("the coordinator ended the connection".to_owned().into()),
                Err(status) => return Err(Failed::of(status)),
            },
            _ = heartbeat.tick() => {
                let _ = outbox.try_send(beat(stopping.drain.is_cancelled()));
            }
            () = stopping.drain.cancelled(), if !told => {
                told = true;
                let _ = outbox.try_send(beat(true));
            }
            () = stopping.leave.cancelled() => break,
        }
    }
    resending.abort();
    let _ = outbox.send(wrap(worker_message::Message::Goodbye(v1::Goodbye {}))).await;
    // The goodbye is being sent when the coordinator ends the stream.
    drop(outbox);
    leases.disconnect();
    let _ = tokio::time::timeout(Duration::from_secs(1), async { while let Ok(Some(_)) = answers.message().await {} })
        .await;
    Ok(())
}

fn beat(stopping: bool) -> v1::WorkerMessage {
    wrap(worker_message::Message::Heartbeat(v1::Heartbeat { stopping }))
}

fn begin(runner: &Arc<Runner>, leases: &Arc<Leases>, lease: v1::Lease) {
    let Some(cancel) = leases.take(lease.clone()) else { return };
    let (runner, leases) = (runner.clone(), leases.clone());
    let span = span(&lease);
    let work = async move {
        let finished = runner.run(lease, leases.clone(), cancel).await;
        leases.finished(finished).await;
    };
    tokio::spawn(work.instrument(span));
}

/// The span of all work for a lease, in the trace of its caller.
fn span(lease: &v1::Lease) -> tracing::Span {
    let action = lease.action_digest.as_ref().map_or("", |digest| digest.hash.as_str());
    let span = tracing::info_span!(parent: None, "lease", lease = lease.lease, action, attempt = lease.attempt);
    trace::adopt(&span, &lease.traceparent);
    span
}
