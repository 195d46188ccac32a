//! Replaying: restores cores from their recorded states, feeds the recorded inputs, and compares the decisions.

use crate::{
    cores::{self, Replayed},
    encoding::DecodeError,
    record::{Decision, Entry, Record, State},
    show::{Actors, Named, decision_json, effects_json, input_json},
    trace::{Damage, Item, Trace},
};
use serde_json::Value;
use soma_types::ContentDigest;
use std::{any::Any, collections::BTreeMap, fmt};

/// Maximum number of records of the causal chain in a divergence.
const CHAIN: usize = 20;

/// Selects the part of a trace to replay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only actors with this core, or with this node and core (`node-3/state-sync`).
    pub actor: Option<String>,
    /// Only records up to this number.
    pub until: Option<u64>,
}

/// One replayed message, for the observer of a replay.
pub struct Step<'a> {
    /// The record.
    pub entry: &'a Entry,
    /// The name of the core.
    pub name: &'a str,
    /// The core's node; empty if there is only one.
    pub node: &'a str,
    core: &'a dyn Any,
}

impl Step<'_> {
    /// The core after the message, if it has this type.
    pub fn core<C: 'static>(&self) -> Option<&C> {
        self.core.downcast_ref()
    }
}

/// The result of a replay.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Figures of each actor, by node and name.
    pub actors: BTreeMap<(String, String), ActorReport>,
    /// Records with a wrong checksum.
    pub damaged: Vec<Damage>,
    /// Files that end within a record. The last record of each is lost.
    pub torn: Vec<String>,
    /// The first difference. The replay stops there.
    pub divergence: Option<Divergence>,
}

/// Figures of one actor, over all its incarnations.
#[derive(Clone, Debug, Default)]
pub struct ActorReport {
    /// Number of incarnations in the trace. All but the first are restarts; for workers, it is the number of workers.
    pub incarnations: u64,
    /// Messages replayed with the recorded decision.
    pub replayed: u64,
    /// Messages that cannot be replayed: they precede the actor's first state in the trace, or follow damage.
    pub skipped: u64,
    /// Messages that the recorder missed.
    pub missed: u64,
    /// Snapshot of the latest incarnation at the end.
    pub state: Option<Value>,
}

/// The first difference between a trace and its replay.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// The record.
    pub record: u64,
    /// The node; empty if there is only one.
    pub node: String,
    /// The actor.
    pub actor: String,
    /// What differs.
    pub difference: Difference,
    /// Earlier records of the causal chain in words, the latest last.
    pub chain: Vec<String>,
}

/// The kind of a difference.
#[derive(Clone, Debug)]
pub enum Difference {
    /// The core's decision on a message.
    Decision {
        /// The message.
        message: Value,
        /// The recorded decision.
        expected: Value,
        /// The replayed decision.
        got: Value,
    },
    /// The core's state at a recorded state.
    State {
        /// The recorded state.
        expected: Value,
        /// The replayed state.
        got: Value,
    },
}

/// Replays a trace. `look` observes each core after each of its messages.
///
/// # Errors
/// Fails if this version of the software cannot decode a record.
pub fn replay(trace: &Trace, options: &Options, look: &mut dyn FnMut(&Step<'_>)) -> Result<Report, DecodeError> {
    let mut replayer = Replayer { options, look, report: Report::default(), run: Run::default() };
    for item in &trace.items {
        if !replayer.item(item)? {
            break;
        }
    }
    replayer.end_run();
    Ok(replayer.report)
}

struct Replayer<'a, 'l> {
    options: &'a Options,
    look: &'l mut dyn FnMut(&Step<'_>),
    report: Report,
    run: Run<'a>,
}

/// The state of the current run.
#[derive(Default)]
struct Run<'a> {
    actors: Actors,
    cores: BTreeMap<u64, Box<dyn Replayed>>,
    entries: BTreeMap<u64, &'a Entry>,
}

