//! What hostile peers do, and what a node does about it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a peer misbehaves. It is honest in everything that its behaviour does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Claims every commit there can be, and says so to all it tells of its own; serves what it has.
    ClaimsEverything,
    /// Advertises the highest possible commit, and serves none beyond the real ones.
    ClaimsWithoutServing,
    /// Has neither commits nor blocks when asked for them.
    ServesNothing,
    /// Answers without a commit in it, and with streams that end before they begin.
    AnswersEmpty,
    /// Ends each stream of blocks after its first block.
    EndsStreamsEarly,
    /// Cuts the end off a commit in each answer.
    TruncatesCommits,
    /// Cuts the end off a block in each chunk.
    TruncatesBlocks,
    /// Sends commits in the reverse order.
    ReordersCommits,
    /// Sends the blocks of each chunk in the reverse order.
    ReordersBlocks,
    /// Sends another block of the chain in the place of the one asked for.
    SwapsBlocks,
    /// Flips a bit of a commit in each answer.
    FlipsCommits,
    /// Flips a bit of a vote in each answer.
    FlipsVotes,
    /// Flips a bit of a block in each chunk.
    FlipsBlocks,
    /// Sends commits with fewer votes than prove them.
    WithholdsVotes,
    /// Says of commits that they are of the epoch after their own, before anything has handed over to it.
    ClaimsNextEpoch,
    /// Sends commits of two epochs in one answer.
    SpansEpochs,
    /// Puts another committee into blocks that hand over to the next epoch.
    ForgesHandovers,
    /// Answers each request with the first commits of the chain.
    ReplaysOld,
    /// Leaves requests for commits and blocks without an answer.
    NeverAnswers,
    /// Claims every commit there can be, and leaves requests for commits and blocks without an answer.
    ClaimsInSilence,
    /// Sends the first block of each stream, then nothing, and does not end it.
    NeverFinishes,
    /// Sends its answers one byte a second.
    DribblesBytes,
    /// Ends the connection when it is asked for commits or blocks.
    ResetsConnections,
    /// Fails when it is asked for commits or blocks.
    FailsInside,
    /// Says that it has too much to do whenever it is asked for commits or blocks.
    SaysBusy,
    /// Sends bytes that are no commits.
    SendsGarbage,
    /// Sends bytes that are no protobuf.
    SendsGarbageProtobuf,
    /// Announces a message of two gigabytes.
    AnnouncesHugeMessages,
    /// Sends more bytes of commits than were asked for.
    SendsOversizedCommits,
    /// Sends a block over the limit.
    SendsOversizedBlocks,
    /// Proves another key than the one it is known by.
    HasOtherKey,
    /// Is on a chain that begins otherwise.
    IsOnOtherChain,
    /// Answers with 100,000 node infos, and asks without end to tell of itself.
    FloodsNodeInfos,
    /// Advertises nodes that do not exist, each with a valid info.
    InventsNodes,
    /// Passes on infos of others that it has changed and signed itself.
    ForgesNodeInfos,
    /// Sends an info of its own that is a day old and more.
    SendsExpiredNodeInfos,
    /// Sends an info of its own from the future.
    SendsFutureNodeInfos,
    /// Sends an info with an address over the limit.
    SendsHugeAddresses,
    /// Sends an info that names its address eight times, for all to dial it as often.
    RepeatsAddresses,
    /// Tells whoever asks that he comes from elsewhere, that his clock is wrong and that he cannot be dialled.
    LiesAboutCallers,
    /// Opens connections under one identity after the other, as many as it can, and leaves them idle.
    ConnectsAndIdles,
    /// Tells without end of commits that it does not have.
    FloodsPushes,
    /// Sends messages of epochs that are over or far away, as fast as it may.
    SpamsMessages,
    /// Sends messages with wrong signatures.
    SendsInvalidMessages,
    /// Sends the same messages again and again.
    RepeatsMessages,
    /// Announces messages that it does not have.
    AnnouncesMessages,
    /// Sends the longest lists of ids that a frame takes, one after the other.
    FloodsIds,
    /// Takes messages and sends none on.
    DropsMessages,
}

/// What a node does about a behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consequence {
    /// The peer is disconnected and kept out: its messages prove that it is hostile or broken.
    Banned,
    /// Nothing is proved: the failure counts against the peer, and it is asked less, or later, or for less.
    Doubted,
    /// The connection is gone or never was one, and is dialled again after a pause that doubles.
    NotConnected,
    /// What it does has no effect: it is dropped where it arrives, or costs no more than its bounds.
    WithoutEffect,
}

