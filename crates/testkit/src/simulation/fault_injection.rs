//! Faults on order: an actor panics, fails, dawdles or hangs at the nth input of a kind.

use crate::simulation::{
    ActorFault, NodeName,
    journal::{Entry, Journal},
};
use soma_p2p::{Fault, PlannedFaults};
use std::{
    fmt::{self, Write},
    panic,
    sync::{Arc, Mutex, Once, PoisonError},
};

/// How the message of every injected panic begins.
const PLANNED: &str = "planned by the simulation: ";

/// The faults planned for the actors of one node. They outlive its crashes. Sees every input that an actor takes.
#[derive(Clone)]
pub(super) struct PlannedActorFaults {
    node: NodeName,
    journal: Journal,
    planned: Arc<Mutex<Vec<Planned>>>,
}

struct Planned {
    actor: String,
    input: String,
    left: u32,
    fault: ActorFault,
}

impl PlannedActorFaults {
    pub(super) fn new(node: NodeName, journal: Journal) -> Self {
        keep_planned_panics_quiet();
        Self { node, journal, planned: Arc::default() }
    }

    /// Plans one more fault.
    pub(super) fn plan(&self, actor: String, input: String, nth: u32, fault: ActorFault) {
        let planned = Planned { actor, input, left: nth.max(1), fault };
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push(planned);
    }

    /// For the node's environment.
    pub(super) fn planned(&self) -> PlannedFaults {
        let faults = self.clone();
        Arc::new(move |actor, input| faults.due(actor, input))
    }

    fn due(&self, actor: &'static str, input: &dyn fmt::Debug) -> Option<Fault> {
        self.journal.input(self.node, actor);
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = |planned: &&mut Planned| planned.actor == actor && begins_with(input, &planned.input);
        let mut due = None;
        for planned in planned.iter_mut().filter(meant) {
            planned.left -= 1;
            if planned.left == 0 {
                let reason = format!("{PLANNED}{actor} takes {}", planned.input);
                self.journal.write(Entry::Fault { node: self.node, actor, fault: planned.fault });
                due = Some(match planned.fault {
                    ActorFault::Panic => Fault::Panic(reason),
                    ActorFault::Error => Fault::Error(reason),
                    ActorFault::Delay(time) => Fault::Delay(time),
                    ActorFault::Hang => Fault::Hang,
                });
            }
        }
        planned.retain(|planned| planned.left > 0);
        due
    }
}

/// Whether the `Debug` form of `input` begins with `prefix`, without writing more of it than that.
fn begins_with(input: &dyn fmt::Debug, prefix: &str) -> bool {
    struct Expect<'a>(&'a str);
    impl Write for Expect<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let common = text.len().min(self.0.len());
            match self.0.as_bytes()[..common] == text.as_bytes()[..common] {
                // Nothing more to compare: an error ends the formatting.
                true if common == self.0.len() => {
                    self.0 = "";
                    Err(fmt::Error)
                }
                true => {
                    self.0 = &self.0[common..];
                    Ok(())
                }
                false => Err(fmt::Error),
            }
        }
    }
    let mut expect = Expect(prefix);
    // Ends with an error as soon as the answer is known.
    let _ = write!(expect, "{input:?}");
    expect.0.is_empty()
}

/// Injected panics are part of the story and print nothing; all others print as ever.
fn keep_planned_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let planned = panic.payload().downcast_ref::<String>().is_some_and(|text| text.starts_with(PLANNED));
            if !planned {
                usual(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_found_in_a_debug_form_that_is_written_in_pieces() {
        let input = Some(("BlocksFetched", 7));
        assert!(begins_with(&input, ""));
        assert!(begins_with(&input, "Some"));
        assert!(begins_with(&input, "Some((\"Blocks"));
        assert!(begins_with(&input, "Some((\"BlocksFetched\", 7))"));
        assert!(!begins_with(&input, "Some((\"BlocksFetched\", 7)) "));
        assert!(!begins_with(&input, "None"));
    }
}
