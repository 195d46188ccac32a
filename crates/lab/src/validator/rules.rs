//! Judges consensus messages on the threads of the Verifier.

use crate::consensus::validate;
use soma_p2p::{
    Author, ChainId, Committee, EpochContext, Genesis, MessageValidator, MessageVerdict, SignedMessage, Topic,
    types::Epoch,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Epochs whose context is kept. Messages are of the present one or the one before.
const MAX_CONTEXTS: usize = 3;

/// The rules of all epochs. Every committee has the members of the first.
pub(super) struct Rules {
    chain: ChainId,
    committee: Committee,
    contexts: Mutex<BTreeMap<Epoch, Arc<EpochContext>>>,
}

impl Rules {
    pub(super) fn new(genesis: &Genesis) -> Self {
        Self { chain: genesis.chain_id(), committee: genesis.committee().clone(), contexts: Mutex::default() }
    }

    fn context(&self, epoch: Epoch) -> Option<Arc<EpochContext>> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = contexts.get(&epoch) {
            return Some(context.clone());
        }
        let committee = Committee { epoch, ..self.committee.clone() };
        let context = Arc::new(EpochContext::new(self.chain, committee).ok()?);
        contexts.insert(epoch, context.clone());
        if contexts.len() > MAX_CONTEXTS {
            contexts.pop_first();
        }
        Some(context)
    }
}

impl MessageValidator for Rules {
    fn validate(&self, message: &SignedMessage) -> MessageVerdict {
        let message = message.message();
        match (message.topic, message.author, self.context(message.epoch)) {
            (Topic::Consensus, Author::Authority(author), Some(context)) => {
                validate(&context, author, &message.payload)
            }
            // Nothing else has a use here.
            _ => MessageVerdict::Ignore,
        }
    }
}
