//! Messages between two nodes: how long one takes, how many go over a link, and what they and others cost each other.
//!
//! ```text
//!   this process --setup--> sending node (a process) <== mutual TLS, gRPC on loopback ==> hearing node (a process)
//!                                `- Sent: how many, CPU                Heard: how many, latencies, CPU -'
//! ```
//!
//! A message carries the time just before it was published, on the clock that all processes of the machine share. Each
//! load has numbered messages, so a lost one shows. The machine's cores are shared by both ends.

mod beside_sync;
mod flood;
#[cfg(feature = "gossipsub")]
mod gossipsub;
mod hop;
mod link;
mod pair;
mod record;
mod throttle;

use super::{chain_cache::ChainCache, measurement::Measurement, session::Session};
use record::MessageRecord;
use soma_p2p_cli::CliError;

pub(super) const MEASUREMENT: Measurement = Measurement { name: "broadcast", cases, run };

/// A kind of case.
struct Kind {
    /// Names of its cases.
    cases: fn(quick: bool) -> Vec<String>,
    /// Runs one of them.
    run: fn(&Session, &mut ChainCache, case: &str) -> Result<Vec<MessageRecord>, CliError>,
}

const KINDS: &[Kind] = &[
    hop::KIND,
    link::KIND,
    flood::KIND,
    beside_sync::KIND,
    #[cfg(feature = "gossipsub")]
    gossipsub::KIND,
];

fn cases(quick: bool) -> Vec<String> {
    KINDS.iter().flat_map(|kind| (kind.cases)(quick)).collect()
}

fn run(session: &Session, chains: &mut ChainCache, names: &[String]) -> Result<(), CliError> {
    let mut records = Vec::new();
    let mut failed = None;
    for kind in KINDS {
        for case in (kind.cases)(session.args.quick).into_iter().filter(|case| names.contains(case)) {
            match (kind.run)(session, chains, &case) {
                Ok(found) => {
                    for record in found {
                        session.say(&record.to_string());
                        session.record(&record)?;
                        records.push(record);
                    }
                }
                Err(error) => {
                    session.say(&format!("{case}: {error}"));
                    failed.get_or_insert(error);
                }
            }
            session.check_interrupted()?;
        }
    }
    if !records.is_empty() {
        println!("{}", record::table_of(&records));
    }
    failed.map_or(Ok(()), Err)
}
