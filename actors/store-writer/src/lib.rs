//! StoreWriter: the only writer of the store. One durable batch at a time; readers never wait for it.

#![deny(missing_docs)]

mod actor;
mod metrics;

pub use actor::StoreWriter;
