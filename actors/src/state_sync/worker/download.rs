//! Reading the blocks of one request.

use bytes::Bytes;
use futures::{StreamExt, future::LocalBoxFuture};
use soma_network::Link;
use soma_network::wire::{BlockRefs, Call, CallError, Status};
use soma_runtime::ExitReason;
use tokio::sync::mpsc;

/// Bytes of blocks that are handed to the Verifier at once, as soon as they are there: several parts to a range of
/// the usual size, and enough that a part's own cost is nothing.
const PART_BYTES: usize = 1 << 20;

/// Blocks on their way from a peer to the actor.
pub(super) struct BlocksPart {
    pub(super) blocks: Vec<Bytes>,
    /// How the answer ended, if these are its last.
    pub(super) end: Option<Result<(), CallError>>,
}

/// A request for blocks that is being answered. Dropping it ends the call.
pub(super) struct Download {
    pub(super) parts: mpsc::Receiver<BlocksPart>,
    pub(super) reading: LocalBoxFuture<'static, Result<(), ExitReason>>,
}

/// Reads a block stream to its end, or to where more than `max_bytes` would come, and hands on what comes in parts.
/// What came before a failure counts.
pub(super) async fn read_blocks(
    link: &Link,
    call: Call,
    refs: BlockRefs,
    max_bytes: u64,
    parts: &mpsc::Sender<BlocksPart>,
) -> Result<(), CallError> {
    let mut wanted = refs.as_slice().len();
    let mut left = max_bytes;
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    let mut stream = link.api().fetch_blocks(call, refs).await?;
    let end = 'reading: loop {
        let chunk = match stream.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => break Err(error),
            None => break Err(CallError::new(Status::NotFound, "the answer ended before the last block")),
        };
        if chunk.len() > wanted {
            break Err(CallError::new(Status::MalformedAnswer, "more blocks than were asked for"));
        }
        for block in chunk {
            let Some(rest) = left.checked_sub(block.len() as u64) else { break 'reading Ok(()) };
            left = rest;
            bytes += block.len();
            wanted -= 1;
            blocks.push(block);
        }
        if wanted == 0 {
            break Ok(());
        }
        if bytes >= PART_BYTES {
            bytes = 0;
            let part = BlocksPart { blocks: std::mem::take(&mut blocks), end: None };
            if parts.send(part).await.is_err() {
                return Ok(());
            }
        }
    };
    // A caller that no longer waits has ended.
    let _ = parts.send(BlocksPart { blocks, end: Some(end) }).await;
    Ok(())
}
