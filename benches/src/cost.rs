//! The cost of authentication and telemetry: the same actions on farms that differ only in that.
//!
//! The farms run side by side and rounds alternate between them, so that a machine that becomes slower affects all of
//! them. The figures are medians of the rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::{StreamExt, stream};
use kiln_proto::channel::Channel;
use kiln_proto::reapi::GetActionResultRequest;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::actions::FUNCTION;
use crate::execute::{self, Ran};
use crate::farm::{Farm, Setup};
use crate::report::Figure;

/// Concurrent actions when throughput is measured.
const AT_ONCE: usize = 16;

/// `kiln-bench cost`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Number of rounds per farm.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Actions per round, one at a time and then 16 at once.
    #[arg(long, default_value = "300", value_parser = clap::value_parser!(u32).range(1..))]
    pub actions: u32,
    /// Small calls per round; more of them, because each takes microseconds.
    #[arg(long, default_value = "20000", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// A farm and its measurements.
struct Case {
    name: &'static str,
    farm: Farm,
    channel: Channel,
    median_ms: Vec<f64>,
    per_second: Vec<f64>,
    calls_per_second: Vec<f64>,
}

impl Case {
    async fn start(name: &'static str, setup: Setup) -> anyhow::Result<Self> {
        let farm = Farm::start(1, setup).await?;
        let channel = farm.connect().await?;
        let (median_ms, per_second, calls_per_second) = Default::default();
        Ok(Self { name, farm, channel, median_ms, per_second, calls_per_second })
    }

    /// Discards the warm-up's measurements.
    fn forget(&mut self) {
        for values in [&mut self.median_ms, &mut self.per_second, &mut self.calls_per_second] {
            values.clear();
        }
    }

    async fn round(&mut self, actions: u32, small: u32) -> anyhow::Result<()> {
        let one = execute::run(&self.channel, None, actions, 1).await?;
        self.median_ms.push(one.latencies.quantile_ms(0.5));
        let many: Ran = execute::run(&self.channel, None, actions * 2, AT_ONCE).await?;
        self.per_second.push(many.per_second);
        self.calls_per_second.push(calls(&self.channel, small).await?);
        Ok(())
    }
}

/// Small calls per second: lookups of a missing result.
async fn calls(channel: &Channel, count: u32) -> anyhow::Result<f64> {
    let began = Instant::now();
    let answers = stream::iter(0..count).map(|number| {
        let mut client = ActionCacheClient::new(channel.clone());
        let digest = FUNCTION.digest(&number.to_le_bytes()).to_wire();
        async move {
            let request = GetActionResultRequest { action_digest: Some(digest), ..Default::default() };
            client.get_action_result(request).await.err().map(|status| status.code())
        }
    });
    let codes: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
    let per_second = f64::from(count) / began.elapsed().as_secs_f64();
    if let Some(other) = codes.iter().find(|code| **code != Some(Code::NotFound)) {
        bail!("expected every call to find nothing, found {other:?}");
    }
    Ok(per_second)
}

/// Runs the rounds, and prints each farm's figures and how they compare with the plain farm's.
///
/// # Errors
/// If a farm cannot be started or an action fails.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.url.clone());
    let traced = Setup {
        arguments: vec!["--metrics-listen".to_owned(), "127.0.0.1:0".to_owned()],
        variables: vec![endpoint],
        tls: false,
    };
    let mut cases = vec![
        Case::start("plain", Setup::default()).await?,
        // The same again: the difference between two equal farms.
        Case::start("plain again", Setup::default()).await?,
        Case::start("TLS and certificates", Setup { tls: true, ..Setup::default() }).await?,
        Case::start("telemetry", traced).await?,
    ];
    for round in 0..=options.rounds {
        eprintln!("round {round} of {} ...", options.rounds);
        for turn in 0..cases.len() {
            // Each farm is first as often as it is last, because what one leaves behind slows down the next.
            let index = (turn + round as usize) % cases.len();
            let case = &mut cases[index];
            case.round(options.actions, options.calls).await?;
            if round == 0 {
                case.forget();
            }
        }
    }
    // Spans are exported in batches.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let spans = collector.spans.load(Ordering::Relaxed);
    if spans == 0 {
        bail!("the farm with telemetry exported no spans, so its cost was not measured");
    }
    crate::report::print(&figures(&cases, spans), options.json)
}

fn figures(cases: &[Case], spans: u64) -> Vec<Figure> {
    let of = |values: &[f64]| median(values);
    let mut figures = Vec::new();
    let Some(plain) = cases.first() else { return figures };
    for case in cases {
        let name = case.name;
        let median_ms = of(&case.median_ms);
        let mut latency = Figure::new(format!("{name}: /bin/true, p50"), median_ms, "ms");
        let mut rate = Figure::new(format!("{name}: /bin/true, 16 at once"), of(&case.per_second), "actions/s");
        let mut calls = Figure::new(format!("{name}: small calls, 16 at once"), of(&case.calls_per_second), "calls/s");
        if !std::ptr::eq(case, plain) {
            let percent = |own: &[f64], other: &[f64]| (1.0 - of(own) / of(other)) * 100.0;
            let most = if name == "telemetry" { "5 %" } else { "15 %" };
            latency = latency.wanted(format!("1 ms more at most; {:+.2} ms", median_ms - of(&plain.median_ms)));
            rate = rate.wanted(format!("{most} fewer at most; {:.1} %", percent(&case.per_second, &plain.per_second)));
            let fewer = percent(&case.calls_per_second, &plain.calls_per_second);
            calls = calls.wanted(format!("{fewer:.1} % fewer"));
        }
        figures.extend([latency, rate, calls]);
        if let Some(bytes) = case.farm.coordinator().ok().and_then(|process| process.peak_bytes()) {
            figures.push(Figure::new(format!("{name}: coordinator, peak resident"), bytes as f64 / 1048576.0, "MiB"));
        }
    }
    figures.push(Figure::new("spans that the collector got", spans as f64, "spans"));
    figures
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A collector that counts spans and discards them.
struct Collector {
    url: String,
    spans: Arc<AtomicU64>,
}

struct Counting(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Counting {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = &request.get_ref().resource_spans;
        let spans: usize = resources.iter().flat_map(|one| &one.scope_spans).map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let spans = Arc::new(AtomicU64::default());
        let service = TraceServiceServer::new(Counting(spans.clone()));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { url, spans })
    }
}
