//! Requests for blocks that a validator lacks, and the answers to those of others.

use super::{
    dag::Dag,
    payload::{MAX_ANSWER_BYTES, MAX_BLOCKS_PER_MESSAGE, Payload},
};
use bytes::Bytes;
use soma_p2p::{BlockRef, VerifiedBlock, types::AuthorityIndex};
use std::collections::BTreeMap;

/// How long a block may be missing before it is requested: most are only late.
const REQUEST_AFTER_MS: u64 = 60;

/// Time between two requests for one block.
const REQUEST_EVERY_MS: u64 = 300;

/// Shortest time between two answers with one block.
const ANSWER_EVERY_MS: u64 = 1_000;

/// Blocks that are requested at once. More are missing only far behind, where sync is faster.
const MAX_REQUESTS: usize = 256;

struct Request {
    due_ms: u64,
    builder: AuthorityIndex,
    is_retry: bool,
}

/// What is requested, and what was answered lately.
#[derive(Default)]
pub(crate) struct Requests {
    missing: BTreeMap<BlockRef, Request>,
    /// When a block was last sent. Only blocks of the DAG are in it.
    answered: BTreeMap<BlockRef, u64>,
}

impl Requests {
    /// The messages that are due.
    pub(crate) fn due(&mut self, dag: &Dag, now_ms: u64) -> Vec<Bytes> {
        let missing = dag.missing(MAX_REQUESTS);
        self.missing.retain(|reference, _| missing.contains_key(reference));
        for (reference, builder) in missing {
            let first = Request { due_ms: now_ms + REQUEST_AFTER_MS, builder, is_retry: false };
            self.missing.entry(reference).or_insert(first);
        }
        let (mut first, mut retries) = (Vec::new(), Vec::new());
        for (reference, request) in self.missing.iter_mut().filter(|(_, request)| request.due_ms <= now_ms) {
            if request.is_retry { &mut retries } else { &mut first }.push((*reference, request.builder));
            request.is_retry = true;
            request.due_ms = now_ms + REQUEST_EVERY_MS;
        }
        let mut messages = Vec::new();
        for (blocks, is_retry) in [(first, false), (retries, true)] {
            for blocks in blocks.chunks(MAX_BLOCKS_PER_MESSAGE) {
                messages.push(Payload::Request { at_ms: now_ms, is_retry, blocks: blocks.to_vec() }.encode());
            }
        }
        messages
    }

    /// When the next request is due.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.missing.values().map(|request| request.due_ms).min()
    }

    /// Answers a request of another validator. At first only those who build on the blocks answer, not everybody.
    pub(crate) fn answer(
        &mut self,
        dag: &Dag,
        own: AuthorityIndex,
        now_ms: u64,
        is_retry: bool,
        wanted: &[(BlockRef, AuthorityIndex)],
    ) -> Vec<Bytes> {
        self.answered.retain(|_, at_ms| *at_ms + ANSWER_EVERY_MS > now_ms);
        let mut messages = Vec::new();
        let mut blocks: Vec<&VerifiedBlock> = Vec::new();
        let mut bytes = 0;
        let wanted = wanted.iter().filter(|(_, builder)| is_retry || *builder == own);
        for block in wanted.filter_map(|(reference, _)| dag.find(reference)) {
            if self.answered.contains_key(&block.reference()) {
                continue;
            }
            self.answered.insert(block.reference(), now_ms);
            if bytes + block.bytes().len() > MAX_ANSWER_BYTES {
                messages.extend(blocks_message(now_ms, &std::mem::take(&mut blocks)));
                bytes = 0;
            }
            bytes += block.bytes().len();
            blocks.push(block);
        }
        messages.extend(blocks_message(now_ms, &blocks));
        messages
    }
}

/// A message with blocks, if there are any.
pub(crate) fn blocks_message(at_ms: u64, blocks: &[&VerifiedBlock]) -> Option<Bytes> {
    let blocks: Vec<&[u8]> = blocks.iter().map(|block| block.bytes().as_ref()).collect();
    (!blocks.is_empty()).then(|| Payload::Blocks { at_ms, blocks }.encode())
}
