//! Which messages are valid now, and which peers are validators.

use serde::{Deserialize, Serialize};
use soma_types::{Author, Epoch, PeerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A validator is silent if no consensus message of it came for this long: several rounds of a slow chain.
const SILENT_AFTER: Duration = Duration::from_secs(5);

/// What a message's epoch says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// Of the current epoch, or the one before.
    Valid,
    /// Of the next epoch: the peer may be ahead.
    Early,
    /// Of a later epoch: this node is far behind, or the peer sends nonsense.
    Future,
    /// Of an epoch that is over.
    Past,
}

/// The committee of the next commit's epoch.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Committee {
    epoch: Option<Epoch>,
    validators: Vec<PeerId>,
    /// Members now, or in the epoch before: its last messages are still on their way.
    members: BTreeSet<PeerId>,
    is_validator: bool,
    /// When a consensus message of each validator was accepted last.
    heard: BTreeMap<u32, Duration>,
}

impl Committee {
    /// Takes the next committee. Returns the authors whose number stands for another validator now.
    pub(super) fn change(
        &mut self,
        now: Duration,
        epoch: Epoch,
        validators: Vec<PeerId>,
        is_validator: bool,
    ) -> Vec<Author> {
        let longer = self.validators.len().max(validators.len());
        let changed = (0..longer).filter(|index| self.validators.get(*index) != validators.get(*index));
        let changed: Vec<u32> = changed.map(|index| index as u32).collect();
        self.members = validators.iter().copied().collect();
        if self.epoch.is_some_and(|before| before + 1 == epoch || before == epoch) {
            self.members.extend(&self.validators);
        }
        // A validator that is silent stays so beyond the end of an epoch.
        for index in &changed {
            self.heard.remove(index);
        }
        for index in 0..validators.len() as u32 {
            self.heard.entry(index).or_insert(now);
        }
        (self.epoch, self.validators, self.is_validator) = (Some(epoch), validators, is_validator);
        changed.into_iter().map(Author::Authority).collect()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch.unwrap_or_default()
    }

    pub(super) fn is_validator(&self) -> bool {
        self.is_validator
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.members.contains(peer)
    }

    /// Before the first committee, every message may be valid soon.
    pub(super) fn validity(&self, epoch: Epoch) -> Validity {
        match self.epoch {
            None => Validity::Early,
            Some(current) if epoch == current || epoch.checked_add(1) == Some(current) => Validity::Valid,
            Some(current) if epoch < current => Validity::Past,
            Some(current) if current.checked_add(1) == Some(epoch) => Validity::Early,
            Some(_) => Validity::Future,
        }
    }

    /// The peer of an author of the current epoch.
    pub(super) fn peer_of(&self, epoch: Epoch, author: Author) -> Option<PeerId> {
        match author {
            Author::Peer(peer) => Some(peer),
            Author::Authority(index) => {
                self.validators.get(index as usize).copied().filter(|_| self.epoch == Some(epoch))
            }
        }
    }

    /// A consensus message of the author was accepted.
    pub(super) fn heard(&mut self, now: Duration, author: Author) {
        if let Author::Authority(index) = author
            && let Some(heard) = self.heard.get_mut(&index)
        {
            *heard = now;
        }
    }

    /// Validators from which nothing came for a while, if this node is a validator.
    pub(super) fn silent(&self, now: Duration, own: &PeerId) -> Vec<(u32, Duration)> {
        let others = self.heard.iter().filter(|(index, _)| {
            self.is_validator && self.validators.get(**index as usize).is_some_and(|validator| validator != own)
        });
        let silent = others.map(|(index, heard)| (*index, now.saturating_sub(*heard)));
        silent.filter(|(_, silence)| *silence >= SILENT_AFTER).collect()
    }
}
