//! Objects: gets content by its digest from peers, for the embedder.
//!
//! ```text
//!   handle --FetchObjects--> core --Call--> task: FetchObjects rpc, digests on a blocking thread
//!                             ^               |
//!                             |--Arrived------'   certificates first go to the Verifier
//!                            core --Answer--> the asker's queue
//! ```
//!
//! One message of an answer at a time waits for this actor. So a call reads no faster than its results are taken.

mod call;
pub mod messages;
mod metrics;
mod shell;
pub mod wiring;

pub use shell::Objects;
pub use soma_protocol::objects::Config;
