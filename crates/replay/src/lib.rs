//! Records the inputs and effects of a node's cores, and replays them offline.
//!
//! ```text
//!   shell --input--> Track --> core            Trace::read --> replay --> identical, or the first divergence
//!                      |  record: input, digest of effects, cause           ^
//!                      v                                                    |
//!            bounded queue --> writer thread --> ring of files, or memory --+
//! ```
//!
//! Invariants:
//! - Recording never waits. If the writer is behind, the recorder drops the record, counts it, and notes the gap in the
//!   trace. The actor's whole state follows the gap, and replay continues from that state.
//! - A trace that ends anywhere loses at most its last record: each record has its length and checksum.
//! - No key and no bulk data enters a trace: cores hold neither ([`Opaque`](soma_protocol::Opaque)).

#![deny(missing_docs)]

mod bounded;
mod cores;
mod encoding;
mod flow;
mod format;
mod origin;
mod queue;
mod record;
mod recorder;
mod replay;
mod ring;
mod show;
mod trace;

pub use cores::{core_names, panic_message};
pub use encoding::{DecodeError, MAX_RECORD_BYTES};
pub use flow::{FLOW_TARGET, Flow};
pub use format::FormatError;
pub use origin::{Cause, Origin};
pub use record::{Decision, Ended, Entry, Gap, Header, Record, State};
pub use recorder::{MemoryTrace, Recorder, Track};
pub use replay::{ActorReport, Difference, Divergence, Options, Report, Step, replay};
pub use ring::{RingConfig, TraceWriter};
pub use show::json;
pub use trace::{Damage, Item, Place, Trace, TraceError};
