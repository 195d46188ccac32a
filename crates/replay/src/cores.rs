//! The cores that can be recorded, by name.

use crate::encoding::{DecodeError, decode, encode};
use serde_json::Value;
use soma_protocol::{
    Core as CoreTrait, Now, archiver::Archiver, broadcast::Broadcast, connections::Connections, discovery::Discovery,
    grpc_adapter::Serving, objects::Objects, peer_heights::PeerHeights, state_sync::StateSync,
    state_sync::worker::SyncWorker, store_writer::StoreWriter, verifier::Verifier,
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

type Decoded<T> = Result<T, DecodeError>;

/// The operations on one kind of core, without its type.
pub(crate) struct Core {
    name: &'static str,
    pub(crate) restore: fn(&[u8]) -> Decoded<Box<dyn Replayed>>,
    pub(crate) input: fn(&[u8]) -> Decoded<Value>,
    pub(crate) effects: fn(&[u8]) -> Decoded<Value>,
}

/// All cores.
const CORES: &[Core] = &[
    core::<Verifier>(),
    core::<StoreWriter>(),
    core::<Archiver>(),
    core::<Broadcast>(),
    core::<Objects>(),
    core::<PeerHeights>(),
    core::<Connections>(),
    core::<Discovery>(),
    core::<StateSync>(),
    core::<SyncWorker>(),
    core::<Serving>(),
];

/// The names of all cores that can be recorded.
pub fn core_names() -> impl Iterator<Item = &'static str> {
    CORES.iter().map(|core| core.name)
}

/// Finds a core by its name.
pub(crate) fn by_name(name: &str) -> Decoded<&'static Core> {
    let unknown = || DecodeError { what: "core", reason: format!("there is none called {name:?}") };
    CORES.iter().find(|core| core.name == name).ok_or_else(unknown)
}

const fn core<C: CoreTrait>() -> Core {
    Core {
        name: C::NAME,
        restore: |state| Ok(Box::new(decode::<C>(state, "core's state")?)),
        input: |input| Ok(value(&decode::<C::Input>(input, "core's input")?)),
        effects: |effects| Ok(value(&decode::<Vec<C::Effect>>(effects, "list of effects")?)),
    }
}

/// A value as JSON, for people.
fn value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| Value::String(format!("cannot be shown: {error}")))
}

/// A core during a replay, without its type.
pub(crate) trait Replayed {
    /// Feeds a recorded input. Returns the encoded effects, or the message of the core's panic.
    fn feed(&mut self, now: Now, input: &[u8]) -> Decoded<Result<Vec<u8>, String>>;

    /// The core's encoded state.
    fn state(&self) -> Vec<u8>;

    /// The core's snapshot for operators.
    fn snapshot(&self) -> Value;

    /// The core.
    fn as_any(&self) -> &dyn Any;
}

impl<C: CoreTrait> Replayed for C {
    fn feed(&mut self, now: Now, input: &[u8]) -> Decoded<Result<Vec<u8>, String>> {
        let input = decode::<C::Input>(input, "core's input")?;
        // A core is discarded after a panic, in the node and here, so a broken state is never observed.
        let decided = catch_unwind(AssertUnwindSafe(|| self.handle(now, input)));
        Ok(decided.map(|effects| encode(&effects)).map_err(|panic| panic_message(&*panic)))
    }

    fn state(&self) -> Vec<u8> {
        encode(self)
    }

    fn snapshot(&self) -> Value {
        value(&CoreTrait::snapshot(self))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The message of a caught panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}
