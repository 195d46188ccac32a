//! Whether a sync of ten times as much takes ten times as long, in the same memory.

use super::{Measurement, chain::ChainKey, plot, report, report::SyncRecord, session::Session, sync};
use serde::Serialize;
use soma_p2p::Verification;
use soma_p2p_cli::CliError;
use soma_testkit::BlockKind;

pub(super) const MEASUREMENT: Measurement =
    Measurement { name: "growth", cases: |quick| lengths(quick).iter().map(name).collect(), run };

/// Blocks in one commit.
const BLOCKS_PER_COMMIT: u32 = 4;

/// Commits of the chains.
fn lengths(quick: bool) -> &'static [u32] {
    if quick { &[500, 5_000] } else { &[500, 5_000, 50_000] }
}

fn name(commits: &u32) -> String {
    format!("growth/{commits}-commits")
}

/// How the time of one length compares with that of a shorter one.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Step {
    /// Commits of the shorter chain.
    pub(super) from_commits: u32,
    /// Commits of the longer chain.
    pub(super) to_commits: u32,
    /// Time for the longer one / (time for the shorter one x how much longer): 1.0 is perfect, less is better.
    pub(super) growth: f64,
    /// The inverse: blocks/s of the longer one over those of the shorter one, more or less.
    pub(super) throughput_ratio: f64,
    /// Peak memory of the longer one over that of the shorter one.
    pub(super) peak_rss_ratio: Option<f64>,
}

impl Step {
    fn between(from: &SyncRecord, to: &SyncRecord) -> Self {
        let longer = f64::from(to.commits) / f64::from(from.commits);
        let growth = to.wall_s / (from.wall_s * longer);
        Self {
            from_commits: from.commits,
            to_commits: to.commits,
            growth,
            throughput_ratio: 1.0 / growth,
            peak_rss_ratio: from.peak_rss_mib.zip(to.peak_rss_mib).map(|(from, to)| to / from),
        }
    }
}

/// The summary.
#[derive(Serialize)]
struct Growth<'a> {
    case: &'static str,
    steps: &'a [Step],
}

fn run(session: &mut Session, names: &[String]) -> Result<(), CliError> {
    let mut records = Vec::new();
    for commits in lengths(session.args.quick).iter().filter(|commits| names.contains(&name(commits))) {
        let record = measure(session, *commits)?;
        session.calibrated(record.limit.calibration);
        session.record(&record)?;
        records.push(record);
    }
    println!("{}", report::sync_table(&records));
    let mut steps: Vec<_> = records.windows(2).map(|pair| Step::between(&pair[0], &pair[1])).collect();
    if let [first, _, .., last] = &records[..]
        && records.len() > 2
    {
        steps.push(Step::between(first, last));
    }
    if steps.is_empty() {
        return Ok(());
    }
    session.record(&Growth { case: "growth", steps: &steps })?;
    plot::growth(&session.plot_file("growth"), &records)?;
    println!("{}", report::growth_table(&steps));
    Ok(())
}

fn measure(session: &mut Session, commits: u32) -> Result<SyncRecord, CliError> {
    let key = ChainKey { kind: BlockKind::S, blocks_per_commit: BLOCKS_PER_COMMIT, commits };
    let mut chain = session.take_chain(key)?;
    let measured = sync::measure(session, &mut chain, &name(&commits), 1, Verification::Full);
    session.keep_chain(chain);
    Ok(measured?.0)
}
