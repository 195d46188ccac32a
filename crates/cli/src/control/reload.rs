//! Reads the configuration again while the node runs.

use super::server::Reload;
use crate::{logging::LogFilter, node_config::NodeConfig};
use serde_json::Value;
use soma_p2p::{CommitIndex, Handle, PeerId, PeerManagementError, SeedPeer};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, watch},
};

/// Takes over what can change, and says what needs a restart.
pub(super) struct Reloader {
    file: PathBuf,
    /// The settings that count now.
    running: NodeConfig,
    system: Handle,
    log: LogFilter,
    ready_within: watch::Sender<Option<CommitIndex>>,
}

impl Reloader {
    pub(super) fn new(
        file: &Path,
        running: &NodeConfig,
        system: Handle,
        log: LogFilter,
        ready_within: watch::Sender<Option<CommitIndex>>,
    ) -> Self {
        Self { file: file.to_owned(), running: running.clone(), system, log, ready_within }
    }

    /// Reloads on SIGHUP, and whenever it is asked to.
    pub(super) async fn run(mut self, mut hang_up: Signal, mut requests: mpsc::Receiver<Reload>) {
        loop {
            tokio::select! {
                signal = hang_up.recv() => match signal {
                    Some(()) => drop(self.reload().await),
                    None => return,
                },
                request = requests.recv() => match request {
                    // The client may have gone.
                    Some(reply) => drop(reply.send(self.reload().await)),
                    None => return,
                },
            }
        }
    }

    async fn reload(&mut self) -> Result<String, String> {
        let reloaded = self.take_over().await;
        match &reloaded {
            Ok(text) => tracing::info!("configuration read again: {text}"),
            Err(reason) => tracing::error!("configuration not taken over: {reason}"),
        }
        reloaded
    }

    async fn take_over(&mut self) -> Result<String, String> {
        let new = NodeConfig::read(&self.file).map_err(|error| error.to_string())?;
        let mut changed = changed_keys(&self.running, &new)?;
        let mut taken = Vec::new();
        if changed.remove("log_filter") {
            self.log.set(&new.log_filter)?;
            self.running.log_filter.clone_from(&new.log_filter);
            taken.push("log_filter");
        }
        if changed.remove("ready_within_commits") {
            self.ready_within.send_replace(new.ready_within_commits);
            self.running.ready_within_commits = new.ready_within_commits;
            taken.push("ready_within_commits");
        }
        // What comes before the error is taken over all the same.
        let wrong = |key: &str, error: PeerManagementError, taken: &[&str]| {
            format!("{key}: {error}; taken over before it: {}", names(taken.iter().copied()))
        };
        let key = "p2p.connections.allowlist";
        if changed.remove(key) {
            let list = &new.p2p.connections.allowlist;
            self.take_allowlist(list).await.map_err(|error| wrong(key, error, &taken))?;
            taken.push(key);
        }
        let key = "p2p.seed_peers";
        if changed.remove(key) {
            self.take_seeds(&new.p2p.seed_peers).await.map_err(|error| wrong(key, error, &taken))?;
            taken.push(key);
        }
        let restart = names(changed.iter().map(String::as_str));
        Ok(format!("taken over: {}; needs a restart: {restart}", names(taken.into_iter())))
    }

    /// Adds the peers that are new in the file, and removes those that are gone from it. Peers that a command added or removed stay as they are.
    async fn take_allowlist(&mut self, new: &[PeerId]) -> Result<(), PeerManagementError> {
        let Self { running, system, .. } = self;
        let list = &mut running.p2p.connections.allowlist;
        let removed: Vec<PeerId> = list.iter().filter(|peer| !new.contains(peer)).copied().collect();
        for peer in removed {
            system.remove_trusted_peer(peer).await?;
            list.retain(|listed| *listed != peer);
        }
        for peer in new {
            if !list.contains(peer) {
                system.add_trusted_peer(*peer).await?;
                list.push(*peer);
            }
        }
        *list = new.to_vec();
        Ok(())
    }

    /// The same with seeds. A seed that lost an address is removed and added again.
    async fn take_seeds(&mut self, new: &[SeedPeer]) -> Result<(), PeerManagementError> {
        let Self { running, system, .. } = self;
        let list = &mut running.p2p.seed_peers;
        let removed: BTreeSet<PeerId> =
            list.iter().filter(|seed| !new.contains(seed)).map(|seed| seed.peer_id).collect();
        for peer in removed {
            system.remove_seed(peer).await?;
            list.retain(|seed| seed.peer_id != peer);
        }
        for seed in new {
            if !list.contains(seed) {
                system.add_seed(seed.clone()).await?;
                list.push(seed.clone());
            }
        }
        *list = new.to_vec();
        Ok(())
    }
}

/// A list for people.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// The keys with different values, with their sections.
fn changed_keys(old: &NodeConfig, new: &NodeConfig) -> Result<BTreeSet<String>, String> {
    let value = |config: &NodeConfig| serde_json::to_value(config).map_err(|error| error.to_string());
    let mut changed = BTreeSet::new();
    compare("", &value(old)?, &value(new)?, &mut changed);
    Ok(changed)
}

fn compare(key: &str, old: &Value, new: &Value, changed: &mut BTreeSet<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                let of = |section: &serde_json::Map<String, Value>| section.get(name).cloned().unwrap_or_default();
                compare(&key, &of(old), &of(new), changed);
            }
        }
        _ if old != new => {
            changed.insert(key.to_owned());
        }
        _ => {}
    }
}
