//! Which infos have been checked, so that no signature is checked twice.

use bytes::Bytes;
use soma_types::{ContentDigest, SignedNodeInfo, TimestampMs};
use soma_verify::{MAX_CLOCK_SKEW_MS, MAX_NODE_INFO_AGE_MS};
use std::{collections::HashSet, mem};

/// Infos in a generation. Two generations hold more than an address book does.
const GENERATION: usize = 16_384;

/// Digests of infos that passed: the newest, and those before.
#[derive(Default)]
pub(crate) struct VerifiedInfoCache {
    new: HashSet<ContentDigest>,
    old: HashSet<ContentDigest>,
}

impl VerifiedInfoCache {
    /// These have passed.
    pub(crate) fn passed(&mut self, infos: &[SignedNodeInfo]) {
        for info in infos {
            if self.new.len() >= GENERATION {
                self.old = mem::take(&mut self.new);
            }
            self.new.insert(ContentDigest::of(&[info.bytes()]));
        }
    }

    /// Infos that passed before and are still in their time, and infos to check.
    pub(crate) fn split(&self, infos: Vec<Bytes>, now_ms: TimestampMs) -> (Vec<SignedNodeInfo>, Vec<Bytes>) {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for bytes in infos {
            let digest = ContentDigest::of(&[&bytes]);
            if !self.new.contains(&digest) && !self.old.contains(&digest) {
                unknown.push(bytes);
            } else if let Ok(info) = SignedNodeInfo::decode_bounded(bytes) {
                let age_ms = now_ms.saturating_sub(info.timestamp_ms);
                let ahead_ms = info.timestamp_ms.saturating_sub(now_ms);
                if age_ms <= MAX_NODE_INFO_AGE_MS && ahead_ms <= MAX_CLOCK_SKEW_MS {
                    known.push(info);
                }
            }
        }
        (known, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_types::{Access, Capabilities, ChainId, NodeInfo, NodeRole, PeerId, ProtocolVersions, SigningKey};

    fn info(timestamp_ms: TimestampMs) -> SignedNodeInfo {
        let key = SigningKey::from_bytes(&[7; 32]);
        let info = NodeInfo {
            peer_id: PeerId::from(&key),
            addresses: vec![],
            chain_id: ChainId([0; 32]),
            timestamp_ms,
            protocol_versions: ProtocolVersions::SUPPORTED,
            capabilities: Capabilities { role: NodeRole::FullNode, archive: false, lowest_commit: 1 },
            access: Access::Public,
        };
        SignedNodeInfo::sign(info, ChainId([0; 32]), &key)
    }

    #[test]
    fn what_has_passed_is_not_checked_again_as_long_as_its_time_is_in_order() {
        let (old, new) = (info(1_000_000), info(2_000_000));
        let both = || vec![old.bytes().clone(), new.bytes().clone()];
        let mut checked = VerifiedInfoCache::default();
        assert_eq!(checked.split(both(), 2_000_000), (vec![], both()));
        checked.passed(std::slice::from_ref(&old));
        assert_eq!(checked.split(both(), 2_000_000), (vec![old.clone()], vec![new.bytes().clone()]));
        let too_old = 1_000_001 + MAX_NODE_INFO_AGE_MS;
        assert_eq!(checked.split(both(), too_old), (vec![], vec![new.bytes().clone()]));
    }

    #[test]
    fn a_flood_makes_no_more_be_remembered_than_two_generations() {
        let mut checked = VerifiedInfoCache::default();
        let infos: Vec<_> = (0..100).map(info).collect();
        for digest in 0..3 * GENERATION as u64 {
            if checked.new.len() >= GENERATION {
                checked.passed(&infos[..1]);
            }
            checked.new.insert(ContentDigest::of(&[&digest.to_le_bytes()]));
        }
        assert!(checked.new.len() + checked.old.len() <= 2 * GENERATION);
        checked.passed(&infos);
        assert_eq!(checked.split(vec![infos[99].bytes().clone()], 100).0.len(), 1);
    }
}
