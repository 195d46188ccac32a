//! A trace as JSON, for people and scripts.

use crate::{
    cores::{self},
    encoding::DecodeError,
    record::{Decision, Entry, Record},
    trace::{Item, Trace},
};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;

/// The name and node of an actor's number in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) node: String,
}

/// The actors of a run with a state up to this point of the trace.
pub(crate) type Actors = BTreeMap<u64, Named>;

/// One JSON object per item of the trace, in order.
pub fn json(trace: &Trace) -> impl Iterator<Item = Value> + '_ {
    let mut actors = Actors::new();
    trace.items.iter().map(move |item| item_json(item, &mut actors))
}

fn item_json(item: &Item, actors: &mut Actors) -> Value {
    match item {
        Item::Begins(header) => {
            actors.clear();
            object!({"begins": {"software": header.software, "run": header.run, "file": header.file}})
        }
        Item::Torn { place, bytes } => object!({"torn": {"place": place.to_string(), "bytes": bytes}}),
        Item::Damaged(damage) => {
            let says = damage.says.as_ref().map(|record| record_json(record, actors));
            object!({"damaged": {"place": damage.place.to_string(), "after": damage.after, "says": says}})
        }
        Item::Record(record) => {
            if let Record::State(state) = record {
                actors.insert(state.actor, Named { name: state.name.clone(), node: state.node.clone() });
            }
            record_json(record, actors)
        }
    }
}

fn record_json(record: &Record, actors: &Actors) -> Value {
    match record {
        Record::State(state) => {
            let restored = cores::by_name(&state.name).and_then(|core| (core.restore)(&state.core));
            object!({
                "record": state.number, "at_s": state.at.monotonic.as_secs_f64(), "unix_ms": state.at.unix_ms,
                "node": state.node, "actor": state.name, "incarnation": state.actor,
                "state": or_error(restored.map(|core| core.snapshot())),
            })
        }
        Record::Entry(entry) => entry_json(entry, actors),
        Record::Gap(gap) => object!({"record": gap.number, "incarnation": gap.actor, "missed": gap.missed}),
        Record::Ended(ended) => object!({
            "record": ended.number, "at_s": ended.at.monotonic.as_secs_f64(), "unix_ms": ended.at.unix_ms,
            "node": ended.node, "actor": ended.name, "ended": ended.exit,
        }),
    }
}

pub(crate) fn entry_json(entry: &Entry, actors: &Actors) -> Value {
    let named = actors.get(&entry.actor);
    let name = named.map(|named| named.name.as_str());
    object!({
        "record": entry.number, "at_s": entry.at.monotonic.as_secs_f64(), "unix_ms": entry.at.unix_ms,
        "node": named.map(|named| named.node.as_str()), "actor": name, "incarnation": entry.actor,
        "sender": entry.sender, "cause": entry.cause, "span": entry.span,
        "message": input_json(name, entry), "effects": decision_json(name, &entry.decision),
    })
}

/// The input of an entry.
pub(crate) fn input_json(name: Option<&str>, entry: &Entry) -> Value {
    match name {
        Some(name) => or_error(cores::by_name(name).and_then(|core| (core.input)(&entry.input))),
        None => object!({"unknown actor": entry.actor, "bytes": entry.input.len()}),
    }
}

/// The decision of an entry.
pub(crate) fn decision_json(name: Option<&str>, decision: &Decision) -> Value {
    match (decision, name) {
        (Decision::Panicked(message), _) => object!({"panicked": message}),
        (Decision::Effects { effects: Some(effects), .. }, Some(name)) => effects_json(name, effects),
        (Decision::Effects { digest, .. }, _) => object!({"digest": digest}),
    }
}

/// Encoded effects as JSON.
pub(crate) fn effects_json(name: &str, effects: &[u8]) -> Value {
    or_error(cores::by_name(name).and_then(|core| (core.effects)(effects)))
}

fn or_error(value: Result<Value, DecodeError>) -> Value {
    value.unwrap_or_else(|error| object!({"error": error.to_string()}))
}
