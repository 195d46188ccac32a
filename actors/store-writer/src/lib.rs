//! The actor that the only writer of the store.
