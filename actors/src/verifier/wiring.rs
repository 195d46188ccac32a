//! What Verifier is made from.

use super::{PoolSize, Verification, Verifier};
use crate::wiring::Resources;
use soma_runtime::{ChildSpec, Slot};
use soma_verify::{MessageValidator, TransactionVerifier};
use std::sync::Arc;

/// How Verifier is made. Each incarnation has a pool of its own: the last one's may have blocked threads.
pub fn spec(
    slot: Slot<Verifier>,
    resources: &Resources,
    verification: Verification,
    transactions: Arc<dyn TransactionVerifier>,
    validator: Arc<dyn MessageValidator>,
    pool: PoolSize,
) -> ChildSpec<Verifier> {
    let (chain, runtime_context) = (resources.chain, resources.runtime_context.clone());
    ChildSpec::new(slot, resources.mailbox_capacity, move || {
        let (transactions, validator) = (transactions.clone(), validator.clone());
        let verifier = Verifier::new(chain, verification, transactions, validator, pool, runtime_context.clone());
        async move { verifier.map_err(|error| error.to_string()) }
    })
}
