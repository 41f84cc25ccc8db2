//! Telemetry of the farm's processes: logs, traces, metrics and health.
//!
//! Invariants: telemetry that is not enabled is not installed and costs nothing. No argument, output or variable of an
//! action is ever in a span or a label, and labels have few values, whatever clients send.

pub mod calls;
mod export;
mod identity;
pub mod label;
mod log;
mod process;
pub mod scrape;
pub mod trace;

pub use export::tls_of_system;
pub use identity::{Error, Process};
pub use log::Format;
pub use process::{LogFilter, Options, Telemetry};
