//! Places for calls that are answered at once, and how callers share them.
//!
//! ```text
//!   places for fetches   | trusted: a quarter | proven: a quarter | new: a quarter | whoever comes |
//!   places for short calls                  the same
//! ```
//!
//! A class may use all places but what is guaranteed to the others and not in use. Within that, a peer may take a
//! further place while it has fewer than are free: one greedy peer gets half, two get a third each, and a newcomer
//! always finds one.

use super::Rpc;
use crate::peer_heights::PROVEN_FOR;
use serde::{Deserialize, Serialize};
use soma_types::PeerId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Each class is guaranteed one place in this many.
const GUARANTEED: usize = 4;

/// Peers that are remembered as proven; those that were of use longest ago go first.
pub(super) const MAX_PROVEN: usize = 1_024;

/// What this node knows of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// On the allowlist, or a validator.
    Trusted,
    /// It has served this node lately, or told it of something new.
    Proven,
    /// All others.
    New,
}

const CLASSES: [Class; 3] = [Class::Trusted, Class::Proven, Class::New];

/// Calls that share places. Short ones are answered in no time, and never wait for those that fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Length {
    Short,
    Long,
}

impl Length {
    pub(super) fn of(rpc: Rpc) -> Self {
        match rpc {
            Rpc::GetCommitAvailability | Rpc::GetCommitInfo | Rpc::GetSnapshots | Rpc::PushCommit | Rpc::Broadcast => {
                Self::Short
            }
            Rpc::FetchCommits | Rpc::FetchBlocks | Rpc::FetchObjects | Rpc::GetKnownPeers | Rpc::GetEpochProofs => {
                Self::Long
            }
        }
    }
}

/// Which callers are trusted, and which have proved useful.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Callers {
    pub(super) validators: BTreeSet<PeerId>,
    proven: BTreeMap<PeerId, Duration>,
}

impl Callers {
    pub(super) fn were_useful(&mut self, now: Duration, peers: Vec<PeerId>) {
        self.proven.retain(|_, until| *until > now);
        self.proven.extend(peers.into_iter().map(|peer| (peer, now + PROVEN_FOR)));
        while self.proven.len() > MAX_PROVEN {
            let Some(first) = self.proven.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer) else {
                return;
            };
            self.proven.remove(&first);
        }
    }

    pub(super) fn class(&self, now: Duration, allowlist: &BTreeSet<PeerId>, peer: PeerId) -> Class {
        if allowlist.contains(&peer) || self.validators.contains(&peer) {
            Class::Trusted
        } else if self.proven.get(&peer).is_some_and(|until| *until > now) {
            Class::Proven
        } else {
            Class::New
        }
    }
}

/// Calls that are being answered.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Places {
    calls: BTreeMap<u64, (PeerId, Rpc, Class)>,
    by_class: BTreeMap<(Length, Class), usize>,
    by_peer: BTreeMap<(Length, PeerId), usize>,
}

impl Places {
    /// Calls of this length that are being answered.
    pub(super) fn taken(&self, length: Length) -> usize {
        CLASSES.iter().map(|class| self.of_class(length, *class)).sum()
    }

    fn of_class(&self, length: Length, class: Class) -> usize {
        self.by_class.get(&(length, class)).copied().unwrap_or_default()
    }

    /// Calls of this peer that stand in the way of a further one; `None`: it may have a place.
    pub(super) fn too_many(
        &self,
        (most, most_per_peer): (usize, usize),
        peer: PeerId,
        rpc: Rpc,
        class: Class,
    ) -> Option<usize> {
        let length = Length::of(rpc);
        let kept = |other: &Class| (most / GUARANTEED).saturating_sub(self.of_class(length, *other));
        let kept: usize = CLASSES.iter().filter(|other| **other != class).map(kept).sum();
        let free = most.saturating_sub(self.taken(length) + kept);
        let calls = self.by_peer.get(&(length, peer)).copied().unwrap_or_default();
        let shares = class != Class::Trusted;
        (free == 0 || calls >= most_per_peer || (shares && calls >= free)).then_some(calls)
    }

    pub(super) fn take(&mut self, call: u64, peer: PeerId, rpc: Rpc, class: Class) {
        self.calls.insert(call, (peer, rpc, class));
        *self.by_class.entry((Length::of(rpc), class)).or_default() += 1;
        *self.by_peer.entry((Length::of(rpc), peer)).or_default() += 1;
    }

    /// The call has ended. Returns its caller.
    pub(super) fn give_back(&mut self, call: u64) -> Option<(PeerId, Rpc)> {
        let (peer, rpc, class) = self.calls.remove(&call)?;
        let length = Length::of(rpc);
        if let Some(calls) = self.by_class.get_mut(&(length, class)) {
            *calls = calls.saturating_sub(1);
        }
        if let Some(calls) = self.by_peer.get_mut(&(length, peer)) {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                self.by_peer.remove(&(length, peer));
            }
        }
        Some((peer, rpc))
    }
}
