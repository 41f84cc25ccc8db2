//! The scheduler alone, in memory: assignments per second, the time of each kind of event, and the memory.

mod ledger;
mod workload;

use anyhow::{Context, ensure};
use kiln_scheduler::{Event, WaiterId};

use crate::process::Process;
use crate::report::Figure;
use ledger::Ledger;
use workload::Size;

/// Workers that join before most actions are queued: one of either architecture, which are busy from then on.
const FIRST_WORKERS: u64 = 2;
/// Every so many completions a large worker is lost, and joins again.
const LOSS_EVERY: u64 = 4_999;
/// Every so many completions a caller stops waiting for an action that is queued.
const LEAVE_EVERY: u64 = 97;
/// Every so many completions a worker's connection breaks, and it is drained for a moment.
const TROUBLE_EVERY: u64 = 101;
/// Every so many completions a lease reports that its command runs.
const START_EVERY: u64 = 11;
/// The smallest number of leases of a worker whose loss is counted.
const LEASES_LOST: usize = 64;

/// `kiln-bench scheduler`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Number of queued actions.
    #[arg(long, default_value = "1000000", value_parser = clap::value_parser!(u64).range(1000..))]
    pub actions: u64,
    /// Number of workers; each hundredth has 40 CPUs, the others 4.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(100..))]
    pub workers: u64,
    /// Number of distinct requirements.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(1..))]
    pub classes: u64,
    /// Number of shares of the farm.
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u64).range(1..))]
    pub shares: u64,
    /// Number of builds in each share.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..))]
    pub builds: u64,
    /// Number of input directories of an action.
    #[arg(long, default_value = "20")]
    pub inputs: u64,
    /// Also measure a farm with so many times fewer actions and workers, in turns; 1 for none.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    pub smaller: u64,
    /// Number of actions that arrive one by one at the farm without a queue afterwards.
    #[arg(long, default_value = "40000")]
    pub arrivals: u64,
    /// How often each farm is measured; figures are medians.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    fn size(&self, smaller: u64) -> Size {
        let Options { classes, inputs, .. } = *self;
        let shares = (self.shares, self.builds);
        Size { actions: self.actions / smaller, workers: self.workers / smaller, classes, shares, inputs }
    }
}

/// One measured farm.
#[derive(Debug, Clone)]
struct Measured {
    /// Per second of CPU time.
    queued: f64,
    assigned: f64,
    /// Of this process, above what it had before: with everything queued, and at most.
    resident: (u64, u64),
    checked: u64,
    events: Vec<Events>,
}

/// The time that events of one kind took, in microseconds.
#[derive(Debug, Clone)]
struct Events {
    kind: &'static str,
    count: u64,
    median: f64,
    of_100: f64,
    of_1000: f64,
    longest: f64,
}

/// Measures both farms in turns.
///
/// # Errors
/// If an action is not assigned exactly once for each time that it waits, or is not completed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let smaller = (options.smaller > 1).then_some(options.smaller);
    let sizes: Vec<Size> = [1].into_iter().chain(smaller).map(|smaller| options.size(smaller)).collect();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); sizes.len()];
    for round in 1..=options.rounds {
        for (size, measured) in sizes.iter().zip(&mut measured) {
            eprintln!("round {round}: {} actions on {} workers ...", size.actions, size.workers);
            measured.push(measure(size, options.arrivals.min(size.actions))?);
        }
    }
    let mut figures: Vec<Figure> =
        sizes.iter().zip(&measured).flat_map(|(size, measured)| rates(size, measured)).collect();
    if let [large, small] = measured.as_slice() {
        let ratio = median(large.iter().zip(small).map(|(large, small)| large.assigned / small.assigned));
        figures.push(Figure::new("assigned, ratio of the large farm to the small one", ratio, "").wanted("1"));
    }
    // Later farms reuse what the first one freed, so only the first one's memory is meaningful.
    let Some(first) = measured.first().and_then(|measured| measured.first()) else { return Ok(()) };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    figures.push(Figure::new("resident memory with all actions queued", mib(first.resident.0), "MiB"));
    figures.push(Figure::new("resident memory, peak", mib(first.resident.1), "MiB").wanted("under 1024"));
    figures.push(Figure::new("assignments in a round, all checked", first.checked as f64, ""));
    if options.json {
        figures.extend(first.events.iter().flat_map(Events::figures));
    }
    crate::report::print(&figures, options.json)?;
    if !options.json {
        println!(
            "\n{:36} {:>9} {:>10} {:>10} {:>10} {:>10}",
            "µs of CPU time", "events", "median", "99%", "99.9%", "longest"
        );
        for Events { kind, count, median, of_100, of_1000, longest } in &first.events {
            println!("{kind:36} {count:>9} {median:>10.1} {of_100:>10.1} {of_1000:>10.1} {longest:>10.1}");
        }
    }
    Ok(())
}

