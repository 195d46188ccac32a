//! Faults on order: an actor panics, fails, dawdles or hangs at the nth input of a kind.

use crate::simulation::{
    event::ActorFault,
    journal::{Entry, Journal},
    names::NodeName,
};
use soma_p2p::testing::{Fault, PlannedFaults};
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
    /// Such inputs until the first that it happens at, that one included.
    before: u32,
    /// Such inputs from then on at which it happens.
    times: u32,
    fault: ActorFault,
}

impl PlannedActorFaults {
    pub(super) fn new(node: NodeName, journal: Journal) -> Self {
        keep_planned_panics_quiet();
        Self { node, journal, planned: Arc::default() }
    }

    /// Plans one more fault, at `times` inputs from the `nth` on.
    pub(super) fn plan(&self, actor: String, input: String, nth: u32, times: u32, fault: ActorFault) {
        let planned = Planned { actor, input, before: nth.max(1), times: times.max(1), fault };
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push(planned);
    }

    /// Nothing is planned any more.
    pub(super) fn clear(&self) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// For the node's environment.
    pub(super) fn planned(&self) -> PlannedFaults {
        let faults = self.clone();
        Arc::new(move |actor, input| faults.due(actor, input))
    }

    fn due(&self, actor: &'static str, input: &dyn fmt::Debug) -> Option<Fault> {
        let kind = kind(input);
        self.journal.input(self.node, actor, &kind);
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = |planned: &&mut Planned| planned.actor == actor && planned.input == kind;
        let mut due = None;
        for planned in planned.iter_mut().filter(meant) {
            planned.before = planned.before.saturating_sub(1);
            if planned.before == 0 && due.is_none() {
                planned.times -= 1;
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
        planned.retain(|planned| planned.times > 0);
        due
    }
}

/// The name at the beginning of the `Debug` form of `input`: for an input of a core, its variant. No more is formatted.
fn kind(input: &dyn fmt::Debug) -> String {
    struct Name(String);
    impl Write for Name {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let name = text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
            self.0.push_str(name);
            // An error ends the formatting.
            if name.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut name = Name(String::new());
    // Ends with an error as soon as the name is over.
    let _ = write!(name, "{input:?}");
    name.0
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
    fn the_kind_of_an_input_is_its_variant_and_no_other_that_begins_like_it() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "only their Debug forms count")]
        enum Input {
            Wake,
            Dial { peer: u8 },
            Dialled(u8),
        }
        assert_eq!(kind(&Input::Wake), "Wake");
        assert_eq!(kind(&Input::Dial { peer: 1 }), "Dial");
        assert_eq!(kind(&Input::Dialled(1)), "Dialled");
        assert_eq!(kind(&Some(("BlocksFetched", 7))), "Some");
    }
}
