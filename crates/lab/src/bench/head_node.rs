//! A node at the head of the chain, seen from inside: one that hands over commits at a rate, as its consensus would,
//! and one that takes them, as its executor would. Both note when, on the clock that all processes of a machine share.

use super::{
    message_load::now_ns,
    node_io::{CommitTimes, Event, SendRate, tell},
};
use soma_p2p::{ActorSystem, CertifiedCommit, CommitIndex};
use soma_p2p_cli::CliError;
use soma_testkit::{BlockKind, ChainBuilder, ChainSpec};
use std::time::{Duration, Instant};
use tokio::{runtime, time};

/// How long two nodes may take to connect both ways.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// After this long without a commit the next one counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Authorities of the chain.
const AUTHORITIES: usize = 4;

/// The chain: of S blocks, four to a commit, the same in every process.
pub(crate) fn spec() -> Result<ChainSpec, CliError> {
    let like = ChainSpec {
        name: "bench-head".into(),
        stakes: vec![1; AUTHORITIES],
        commits_per_epoch: 10_000,
        ..ChainSpec::default()
    };
    BlockKind::S.spec(like).map_err(CliError::failed)
}

fn runtime() -> Result<runtime::Runtime, CliError> {
    runtime::Builder::new_current_thread().enable_time().build().map_err(CliError::failed)
}

/// Hands over commits, each when it is due or, should the node take longer, when it has taken the one before.
pub(crate) fn propose(system: &ActorSystem, rate: SendRate) -> Result<(), CliError> {
    // Made before anything is measured.
    let mut builder = ChainBuilder::new(spec()?).map_err(CliError::failed)?;
    let commits: Vec<CertifiedCommit> = builder.build(rate.commits as usize);
    let runtime = runtime()?;
    runtime.block_on(async {
        let connected = |status: &soma_p2p::Status| status.peers.iter().any(|peer| peer.inbound && peer.outbound);
        let connecting = time::timeout(CONNECT_TIMEOUT, system.wait_until(connected));
        connecting.await.map_err(|_| CliError::failed("the other node did not connect"))?;
        let (started, interval) = (Instant::now(), Duration::from_secs(1) / rate.per_second);
        let mut times = CommitTimes::default();
        for (number, commit) in (0..).zip(commits) {
            time::sleep_until((started + interval * number).into()).await;
            times.at_ns.push(now_ns());
            system.send_commit(commit).await.map_err(CliError::failed)?;
        }
        tell(&Event::Handed(times))
    })
}

/// Takes commits up to the last, or up to one that does not come.
pub(crate) fn take(system: &ActorSystem, last: CommitIndex) -> Result<(), CliError> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut commits = system.synced_commits(1);
        let mut times = CommitTimes::default();
        while times.at_ns.len() < last as usize {
            // The first comes when the other node has made the chain and is connected.
            let patience = if times.at_ns.is_empty() { CONNECT_TIMEOUT + LOST_AFTER } else { LOST_AFTER };
            match time::timeout(patience, commits.next()).await {
                Ok(Some(commit)) => drop(commit.map_err(CliError::failed)?),
                Ok(None) | Err(_) => break,
            }
            times.at_ns.push(now_ns());
        }
        tell(&Event::Taken(times))
    })
}
