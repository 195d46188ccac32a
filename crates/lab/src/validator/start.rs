//! What a validator finds on its disk.

use crate::consensus::{BlockLog, GC_ROUNDS, Start};
use soma_p2p::{EpochContext, FjallStore, Genesis, PublicKey, SigningKey, Store, types::AuthorityIndex};
use soma_p2p_cli::CliError;
use std::{collections::VecDeque, path::Path, sync::Arc};

/// The validator whose protocol key this is.
pub(super) fn authority(genesis: &Genesis, key: &SigningKey) -> Result<AuthorityIndex, CliError> {
    let own = PublicKey::from(key);
    let found = (0..).zip(&genesis.committee().authorities).find(|(_, member)| member.protocol_key == own);
    found.map(|(index, _)| index).ok_or_else(|| CliError::input("the protocol key is of no member of the committee"))
}

/// Reads the end of the chain and the log.
pub(super) fn load(store: &FjallStore, log: &Path) -> Result<(Start, BlockLog), CliError> {
    let tip = store.watermarks().map_err(CliError::failed)?.highest_synced;
    let missing = || CliError::failed(format!("commit {} is missing", tip.index));
    let commit = store.commit(tip.index).map_err(CliError::failed)?.ok_or_else(missing)?;
    let has_ended = store.last_commit_of_epoch(commit.epoch).map_err(CliError::failed)? == Some(tip.index);
    let epoch = if has_ended { commit.epoch + 1 } else { commit.epoch };
    let first = match epoch.checked_sub(1) {
        Some(previous) => store.last_commit_of_epoch(previous).map_err(CliError::failed)?.unwrap_or(tip.index) + 1,
        None => 1,
    };
    let mut recent = VecDeque::new();
    for index in (first..=tip.index).rev().take(GC_ROUNDS as usize) {
        recent.push_front(store.sub_dag(index).map_err(CliError::failed)?.ok_or_else(missing)?);
    }
    let committee = store.committee(epoch).map_err(CliError::failed)?;
    let committee = committee.ok_or_else(|| CliError::failed(format!("the committee of epoch {epoch} is missing")))?;
    let context = Arc::new(EpochContext::new(store.chain_id(), committee).map_err(CliError::failed)?);
    let (log, logged) = BlockLog::open(log, epoch).map_err(CliError::failed)?;
    let (tip, timestamp_ms) = (commit.reference(), commit.timestamp_ms);
    Ok((Start { context, first, tip, timestamp_ms, recent: recent.into(), logged }, log))
}
