//! `kiln up`: a whole farm on this machine, in separate processes that end with this one.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use futures::future::{join_all, select_all};
use kiln_images::registry::Pattern;
use kiln_proto::channel;
use kiln_proto::v1::StatusRequest;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_supervise::{Failed, Process};
use kiln_units::Bound;
use tokio::sync::watch;

use crate::farm::{Error as FarmError, parts};
use crate::interrupts::Interrupts;
use crate::{Code, Error, args, local};
use kiln_terminal as terminal;

const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(args: args::Up, interrupts: &Interrupts) -> Result<Code, Error> {
    let [listen, caches, pages] = addresses(&args)?;
    let url = format!("http://{listen}");
    let data_dir = match args.data_dir {
        Some(dir) => std::path::absolute(&dir).map_err(|source| Error::Write { path: dir, source })?,
        None => local::cache_dir()?.join("up"),
    };
    std::fs::create_dir_all(&data_dir).map_err(|source| Error::Write { path: data_dir.clone(), source })?;
    let (ready, is_ready) = watch::channel(false);
    let (stop_workers, workers_stop) = watch::channel(false);
    let (stop_coordinator, coordinator_stop) = watch::channel(false);
    let share = Share::of(args.workers, &data_dir);
    let names: Vec<String> = (1..=args.workers).map(|number| format!("worker-{number}")).collect();
    let mut coordinator = Box::pin(
        coordinator_process([listen, caches, pages], &data_dir, args.store_size, args.queue_timeout, args.insecure)
            .keep(is_ready.clone(), coordinator_stop),
    );
    let mut workers: Vec<_> = names
        .iter()
        .map(|name| {
            Box::pin(
                worker_process(&url, name, &data_dir, &share, args.trust_host_ca)
                    .keep(is_ready.clone(), workers_stop.clone()),
            )
        })
        .collect();
    let failed = {
        let wait = async {
            all_there(&url, &names).await;
            ready.send_replace(true);
            terminal::say(&ready_words(&url, (listen, pages), names.len(), &share, args.insecure));
            std::future::pending::<()>().await;
        };
        let any_worker = async {
            if workers.is_empty() {
                return std::future::pending().await;
            }
            select_all(&mut workers).await.0
        };
        tokio::select! {
            () = interrupts.first() => None,
            result = &mut coordinator => result.err(),
            result = any_worker => result.err(),
            () = wait => None,
        }
    };
    // The other processes end when their handles are dropped.
    match failed {
        Some(Failed::Said(code)) => return Ok(Code::Passed(code)),
        Some(Failed::Silently { reason }) => return Err(FarmError::Part { reason }.into()),
        None => {}
    }
    terminal::say("stopping");
    stop_workers.send_replace(true);
    {
        // The coordinator continues while the workers deliver their results.
        let workers = join_all(workers);
        tokio::select! {
            _ = workers => {}
            _ = &mut coordinator => {}
        }
    }
    stop_coordinator.send_replace(true);
    let _ = coordinator.await;
    Ok(Code::Success)
}

/// The addresses of the farm, of the caches of build tools, and of the pages: those that are given, else ports after the farm's, or free ones.
/// No two are the same: all are held until all are chosen, and no default takes what is given.
fn addresses(args: &args::Up) -> Result<[SocketAddr; 3], Error> {
    let at = |address: SocketAddr, option: &str| {
        let is_not = |error| format!("cannot listen on `{address}` ({error}); choose another address with `{option}`");
        TcpListener::bind(address).map_err(|error| Error::Usage(is_not(error)))
    };
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| Error::Usage(error.to_string()));
    let farm = at(args.listen, "--listen")?;
    let listen = address(&farm)?;
    let caches = args.cache_listen.map(|given| at(given, "--cache-listen")).transpose()?;
    let pages = args.web_listen.map(|given| at(given, "--web-listen")).transpose()?;
    let or_beside = |given: Option<TcpListener>, ports: u16| {
        let next = |ports| TcpListener::bind(SocketAddr::new(listen.ip(), listen.port().checked_add(ports)?)).ok();
        given.or_else(|| next(ports)).map_or_else(|| at(SocketAddr::new(listen.ip(), 0), "--listen"), Ok)
    };
    let caches = or_beside(caches, 1)?;
    let pages = or_beside(pages, 2)?;
    Ok([listen, address(&caches)?, address(&pages)?])
}