impl Behaviour {
    /// Every behaviour there is.
    pub const ALL: [Self; 48] = [
        Self::ClaimsEverything,
        Self::ClaimsWithoutServing,
        Self::ServesNothing,
        Self::AnswersEmpty,
        Self::EndsStreamsEarly,
        Self::TruncatesCommits,
        Self::TruncatesBlocks,
        Self::ReordersCommits,
        Self::ReordersBlocks,
        Self::SwapsBlocks,
        Self::FlipsCommits,
        Self::FlipsVotes,
        Self::FlipsBlocks,
        Self::WithholdsVotes,
        Self::ClaimsNextEpoch,
        Self::SpansEpochs,
        Self::ForgesHandovers,
        Self::ReplaysOld,
        Self::NeverAnswers,
        Self::ClaimsInSilence,
        Self::NeverFinishes,
        Self::DribblesBytes,
        Self::ResetsConnections,
        Self::FailsInside,
        Self::SaysBusy,
        Self::SendsGarbage,
        Self::SendsGarbageProtobuf,
        Self::AnnouncesHugeMessages,
        Self::SendsOversizedCommits,
        Self::SendsOversizedBlocks,
        Self::HasOtherKey,
        Self::IsOnOtherChain,
        Self::FloodsNodeInfos,
        Self::InventsNodes,
        Self::ForgesNodeInfos,
        Self::SendsExpiredNodeInfos,
        Self::SendsFutureNodeInfos,
        Self::SendsHugeAddresses,
        Self::RepeatsAddresses,
        Self::LiesAboutCallers,
        Self::ConnectsAndIdles,
        Self::FloodsPushes,
        Self::SpamsMessages,
        Self::SendsInvalidMessages,
        Self::RepeatsMessages,
        Self::AnnouncesMessages,
        Self::FloodsIds,
        Self::DropsMessages,
    ];

    /// The expected consequence.
    pub fn consequence(self) -> Consequence {
        match self {
            Self::AnswersEmpty
            | Self::TruncatesCommits
            | Self::TruncatesBlocks
            | Self::ReordersCommits
            | Self::ReordersBlocks
            | Self::SwapsBlocks
            | Self::FlipsCommits
            | Self::FlipsVotes
            | Self::FlipsBlocks
            | Self::WithholdsVotes
            | Self::SpansEpochs
            | Self::ForgesHandovers
            | Self::ReplaysOld
            | Self::SendsGarbage
            | Self::SendsGarbageProtobuf
            | Self::AnnouncesHugeMessages
            | Self::SendsOversizedCommits
            | Self::SendsOversizedBlocks
            | Self::SendsInvalidMessages => Consequence::Banned,
            Self::ClaimsEverything
            | Self::ClaimsWithoutServing
            | Self::ServesNothing
            | Self::EndsStreamsEarly
            | Self::ClaimsNextEpoch
            | Self::NeverAnswers
            | Self::ClaimsInSilence
            | Self::NeverFinishes
            | Self::DribblesBytes
            | Self::FailsInside
            | Self::SaysBusy
            | Self::FloodsPushes => Consequence::Doubted,
            Self::ResetsConnections | Self::HasOtherKey | Self::IsOnOtherChain => Consequence::NotConnected,
            Self::FloodsNodeInfos
            | Self::InventsNodes
            | Self::ForgesNodeInfos
            | Self::SendsExpiredNodeInfos
            | Self::SendsFutureNodeInfos
            | Self::SendsHugeAddresses
            | Self::RepeatsAddresses
            | Self::LiesAboutCallers
            | Self::ConnectsAndIdles
            | Self::SpamsMessages
            | Self::RepeatsMessages
            | Self::AnnouncesMessages
            | Self::FloodsIds
            | Self::DropsMessages => Consequence::WithoutEffect,
        }
    }

    /// Whether it is, wholly or in part, what the peer does of its own accord: see [`attack`](super::attack).
    pub fn attacks(self) -> bool {
        matches!(self, Self::ConnectsAndIdles | Self::FloodsPushes | Self::FloodsNodeInfos | Self::InventsNodes)
            || self.sends_messages()
    }

    /// Whether it is about messages that the peer sends.
    pub fn sends_messages(self) -> bool {
        matches!(
            self,
            Self::SpamsMessages
                | Self::SendsInvalidMessages
                | Self::RepeatsMessages
                | Self::AnnouncesMessages
                | Self::FloodsIds
        )
    }
}

/// In kebab-case, as it is written in files.
impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, char) in format!("{self:?}").chars().enumerate() {
            if char.is_ascii_uppercase() && position > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_behaviour_is_listed_once_and_printed_as_it_is_written() {
        assert_eq!(Behaviour::ALL.into_iter().collect::<BTreeSet<_>>().len(), Behaviour::ALL.len());
        for behaviour in Behaviour::ALL {
            assert_eq!(serde_json::to_value(behaviour).unwrap(), behaviour.to_string());
        }
        // The last in order of declaration is the last in the list: nothing between them is left out.
        let numbers: Vec<_> = Behaviour::ALL.into_iter().map(|behaviour| behaviour as usize).collect();
        assert_eq!(numbers, (0..Behaviour::ALL.len()).collect::<Vec<_>>());
    }
}
