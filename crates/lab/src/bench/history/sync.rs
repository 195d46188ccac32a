//! Syncs of the chain from one peer, to an executor that digests every block as that of `soma-p2p node` does.

use super::{
    super::{
        child::BenchNode,
        node_io::{Event, Role, Sample, Setup},
        session::Session,
        sync::{config, key, serving},
    },
    kept::KeptChain,
    report::{Step, Windows},
};
use soma_p2p::{Start, Verification};
use soma_p2p_cli::CliError;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A tenth of the chain is a window: the machine's noise is longer than ten thousand commits take.
const WINDOWS: u32 = 10;

/// Syncs into the absent `store` up to commit `last`, and kills the syncing node.
pub(super) fn measure(
    session: &Session,
    chain: &KeptChain,
    store: &Path,
    name: &str,
    last: u32,
    verification: Verification,
    start: Start,
) -> Result<Step, CliError> {
    let mut server =
        BenchNode::start(session, &format!("{name}-server"), &serving(chain, chain.store.clone(), 0, verification))?;
    let seed = server.ready(session)?;
    let mut config = config(verification, vec![seed]);
    config.start = start.clone();
    let setup = Setup {
        key: key(u8::MAX),
        config,
        role: Role::Execute { last },
        ..serving(chain, store.to_owned(), 0, verification)
    };
    let mut client = BenchNode::start(session, name, &setup)?;
    client.ready(session)?;
    let task = session.task(name, last.into());
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    let mut samples = vec![Sample::default()];
    let synced = loop {
        match client.next(session, deadline)? {
            Event::Progress(sample) => {
                task.set(sample.commit.into());
                samples.push(sample);
            }
            Event::Synced(synced) => break synced,
            other => return Err(CliError::failed(format!("the syncing node says {other:?}"))),
        }
    };
    samples.push(synced.end);
    client.kill();
    let server_cpu_s = server.stop(session)?.cpu_s;
    task.end();
    let whole = last == chain.commits && start == Start::Genesis;
    if whole && (synced.end.blocks, synced.end.bytes) != (chain.blocks, chain.bytes) {
        let reason = format!("the executor was given {:?}, and the chain has {} blocks", synced.end, chain.blocks);
        return Err(CliError::failed(reason));
    }
    Ok(Step {
        blocks: Some(synced.end.blocks),
        cpu_s: Some(synced.cpu_s),
        server_cpu_s: Some(server_cpu_s),
        peak_rss_mib: synced.peak_rss_mib,
        windows: whole.then(|| windows(&samples, chain.commits)),
        ..Step::new(name, last.into(), synced.end.seconds)
    })
}

/// Compares a window near the start of the sync, behind its first [`super::SHORT`] commits, with its last one.
fn windows(samples: &[Sample], commits: u32) -> Windows {
    let window = commits / WINDOWS;
    let first = super::short(commits);
    let at = |commit| at_commit(samples, commit);
    let rate = |from: Sample, to: Sample| (to.blocks - from.blocks) as f64 / (to.seconds - from.seconds).max(1e-9);
    let cost = |from: Sample, to: Sample| (to.cpu_s - from.cpu_s) * 1e6 / (to.blocks - from.blocks).max(1) as f64;
    let (early, late) = ((at(first), at(first + window)), (at(commits - window), at(commits)));
    Windows {
        window_commits: window,
        early_blocks_per_s: rate(early.0, early.1),
        late_blocks_per_s: rate(late.0, late.1),
        early_cpu_us_per_block: cost(early.0, early.1),
        late_cpu_us_per_block: cost(late.0, late.1),
    }
}

/// The state of the sync when its executor took a commit, between the two samples around it.
fn at_commit(samples: &[Sample], commit: u32) -> Sample {
    let after = samples.partition_point(|sample| sample.commit < commit);
    let (Some(from), Some(to)) = (after.checked_sub(1).and_then(|before| samples.get(before)), samples.get(after))
    else {
        return samples.get(after).copied().unwrap_or_default();
    };
    let share = f64::from(commit - from.commit) / f64::from((to.commit - from.commit).max(1));
    let between = |from: f64, to: f64| from + (to - from) * share;
    let whole = |from: u64, to: u64| from + ((to - from) as f64 * share) as u64;
    Sample {
        seconds: between(from.seconds, to.seconds),
        commit,
        blocks: whole(from.blocks, to.blocks),
        bytes: whole(from.bytes, to.bytes),
        cpu_s: between(from.cpu_s, to.cpu_s),
    }
}