impl<'a> Replayer<'a, '_> {
    /// Replays one item. Returns whether to continue.
    fn item(&mut self, item: &'a Item) -> Result<bool, DecodeError> {
        match item {
            Item::Begins(_) => self.end_run(),
            Item::Torn { place, .. } => self.report.torn.push(place.to_string()),
            Item::Damaged(damage) => {
                let mut damage = damage.clone();
                if let Some(Record::Entry(Entry { actor, .. }) | Record::State(State { actor, .. })) = &damage.says {
                    // The effect of the damaged record on its actor is unknown.
                    self.run.cores.remove(actor);
                    damage.actor = self.run.actors.get(actor).map(|named| full_name(&named.node, &named.name));
                }
                self.report.damaged.push(damage);
            }
            // Threads number their records before they write them, so a later number may precede an earlier one. Skip
            // the record instead of stopping.
            Item::Record(record) if self.options.until.is_some_and(|until| record.number() > until) => {}
            Item::Record(Record::State(state)) => self.state(state)?,
            Item::Record(Record::Entry(entry)) => self.entry(entry)?,
            Item::Record(Record::Gap(gap)) => {
                self.run.cores.remove(&gap.actor);
                if let Some(actor) = self.actor(gap.actor) {
                    // A forged trace can claim any number.
                    actor.missed = actor.missed.saturating_add(gap.missed);
                }
            }
            Item::Record(Record::Ended(_)) => {}
        }
        Ok(self.report.divergence.is_none())
    }

    fn wanted(&self, named: &Named) -> bool {
        self.options.actor.as_ref().is_none_or(|wanted| {
            *wanted == named.name || wanted.split_once('/') == Some((named.node.as_str(), named.name.as_str()))
        })
    }

    /// The figures of an actor, if it is replayed.
    fn actor(&mut self, actor: u64) -> Option<&mut ActorReport> {
        let named = self.run.actors.get(&actor).filter(|named| self.wanted(named))?;
        Some(self.report.actors.entry((named.node.clone(), named.name.clone())).or_default())
    }

    fn state(&mut self, state: &State) -> Result<(), DecodeError> {
        let named = Named { name: state.name.clone(), node: state.node.clone() };
        let new = self.run.actors.insert(state.actor, named.clone()).is_none();
        if !self.wanted(&named) {
            return Ok(());
        }
        if let Some(core) = self.run.cores.get(&state.actor) {
            if core.state() != state.core {
                let expected = (cores::by_name(&state.name)?.restore)(&state.core)?.snapshot();
                self.diverge(state.number, &named, Difference::State { expected, got: core.snapshot() }, None);
            }
            return Ok(());
        }
        let core = (cores::by_name(&state.name)?.restore)(&state.core)?;
        self.run.cores.insert(state.actor, core);
        if let Some(actor) = self.actor(state.actor).filter(|_| new) {
            actor.incarnations += 1;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &'a Entry) -> Result<(), DecodeError> {
        self.run.entries.insert(entry.number, entry);
        let Some(core) = self.run.cores.get_mut(&entry.actor) else {
            if let Some(actor) = self.actor(entry.actor) {
                actor.skipped += 1;
            } else if !self.run.actors.contains_key(&entry.actor) && self.options.actor.is_none() {
                // The ring has dropped the file with its state.
                self.report.actors.entry((String::new(), "unknown".into())).or_default().skipped += 1;
            }
            return Ok(());
        };
        let got = core.feed(entry.at, &entry.input)?;
        let same = match (&got, &entry.decision) {
            (Ok(effects), Decision::Effects { digest, .. }) => ContentDigest::of(&[effects]) == *digest,
            (Err(message), Decision::Panicked(expected)) => message == expected,
            _ => false,
        };
        let named = self.run.actors[&entry.actor].clone();
        if !same {
            let name = named.name.as_str();
            let message = input_json(Some(name), entry);
            let expected = decision_json(Some(name), &entry.decision);
            let got = match &got {
                Ok(effects) => effects_json(name, effects),
                Err(panic) => serde_json::json!({ "panicked": panic }),
            };
            let difference = Difference::Decision { message, expected, got };
            self.diverge(entry.number, &named, difference, entry.cause);
            return Ok(());
        }
        let core = self.run.cores[&entry.actor].as_any();
        (self.look)(&Step { entry, name: &named.name, node: &named.node, core });
        if got.is_err() {
            self.run.cores.remove(&entry.actor);
        }
        if let Some(actor) = self.actor(entry.actor) {
            actor.replayed += 1;
        }
        Ok(())
    }

    fn diverge(&mut self, record: u64, named: &Named, difference: Difference, mut cause: Option<u64>) {
        let mut chain = Vec::new();
        while chain.len() < CHAIN
            && let Some(entry) = cause.and_then(|cause| self.run.entries.get(&cause))
        {
            chain.push(self.line(entry));
            cause = entry.cause;
        }
        chain.reverse();
        let (node, actor) = (named.node.clone(), named.name.clone());
        self.report.divergence = Some(Divergence { record, node, actor, difference, chain });
    }

    /// An entry in one line of text.
    fn line(&self, entry: &Entry) -> String {
        let named = self.run.actors.get(&entry.actor);
        let name = named.map(|named| named.name.as_str());
        let at = entry.at.monotonic.as_secs_f64();
        let to = named.map_or("unknown".into(), |named| full_name(&named.node, &named.name));
        let message = input_json(name, entry);
        format!("#{} {at:.6} s  {} -> {to}  {message}", entry.number, entry.sender)
    }

    /// Records the final state of each actor of the run.
    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        for (actor, core) in run.cores {
            if let Some(named) = run.actors.get(&actor) {
                let key = (named.node.clone(), named.name.clone());
                self.report.actors.entry(key).or_default().state = Some(core.snapshot());
            }
        }
    }
}

