//! `kiln-worker`.

use clap::Parser;

#[derive(Parser)]
#[command(name = "kiln-worker", version, about = "Kiln's worker: runs actions for a coordinator")]
struct Arguments {
    #[command(flatten)]
    config: kiln_worker::Config,
}

fn main() -> anyhow::Result<()> {
    kiln_worker::become_init_if_asked();
    work()
}

#[tokio::main]
async fn work() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    kiln_proto::secret::no_core_dumps();
    let filter = tracing_subscriber::EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    kiln_worker::run(arguments.config, stop_signal()).await
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