impl Events {
    fn figures(&self) -> Vec<Figure> {
        let Events { kind, count, median, of_100, of_1000, longest } = self;
        let times = [("median", median), ("99%", of_100), ("99.9%", of_1000), ("longest", longest)];
        let times = times.map(|(name, micros)| Figure::new(format!("{kind}: {name}"), *micros, "µs"));
        [Figure::new(format!("{kind}: events"), *count as f64, "")].into_iter().chain(times).collect()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn rates(size: &Size, measured: &[Measured]) -> [Figure; 2] {
    let name = format!("{} actions on {} workers", size.actions, size.workers);
    let assigned = median(measured.iter().map(|one| one.assigned));
    let queued = median(measured.iter().map(|one| one.queued));
    [
        Figure::new(format!("{name}: assigned"), assigned, "per CPU second"),
        Figure::new(format!("{name}: queued"), queued, "per CPU second"),
    ]
}

fn measure(size: &Size, arrivals: u64) -> anyhow::Result<Measured> {
    let own = Process::new(std::process::id())?;
    let resident = || own.resident_bytes().context("cannot read this process's memory");
    let before = resident()?;
    own.reset_peak();
    let mut ledger = Ledger::new(size.actions);
    queue_all(size, &mut ledger)?;
    let (queueing, queued) = (ledger.took, resident()?.saturating_sub(before));
    run_all(size, &mut ledger)?;
    let (working, checked) = (ledger.took - queueing, ledger.assigned);
    let peak = own.peak_bytes().context("cannot read this process's memory")?.saturating_sub(before);
    arrive(size, arrivals, &mut ledger)?;
    let events = ledger.times().into_iter().map(|(kind, times)| {
        let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        let (median, of_100, of_1000, longest) = (micros(0.5), micros(0.99), micros(0.999), micros(1.0));
        Events { kind, count: times.len(), median, of_100, of_1000, longest }
    });
    Ok(Measured {
        queued: size.actions as f64 / queueing.as_secs_f64(),
        assigned: checked as f64 / working.as_secs_f64(),
        resident: (queued, peak),
        checked,
        events: events.collect(),
    })
}

/// Queues all actions, most of them behind what the first workers run.
fn queue_all(size: &Size, ledger: &mut Ledger) -> anyhow::Result<()> {
    let alone = size.actions / 100;
    for number in 0..alone {
        ledger.step("submit, no worker is there", Event::Submit(size.submission(number)))?;
    }
    for number in 0..FIRST_WORKERS {
        ledger.step("worker joined", Event::WorkerJoined(size.offer(number)))?;
    }
    for number in alone..size.actions {
        ledger.step("submit, queued", Event::Submit(size.submission(number)))?;
    }
    Ok(())
}

/// All workers join, and everything runs; some of it is cancelled, and workers are lost on the way.
fn run_all(size: &Size, ledger: &mut Ledger) -> anyhow::Result<()> {
    for number in FIRST_WORKERS..size.workers {
        ledger.step("worker joined", Event::WorkerJoined(size.offer(number)))?;
    }
    let (mut completed, mut leaving) = (0_u64, size.actions);
    let mut large = (0..size.workers).filter(|number| workload::is_large(*number)).cycle();
    while ledger.finish_one("finished")?.is_some() {
        completed += 1;
        if completed.is_multiple_of(LEAVE_EVERY) && leaving > 0 {
            leaving -= 1;
            if ledger.waits(leaving) {
                ledger.step("leave, queued", Event::Leave(WaiterId(leaving)))?;
            }
        }
        if completed.is_multiple_of(TROUBLE_EVERY) {
            trouble(size, ledger, completed)?;
        }
        if completed.is_multiple_of(START_EVERY)
            && let Some(lease) = ledger.newest()
        {
            ledger.step("started", Event::Started(lease))?;
        }
        if completed.is_multiple_of(LOSS_EVERY)
            && let Some(number) = large.next()
        {
            lose(size, ledger, number)?;
        }
    }
    ledger.check_the_end()
}

/// A worker's connection breaks and it comes back; it is drained for a moment.
fn trouble(size: &Size, ledger: &mut Ledger, completed: u64) -> anyhow::Result<()> {
    let worker = workload::name(completed % size.workers);
    let drain = |on| Event::Drain { worker: worker.clone(), on };
    ledger.step("drain", drain(true))?;
    ledger.step("drain ends", drain(false))?;
    ledger.step("tick", Event::Tick)?;
    Ok(())
}

/// A worker is lost with all that it runs, and joins again.
fn lose(size: &Size, ledger: &mut Ledger, number: u64) -> anyhow::Result<()> {
    let worker = workload::name(number);
    let held = ledger.held_by(&worker);
    let kind = if held >= LEASES_LOST { "worker lost with 64 leases or more" } else { "worker lost with fewer leases" };
    ledger.step(kind, Event::WorkerGone(worker))?;
    ledger.step("worker joined again", Event::WorkerJoined(size.offer(number)))?;
    Ok(())
}

/// Actions arrive at a farm with free capacity: each is placed at once. About half of the workers' CPUs are in use.
fn arrive(size: &Size, arrivals: u64, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut open = 0;
    ledger.forget_actions();
    for number in 0..arrivals {
        let assigned = ledger.step("submit, placed at once", Event::Submit(size.submission(number)))?;
        ensure!(assigned == 1, "action {number} waits although workers are idle");
        open += 1;
        if open > size.workers * 2 {
            ledger.finish_one("finished, nothing waits")?;
            open -= 1;
        }
    }
    while ledger.finish_one("finished, nothing waits")?.is_some() {}
    Ok(())
}
