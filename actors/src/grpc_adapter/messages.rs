//! Messages that the gRPC adapter takes.

use soma_protocol::grpc_adapter::{Class, Refusal, Rpc};
use soma_runtime::Reply;
use soma_types::{ChainId, PeerId};
use tokio::sync::oneshot;

/// From the service: a peer calls.
#[derive(Debug)]
pub struct CallArrived {
    /// The peer.
    pub peer: PeerId,
    /// On which chain it says it is.
    pub chain: Option<ChainId>,
    /// The kind of call.
    pub rpc: Rpc,
    /// Whether the call is admitted.
    pub reply: Reply<Result<CallPermit, Refusal>>,
}

/// Size of the answer to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of blocks and commits.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

/// Permission to answer one call. Dropping it frees the place, so no message can get lost.
#[derive(Debug)]
pub struct CallPermit {
    class: Class,
    sent: Sent,
    ended: Option<oneshot::Sender<Sent>>,
}

impl CallPermit {
    /// A permit for a caller of this class, and the end at which its end is noticed.
    pub fn new(class: Class) -> (Self, oneshot::Receiver<Sent>) {
        let (ended, notice) = oneshot::channel();
        (Self { class, sent: Sent::default(), ended: Some(ended) }, notice)
    }

    /// What this node knows of the caller.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Counts sent bytes and blocks.
    pub fn count(&mut self, bytes: u64, blocks: u64) {
        self.sent.bytes += bytes;
        self.sent.blocks += blocks;
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(self.sent);
        }
    }
}
