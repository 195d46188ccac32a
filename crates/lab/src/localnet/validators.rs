//! The validators: processes that make the chain.

use super::{
    args::{Args, JoinArg},
    process::{self, NodeFiles, NodeProcess},
    report::NodeReport,
};
use crate::{
    ledger::{Ledger, ledger_dir},
    validator::Progress,
};
use soma_p2p::{CommitIndex, Config, Genesis, NodeRole, SeedPeer};
use soma_p2p_cli::CliError;
use soma_testkit::ChainBuilder;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// One validator.
pub(super) struct Validator {
    pub(super) files: NodeFiles,
    /// `None` before it is started and while it is down.
    process: Option<NodeProcess>,
    /// As last seen.
    pub(super) height: CommitIndex,
    pub(super) executed: CommitIndex,
    pub(super) digest: String,
    /// Why it makes no progress, if it does not.
    pub(super) explanation: String,
    lowest: Option<CommitIndex>,
}

/// All of them, by their index in the committee.
pub(super) struct Validators(Vec<Validator>);

impl Validators {
    /// Writes the files of all.
    pub(super) fn write_files(args: &Args, dir: &Path, builder: &ChainBuilder) -> Result<Self, CliError> {
        let mut validators = Vec::new();
        for index in 0..args.validators {
            let (name, key) = (format!("validator-{index}"), builder.network_key(index as u32));
            let mut p2p = Config::listening_on(process::loopback().into());
            p2p.role = NodeRole::Validator;
            if args.archive.is_some() {
                p2p.archive.place = args.archive.clone();
                p2p.archive.write = true;
                p2p.pruning.commits = args.prune;
            }
            let mut files = NodeFiles::write(dir, name, &key, builder.genesis(), p2p)?;
            let execution = args.execution(JoinArg::Commits);
            files.make_blocks(&builder.protocol_key(0, index as u32), &args.work(), execution)?;
            validators.push(Validator {
                files,
                process: None,
                height: 0,
                executed: 0,
                digest: String::new(),
                explanation: String::new(),
                lowest: None,
            });
        }
        Ok(Self(validators))
    }

    pub(super) fn stores(&self) -> Vec<PathBuf> {
        self.0.iter().map(|validator| validator.files.config.store_dir()).collect()
    }

    pub(super) fn all(&self) -> &[Validator] {
        &self.0
    }

    /// Starts one. The first one is the seed peer of the others.
    pub(super) fn start(&mut self, index: usize) -> Result<(), CliError> {
        let seed = self.0.first().filter(|_| index > 0).and_then(Validator::seed);
        let Some(validator) = self.0.get_mut(index) else { return Ok(()) };
        if let Some(seed) = seed {
            validator.files.set_seed_peers(vec![seed])?;
        }
        validator.process = Some(NodeProcess::start(&validator.files)?);
        Ok(())
    }

    /// The seed peer that everyone else is told of.
    pub(super) fn seed(&self) -> Option<SeedPeer> {
        self.0.first().and_then(Validator::seed)
    }

    /// Kills one without a word.
    pub(super) fn kill(&mut self, index: usize) -> Result<(), CliError> {
        match self.0.get_mut(index).and_then(|validator| validator.process.take()) {
            Some(mut process) => process.kill().map(drop),
            None => Ok(()),
        }
    }

    /// Asks all how they are. An error if one has ended by itself.
    pub(super) fn look(&mut self) -> Result<(), CliError> {
        for validator in &mut self.0 {
            let Some(process) = &mut validator.process else { continue };
            if let Some(status) = process.ended() {
                let name = &validator.files.name;
                return Err(CliError::failed(format!("{name} ended by itself: {status}; see its node.log")));
            }
            // One that is busy starting answers a little later.
            if let Ok(status) = process.status() {
                validator.height = status.p2p.height;
                validator.executed = status.executor.index;
                validator.digest = status.executor.digest;
                validator.explanation = status.p2p.explanation;
                validator.lowest = status.p2p.store_writer.and_then(|store| store.lowest_available);
            }
        }
        Ok(())
    }

    /// Compares the states of executors that have stopped, where full nodes have executed all commits or begun with a
    /// snapshot.
    pub(super) fn compare_states(&self, nodes: &mut [NodeReport]) -> Result<(), CliError> {
        let mut states = BTreeSet::new();
        for Validator { files, .. } in &self.0 {
            let ledger = Ledger::open(&ledger_dir(&files.config.data_dir), &files.config.p2p.pruning)?;
            states.insert((ledger.executed().index, ledger.digest()));
        }
        for node in nodes.iter_mut().filter(|node| node.first == 1 || node.snapshot.is_some()) {
            let own = BTreeSet::from([(node.height, node.state.clone())]);
            node.state_equal = Some(states == own);
        }
        Ok(())
    }

    /// The highest commit that one has.
    pub(super) fn head(&self) -> CommitIndex {
        self.0.iter().map(|validator| validator.height).max().unwrap_or(0)
    }

    /// The first commit that all have, once all have pruned.
    pub(super) fn lowest(&self) -> Option<CommitIndex> {
        let all: Option<Vec<_>> = self.0.iter().map(|validator| validator.lowest).collect();
        all?.into_iter().min().filter(|lowest| *lowest > 1)
    }

    /// Whether all have executed the commit, and have no further one.
    pub(super) fn are_at(&self, head: CommitIndex) -> bool {
        self.0.iter().all(|validator| validator.height == head && validator.executed == head)
    }

    /// Ends the consensus of all, and not the nodes.
    pub(super) fn stop_consensus(&mut self) {
        self.0
            .iter_mut()
            .filter_map(|validator| validator.process.as_mut())
            .for_each(|process| process.stop_consensus());
    }

    /// Asks all to stop.
    pub(super) fn ask_to_stop(&mut self) {
        self.0.iter_mut().filter_map(|validator| validator.process.as_mut()).for_each(|process| process.ask_to_stop());
    }

    /// Waits until all have stopped; `false` if one did not in order.
    pub(super) fn wait_stopped(&mut self) -> bool {
        let mut in_order = true;
        for process in self.0.iter_mut().filter_map(|validator| validator.process.take()) {
            in_order &= process.wait_stopped();
        }
        in_order
    }
}

impl Validator {
    fn seed(&self) -> Option<SeedPeer> {
        let run = &self.process.as_ref()?.run;
        Some(SeedPeer { peer_id: run.peer_id, address: run.listen.clone() })
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Blocks that its present process made and that are in commits.
    pub(super) fn committed_blocks(&self) -> u64 {
        let pid = self.process.as_ref().map(|process| process.run.pid);
        let progress = Progress::read(&self.files.config.data_dir);
        progress.filter(|progress| Some(progress.pid) == pid).map_or(0, |progress| progress.committed_blocks)
    }
}

/// A stake that is enough to commit, of validators with one each.
pub(super) fn is_quorum(genesis: &Genesis, up: usize) -> bool {
    genesis.committee().is_quorum(0..up as u32)
}
