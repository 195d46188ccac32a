//! PeerHeights: knows who has what and who is good, picks peers, tells peers of new commits.

#![deny(missing_docs)]

mod actor;
mod metrics;

pub use actor::{PeerHeights, Settings, Stored, Wiring};
