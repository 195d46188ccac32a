//! What a node knows of a message, as bits.

/// The node's shell has the bytes of the message.
pub(super) const HELD: u8 = 1;

/// The message was accepted.
pub(super) const ACCEPTED: u8 = 2;

/// The message was delivered.
pub(super) const DELIVERED: u8 = 4;

/// The node published the message.
pub(super) const PUBLISHED: u8 = 16;

/// The message has arrived at least once.
pub(super) const ARRIVED: u8 = 8;
