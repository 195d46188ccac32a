//! Objects of simulated nodes: each has a few of its own, and fetches those of others.

use crate::simulation::names::NodeName;
use soma_p2p::{Handle, MemoryObjects, ObjectId, ObjectKind};
use std::{cell::RefCell, collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

const KIND: ObjectKind = ObjectKind::OBJECT;

/// Objects of each node.
const PER_NODE: u32 = 4;

/// How long a node waits for objects: enough to ask nine peers one after the other on the slowest links.
const WITHIN: Duration = Duration::from_secs(10);

/// Too short for any answer.
const TOO_SHORT: Duration = Duration::from_millis(1);

/// One round in so many is given up at once, and one has no time.
const GIVEN_UP: u32 = 4;

fn content(name: NodeName, number: u32) -> Vec<u8> {
    format!("object {number} of {name}").into_bytes()
}

/// What these nodes have.
pub(super) fn source_of(names: &[NodeName]) -> MemoryObjects {
    let source = MemoryObjects::default();
    for name in names {
        for number in 0..PER_NODE {
            source.put(KIND, content(*name, number));
        }
    }
    source
}

/// What one node has fetched, over all its processes.
#[derive(Default)]
pub(super) struct Fetched(RefCell<BTreeMap<NodeName, Instant>>);

impl Fetched {
    /// Fetches an object of each of the others, and one that nobody has, in each interval, as long as the process lives.
    pub(super) async fn fetch(&self, others: Vec<NodeName>, handle: Handle, interval: Duration) {
        let nowhere = ObjectId::of(&[b"nobody has it"]);
        for round in 0_u32.. {
            sleep(interval).await;
            let begun = Instant::now();
            let wanted = others.iter().map(|name| (ObjectId::of(&[&content(*name, round % PER_NODE)]), *name));
            let wanted: BTreeMap<_, _> = wanted.collect();
            let within = if round % GIVEN_UP == 1 { TOO_SHORT } else { WITHIN };
            let mut fetched = handle.fetch(KIND, wanted.keys().copied().chain([nowhere]), within);
            if round % GIVEN_UP == GIVEN_UP - 1 {
                // It is under way by then.
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            while let Some((id, result)) = fetched.next().await {
                if let (Ok(_), Some(name)) = (result, wanted.get(&id)) {
                    self.0.borrow_mut().insert(*name, begun);
                }
            }
        }
    }

    /// Whether an object of this node has arrived that was asked for after this moment.
    pub(super) fn has_fetched(&self, of: NodeName, since: Instant) -> bool {
        self.0.borrow().get(&of).is_some_and(|begun| *begun >= since)
    }
}
