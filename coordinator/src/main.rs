//! `kiln-coordinator`.

use clap::Parser;
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(name = "kiln-coordinator", version, about = "Kiln's coordinator: plans, places, caches and stores")]
struct Arguments {
    #[command(flatten)]
    config: kiln_coordinator::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    kiln_proto::secret::no_core_dumps();
    let filter = tracing_subscriber::EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let listener = TcpListener::bind(arguments.config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on `{}`: {error}", arguments.config.listen))?;
    kiln_coordinator::run(arguments.config, listener, stop_signal()).await
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
