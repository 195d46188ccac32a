//! What latency costs a sync: a fresh node fetches a chain over simulated links of a given bandwidth, at several
//! latencies. `make bench-latency` runs it.
//!
//! Time is virtual: what hashing and checking take is not in it, so nothing but bandwidth, latency and the node's own
//! flow control decides, and equal arguments print equal figures on every machine. Links are simulated at the level of
//! messages: they have a bandwidth, a latency and HTTP/2's window for each stream, but no TCP slow start.

use soma_testkit::{
    BlockKind,
    simulation::{ChainSize, Report, Scenario, full, millis, secs, validator},
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// Makers of the chain, with one block each for each commit.
const AUTHORITIES: u32 = 4;

/// The node that syncs never needs longer than this many times what the links alone take.
const PATIENCE: u32 = 100;

/// Measure in simulation what latency costs a sync.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Megabits per second of each link, in each direction. More make the chain longer, too.
    #[arg(long, default_value_t = 25)]
    mbit: u64,
    /// Latencies of a link, one way, in milliseconds; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "0,20,100")]
    latency_ms: Vec<u64>,
    /// Numbers of serving peers.
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = clap::value_parser!(u32).range(1..=i64::from(AUTHORITIES)))]
    peers: Vec<u32>,
    /// Kinds of blocks.
    #[arg(long, value_delimiter = ',', default_value = "S,C")]
    kinds: Vec<BlockKind>,
    /// The chain is as long as the links of all peers carry in this many seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seed of the simulation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print everything that happens, instead of measuring.
    #[arg(long)]
    journal: bool,
    /// Where the JSON lines go.
    #[arg(long, default_value = "bench-out/latency.jsonl")]
    out: PathBuf,
}

/// One sync.
struct Measured {
    kind: BlockKind,
    peers: u32,
    mbit: u64,
    latency_ms: u64,
    blocks: u64,
    bytes: u64,
    /// From the start of all nodes until the one that syncs has executed the last commit.
    took: Duration,
}

impl Measured {
    fn blocks_per_s(&self) -> f64 {
        self.blocks as f64 / self.took.as_secs_f64()
    }

    fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    /// Of what the links carry, how much was used.
    fn of_bandwidth(&self) -> f64 {
        self.mb_per_s() / (f64::from(self.peers) * self.mbit as f64 / 8.0)
    }
}

pub(crate) fn run(options: &Args) -> anyhow::Result<ExitCode> {
    if options.journal {
        return journal(options);
    }
    if let Some(parent) = options.out.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut out = BufWriter::new(File::create(&options.out)?);
    println!("virtual time; each link {} Mbit/s in each direction, latency one way", options.mbit);
    println!("kind  peers  latency      blocks      MB   time, s    blocks/s     MB/s  of links  of 0 ms");
    for &kind in &options.kinds {
        for &peers in &options.peers {
            let mut first = None;
            for &latency_ms in &options.latency_ms {
                let measured = measure(options, kind, peers, latency_ms)?;
                let base = *first.get_or_insert(measured.blocks_per_s());
                let ratio = measured.blocks_per_s() / base;
                tell(&measured, ratio);
                writeln!(out, "{}", line(&measured, ratio))?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn journal(options: &Args) -> anyhow::Result<ExitCode> {
    for &kind in &options.kinds {
        for &peers in &options.peers {
            for &latency_ms in &options.latency_ms {
                let lines = scenario(options, kind, peers, latency_ms)?.tell(options.seed)?;
                lines.iter().for_each(|line| println!("{line}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn scenario(options: &Args, kind: BlockKind, peers: u32, latency_ms: u64) -> anyhow::Result<Scenario> {
    let bandwidth = options.mbit * 1_000_000 / 8;
    let bytes = bandwidth * u64::from(peers) * options.seconds;
    let commits = (bytes / (kind.block_bytes() as u64 * u64::from(AUTHORITIES))).max(1);
    let latency = millis(latency_ms);
    let scenario = Scenario::named("what latency costs")
        .validators(AUTHORITIES)
        .full_nodes(1)
        .commits(u32::try_from(commits)?)
        .commits_per_epoch(u32::MAX)
        .blocks(kind)
        .latency(latency..latency)
        .bandwidth(bandwidth)
        .synced_within(secs(options.seconds) * PATIENCE);
    // All validators make blocks, and some serve them.
    Ok((peers..AUTHORITIES).fold(scenario, |scenario, silent| scenario.at(millis(1)).crash(validator(silent))))
}

fn measure(options: &Args, kind: BlockKind, peers: u32, latency_ms: u64) -> anyhow::Result<Measured> {
    let scenario = scenario(options, kind, peers, latency_ms)?;
    let ChainSize { blocks, bytes } = scenario.chain_size();
    let report: Report = scenario.run(options.seed)?;
    let took = report.caught_up.get(&full(0)).copied().unwrap_or_default();
    Ok(Measured { kind, peers, mbit: options.mbit, latency_ms, blocks, bytes, took })
}

fn tell(measured: &Measured, ratio: f64) {
    println!(
        "{:<4}  {:>5}  {:>4} ms  {:>10}  {:>6.1}  {:>8.2}  {:>10.0}  {:>7.2}  {:>6.1} %  {:>5.1} %",
        measured.kind.to_string(),
        measured.peers,
        measured.latency_ms,
        measured.blocks,
        measured.bytes as f64 / 1e6,
        measured.took.as_secs_f64(),
        measured.blocks_per_s(),
        measured.mb_per_s(),
        100.0 * measured.of_bandwidth(),
        100.0 * ratio,
    );
}

/// As the lines of `soma-lab bench` are.
fn line(measured: &Measured, ratio: f64) -> serde_json::Value {
    serde_json::json!({
        "case": "latency-simulated",
        "kind": measured.kind.to_string(),
        "peers": measured.peers,
        "mbit_per_link": measured.mbit,
        "latency_ms": measured.latency_ms,
        "blocks": measured.blocks,
        "bytes": measured.bytes,
        "virtual_s": measured.took.as_secs_f64(),
        "blocks_per_s": measured.blocks_per_s(),
        "mb_per_s": measured.mb_per_s(),
        "of_links": measured.of_bandwidth(),
        "ratio_to_first": ratio,
    })
}