/// Completes when the coordinator responds and has all these workers.
async fn all_there(url: &str, names: &[String]) {
    loop {
        if let Ok(channel) = channel::connect(url, &Default::default()).await
            && let Ok(status) = FarmClient::new(channel).status(StatusRequest {}).await
        {
            let workers = &status.get_ref().workers;
            if names.iter().all(|name| workers.iter().any(|worker| worker.worker == *name && worker.connected)) {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The message when everything is ready: how other commands use the farm, and how to add a worker.
fn ready_words(
    url: &str,
    (listen, pages): (SocketAddr, SocketAddr),
    workers: usize,
    share: &Share,
    insecure: bool,
) -> String {
    let each = if workers > 1 { " each" } else { "" };
    let callers = match kiln_proto::local::token_file(listen.port()).filter(|_| !insecure) {
        Some(file) => format!(
            "# for your own programs; others must send the token: bazel build --remote_executor={} \"--remote_header=authorization=Bearer \
             $(cat {})\"",
            url.replacen("http", "grpc", 1),
            file.display()
        ),
        None => "# INSECURE: every user of this machine may run commands as you".to_owned(),
    };
    let elsewhere = if listen.ip().is_loopback() {
        "# workers on other machines need a farm with certificates: `kiln farm init`"
    } else {
        "# also on other machines, where this address reaches this one"
    };
    let workers = terminal::count(workers, "worker");
    let (cpus, memory) = (share.cpus, terminal::size(share.memory_bytes));
    format!(
        "ready: {url} with {workers} ({cpus} CPUs and {memory}{each}); Ctrl-C stops it\n\
         export KILN_FARM={url}\n\
         kiln web   # opens http://{pages} in a browser: builds, logs, workers\n\
         kiln-worker --coordinator {url} --name NAME --state-dir DIR   # adds a worker\n\
         eval \"$(kiln cache env ccache)\"   # ccache, bazel, go, gradle, nx, sccache and turbo can cache here\n\
         {callers}\n\
         {elsewhere}"
    )
}

/// Each worker's part of the machine.
#[derive(Debug, Clone, Copy)]
struct Share {
    cpus: f64,
    memory_bytes: u64,
    cache_bytes: u64,
}

impl Share {
    fn of(workers: u32, data_dir: &Path) -> Self {
        let machine = kiln_worker::probe::capacity(None, None);
        let workers = workers.max(1);
        // A worker with less than one CPU or with very little memory could run hardly anything.
        let cpus = f64::from((machine.milli_cpus / workers).max(machine.milli_cpus.min(1000))) / 1000.0;
        let memory_bytes = (machine.memory_bytes / u64::from(workers)).max(machine.memory_bytes.min(512 << 20));
        Self { cpus, memory_bytes, cache_bytes: parts::cache_bytes(data_dir, workers.into()).max(1) }
    }
}

fn coordinator_process(
    [listen, caches, pages]: [SocketAddr; 3],
    data_dir: &Path,
    store_size: Bound,
    queue_timeout: Duration,
    insecure: bool,
) -> Process {
    let (store_size, queue_timeout) = (kiln_units::show_bound(store_size), kiln_units::show_duration(queue_timeout));
    let mut process = Process {
        name: "the coordinator".to_owned(),
        arguments: vec![
            "coordinator".into(),
            "--listen".into(),
            listen.to_string().into(),
            "--cache-listen".into(),
            caches.to_string().into(),
            "--web-listen".into(),
            pages.to_string().into(),
            "--data-dir".into(),
            data_dir.join("coordinator").into(),
            "--store-size".into(),
            store_size.clone().into(),
            "--artifacts-size".into(),
            store_size.into(),
            "--queue-timeout".into(),
            queue_timeout.into(),
            // As for a farm inside a command: whoever builds here is on this machine.
            "--allow-registry".into(),
            Pattern::LOCAL.join(",").into(),
            "--own-credentials".into(),
            "--parent".into(),
            std::process::id().to_string().into(),
        ],
    };
    process.arguments.extend(insecure.then(|| "--insecure".into()));
    process
}

fn worker_process(url: &str, name: &str, data_dir: &Path, share: &Share, trust_host_ca: bool) -> Process {
    let mut process = Process {
        name: name.to_owned(),
        arguments: vec![
            "worker".into(),
            "--coordinator".into(),
            url.into(),
            "--name".into(),
            name.into(),
            "--state-dir".into(),
            data_dir.join(name).into(),
            "--cpus".into(),
            share.cpus.to_string().into(),
            "--memory".into(),
            share.memory_bytes.to_string().into(),
            "--cache-size".into(),
            share.cache_bytes.to_string().into(),
            "--own-credentials".into(),
            "--parent".into(),
            std::process::id().to_string().into(),
        ],
    };
    process.arguments.extend(trust_host_ca.then(|| "--trust-host-ca".into()));
    process
}

/// The hidden `kiln coordinator`.
pub(super) async fn coordinator(args: args::Coordinator, interrupts: Interrupts) -> Result<Code, Error> {
    let listen = args.config.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| Error::Usage(format!("cannot listen on `{listen}`: {error}")))?;
    parts::coordinator(args.config, listener, async move { interrupts.first().await })
        .await
        .map_err(|reason| FarmError::Part { reason: format!("coordinator: {reason}") })?;
    Ok(Code::Success)
}

/// The hidden `kiln worker`.
pub(super) async fn worker(args: args::Worker, interrupts: Interrupts) -> Result<Code, Error> {
    let name = args.config.name.clone();
    parts::worker(args.config, async move { interrupts.first().await })
        .await
        .map_err(|reason| FarmError::Part { reason: format!("{name}: {reason}") })?;
    Ok(Code::Success)
}
