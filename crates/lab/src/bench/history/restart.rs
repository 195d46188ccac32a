//! The start of a node that has the whole chain.

use super::{
    super::{
        child::BenchNode,
        node_io::{Role, Setup},
        session::Session,
        sync::serving,
    },
    kept::KeptChain,
    report::Step,
};
use soma_p2p::Verification;
use soma_p2p_cli::CliError;
use std::{path::Path, time::Instant};

/// From the start of the process until the node is ready, and the most memory that it has held by then.
pub(super) fn measure(session: &Session, chain: &KeptChain, store: &Path, name: &str) -> Result<Step, CliError> {
    let setup = Setup { role: Role::Start, ..serving(chain, store.to_owned(), 0, Verification::Full) };
    let started = Instant::now();
    let mut node = BenchNode::start(session, name, &setup)?;
    node.ready(session)?;
    let wall_s = started.elapsed().as_secs_f64();
    let used = node.stop(session)?;
    let commits = u64::from(chain.commits);
    Ok(Step { cpu_s: Some(used.cpu_s), peak_rss_mib: used.peak_rss_mib, ..Step::new(name, commits, wall_s) })
}
