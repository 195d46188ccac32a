//! StoreWriter: the only writer of the store. One durable batch at a time; readers never wait for it.

pub mod messages;
mod metrics;
mod shell;
pub mod wiring;

pub use shell::StoreWriter;
