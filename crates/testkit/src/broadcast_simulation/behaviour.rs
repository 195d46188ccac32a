//! The kinds of hostile nodes.

use serde::Serialize;

/// What a hostile node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Takes everything and sends nothing on.
    DropsEverything,
    /// Sends on no certificates.
    DropsCertificates,
    /// Reads nothing.
    NeverReads,
    /// Announces what it has, and never sends it.
    NeverDelivers,
    /// Announces ids that nobody has.
    HugeIdLists,
    /// Sends again what others have.
    SpamsDuplicates,
    /// Sends messages of an epoch that is long over.
    SpamsOldEpochs,
    /// Prunes and grafts every author, over and over, so that it gets no message.
    PrunesEveryone,
    /// Asks for messages that nobody told it of.
    AsksForAnything,
    /// Sends messages in the names of others.
    Forges,
    /// Publishes two messages for one slot.
    Equivocates,
    /// Surrounds a few honest nodes together with the other sybils. Wants every message, sends ids only.
    Sybil,
}

impl Behaviour {
    /// Every behaviour. There are several sybils, so that they can surround a node.
    pub const ALL: [Self; 15] = [
        Self::DropsEverything,
        Self::Sybil,
        Self::DropsCertificates,
        Self::NeverReads,
        Self::NeverDelivers,
        Self::HugeIdLists,
        Self::Sybil,
        Self::SpamsDuplicates,
        Self::SpamsOldEpochs,
        Self::PrunesEveryone,
        Self::AsksForAnything,
        Self::Sybil,
        Self::Forges,
        Self::Equivocates,
        Self::Sybil,
    ];
}
