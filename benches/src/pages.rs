//! A coordinator with many open pages of one build that prints: its CPU time and memory.
//!
//! Each page has a connection of its own, as a browser that follows the build and shows the output of its step.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};

use crate::crowd::{DIALS, LATE, resident, share, submit, worker};
use crate::farm::{Farm, Setup};
use crate::report::Figure;

/// What a line of output has in it, as a page gets it.
const IN_LINE: &str = "as a compiler says it";

/// `kiln-bench pages`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Number of open pages.
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub pages: u32,
    /// How long to measure, in seconds: in silence, and while the build prints.
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Opens all pages, then measures the coordinator: while nothing happens, and while the build prints a line a second to each.
///
/// # Errors
/// If the farm cannot be started, or a page loses its connection or lines.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let arguments = vec!["--web-listen".to_owned(), address.clone()];
    let farm = Farm::start(0, Setup { arguments, ..Setup::default() }).await?;
    let server = farm.coordinator()?;
    let alone = resident(&server)?;
    let (lines, _) = broadcast::channel(16);
    let (broken, mut breaks) = mpsc::unbounded_channel::<String>();
    worker(&farm.url, "w0".to_owned(), farm.access.clone(), lines.clone(), broken.clone()).await?;
    let build = submit(&farm).await?;
    eprintln!("{} pages of build {build} are opened ...", options.pages);
    let (seen, mut sights) = mpsc::unbounded_channel();
    stream::iter(0..options.pages)
        .map(|_| page(&address, &build, seen.clone(), broken.clone()))
        .buffer_unordered(DIALS)
        .try_collect::<Vec<()>>()
        .await?;
    let time = Duration::from_secs(options.seconds);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let silent = share(&server, time, || ()).await?;
    let mut said = 0;
    let speaking = share(&server, time, || {
        said += 1;
        let _ = lines.send(());
    })
    .await?;
    let wanted = said * options.pages;
    let mut got = 0;
    while got < wanted {
        match tokio::time::timeout(LATE, sights.recv()).await {
            Ok(Some(lines)) => got += lines,
            _ => bail!("expected {} pages to get {said} lines each, but {got} of {wanted} came", options.pages),
        }
    }
    if let Ok(words) = breaks.try_recv() {
        bail!("expected all to stay connected; {words}");
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let who = format!("{} open pages", options.pages);
    let peak = server.peak_bytes().context("cannot read the coordinator's memory")?;
    let figures = [
        Figure::new("coordinator alone, resident", mib(alone), "MiB"),
        Figure::new(format!("{who}: peak resident"), mib(peak), "MiB"),
        Figure::new(format!("{who}, in silence: of one core"), silent * 100.0, "%"),
        Figure::new(format!("{who}, a line a second to each: of one core"), speaking * 100.0, "%").wanted("under 3"),
        Figure::new("  lines that came, which were all", f64::from(got), "lines"),
    ];
    crate::report::print(&figures, options.json)
}

/// Opens a page's connection, and returns once it has got what there was. It tells of each line of output.
async fn page(
    address: &str,
    build: &str,
    seen: mpsc::UnboundedSender<u32>,
    broken: mpsc::UnboundedSender<String>,
) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    let path = format!("/builds/{build}/live?v=0&logs=1:1");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = BufReader::new(connection).lines();
    let status = answer.next_line().await?.unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("expected `{path}` to be answered, found `{status}`");
    }
    let mut lines = 0;
    loop {
        let line = answer.next_line().await?.context("a page's connection ended before its first event")?;
        if line.starts_with("data:") {
            lines += line.matches(IN_LINE).count();
            break;
        }
    }
    let count = |lines: usize| u32::try_from(lines).unwrap_or(u32::MAX);
    let _ = seen.send(count(lines));
    tokio::spawn(async move {
        loop {
            match answer.next_line().await {
                Ok(Some(line)) => match line.matches(IN_LINE).count() {
                    0 => {}
                    lines => drop(seen.send(count(lines))),
                },
                Ok(None) => return drop(broken.send("a page's connection ended".to_owned())),
                Err(error) => return drop(broken.send(format!("a page lost its connection: {error}"))),
            }
        }
    });
    Ok(())
}
