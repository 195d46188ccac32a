//! Broadcast: spreads messages among nodes before there is a commit.

mod interface;

pub use interface::{Config, Control, Effect, Input, MessageInfo, Snapshot, StreamKey, TopicSnapshot, frame_bytes};
