//! PeerHeights: knows who has what and who is good, picks peers, tells peers of new commits.

pub mod messages;
mod metrics;
mod shell;
pub mod wiring;

pub use shell::{PeerHeights, Settings};
