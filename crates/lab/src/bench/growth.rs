//! Whether a sync of ten times as much takes ten times as long, in the same memory.

use super::{
    chain::ChainKey,
    chain_cache::ChainCache,
    measurement::Measurement,
    plot,
    record::{Step, SyncRecord},
    report,
    session::Session,
    sync,
};
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

/// The summary.
#[derive(Serialize)]
struct Growth<'a> {
    case: &'static str,
    steps: &'a [Step],
}

fn run(session: &Session, chains: &mut ChainCache, names: &[String]) -> Result<(), CliError> {
    let mut records = Vec::new();
    for commits in lengths(session.args.quick).iter().filter(|commits| names.contains(&name(commits))) {
        let record = measure(session, chains, *commits)?;
        session.print_calibration(&report::calibration(&record.limit.calibration));
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

fn measure(session: &Session, chains: &mut ChainCache, commits: u32) -> Result<SyncRecord, CliError> {
    let key = ChainKey { kind: BlockKind::S, blocks_per_commit: BLOCKS_PER_COMMIT, commits };
    let mut chain = chains.take(session, key)?;
    let measured = sync::measure(session, &mut chain, &name(&commits), 1, Verification::Full);
    chains.put_back(chain);
    Ok(measured?.0)
}
