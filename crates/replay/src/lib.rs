//! The actor message harness: records what each core of a node is given and decides, and replays it offline.
//!
//! ```text
//!   shell --input--> Track --> core            Trace::read --> replay --> identical, or the first divergence
//!                      |  record: input, digest of effects, cause           ^
//!                      v                                                    |
//!            bounded queue --> writer thread --> ring of files, or memory --+
//! ```
//!
//! What always holds:
//! - Recording never waits. What the writer cannot take is missed, counted, and said so in the trace; the actor's whole
//!   state follows, and replay goes on from there.
//! - A trace ends anywhere without losing more than its last record: each record has its length and checksum.
//! - No key and no bulk enters a trace: cores hold neither ([`Opaque`](soma_protocol::Opaque)).

#![deny(missing_docs)]

mod bounded;
mod cores;
mod encoding;
mod format;
mod origin;
mod record;
mod recorder;
mod replay;
mod ring;
mod show;
mod trace;

pub use cores::{core_names, panic_message};
pub use encoding::DecodeError;
pub use format::{FormatError, MAX_RECORD_BYTES};
pub use origin::{Cause, Origin};
pub use record::{Decision, Ended, Entry, Gap, Header, Record, State};
pub use recorder::{MemoryTrace, Recorder, Track};
pub use replay::{ActorReport, Difference, Divergence, Options, Report, Step, replay};
pub use ring::{RingConfig, TraceWriter};
pub use show::json;
pub use trace::{Damage, Item, Place, Trace, TraceError};