fn full_name(node: &str, name: &str) -> String {
    if node.is_empty() { name.into() } else { format!("{node}/{name}") }
}

impl Report {
    /// Returns true if all replayed decisions are identical and no record is damaged.
    pub fn is_identical(&self) -> bool {
        self.divergence.is_none() && self.damaged.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |field: fn(&ActorReport) -> u64| self.actors.values().map(field).sum::<u64>();
        match &self.divergence {
            Some(divergence) => writeln!(f, "{divergence}")?,
            None if self.is_identical() => {
                write!(f, "identical: {} messages of {} actors", sum(|actor| actor.replayed), self.actors.len())?;
                writeln!(f, " in {} incarnations", sum(|actor| actor.incarnations))?;
            }
            None => writeln!(f, "damaged")?,
        }
        for damage in &self.damaged {
            writeln!(f, "{damage}")?;
        }
        for ((node, name), actor) in &self.actors {
            let ActorReport { incarnations, replayed, skipped, missed, .. } = actor;
            write!(f, "  {:<24} {replayed:>8} messages", full_name(node, name))?;
            write!(f, " {incarnations:>6} incarnation{}", if *incarnations == 1 { "" } else { "s" })?;
            if *skipped > 0 {
                write!(f, "  {skipped} not replayed: no state to start from")?;
            }
            if *missed > 0 {
                write!(f, "  {missed} missed by the recorder")?;
            }
            writeln!(f)?;
        }
        for place in &self.torn {
            writeln!(f, "  torn end at {place}: one record is lost, as after a crash")?;
        }
        Ok(())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.says {
            Some(record) => write!(f, "record #{}", record.number())?,
            None => write!(f, "the record after #{}", self.after.unwrap_or_default())?,
        }
        if let Some(actor) = &self.actor {
            write!(f, " of {actor}")?;
        }
        write!(f, " was changed after it was written: its checksum is wrong ({})", self.place)
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actor = full_name(&self.node, &self.actor);
        writeln!(f, "divergence at record #{} in {actor}", self.record)?;
        match &self.difference {
            Difference::Decision { message, expected, got } => {
                writeln!(f, "  message   {message}")?;
                match (expected.as_array(), got.as_array()) {
                    (Some(expected), Some(got)) => {
                        let first = expected.iter().zip(got).take_while(|(expected, got)| expected == got).count();
                        let text =
                            |effects: &[Value]| effects.get(first).map_or("nothing more".into(), ToString::to_string);
                        writeln!(f, "  effect {} of {} expected, {} got", first + 1, expected.len(), got.len())?;
                        writeln!(f, "  expected  {}", text(expected))?;
                        writeln!(f, "  got       {}", text(got))?;
                    }
                    _ => {
                        writeln!(f, "  expected  {expected}")?;
                        writeln!(f, "  got       {got}")?;
                    }
                }
            }
            Difference::State { expected, got } => {
                writeln!(f, "  the state differs from the one written down here")?;
                writeln!(f, "  expected  {expected}")?;
                writeln!(f, "  got       {got}")?;
            }
        }
        writeln!(f, "  after")?;
        for line in &self.chain {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}
