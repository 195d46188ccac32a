//! The check of messages that spread among nodes.

use super::{metrics, pool::JobWatch};
use soma_types::{ChainId, MessageVerdict, SignedMessage};
use soma_verify::{EpochContext, MessageValidator, SignatureVerdict, check_message_signatures};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Checks signatures together, then asks the embedder about each message that passes. Returns how often it panicked.
pub(super) fn judge_messages(
    chain: ChainId,
    contexts: &[Arc<EpochContext>],
    messages: &[Arc<SignedMessage>],
    signatures: bool,
    validator: &dyn MessageValidator,
    watch: &mut JobWatch,
) -> (Vec<MessageVerdict>, usize) {
    let signed = match signatures {
        true => check_message_signatures(chain, contexts, messages),
        false => vec![SignatureVerdict::Right; messages.len()],
    };
    let mut panics = 0;
    let verdicts = messages.iter().zip(signed).map(|(message, signed)| {
        match signed {
            SignatureVerdict::Right => {}
            SignatureVerdict::Wrong => {
                metrics::rejected("messages");
                return MessageVerdict::Reject;
            }
            // The sender may know a committee that this node does not.
            SignatureVerdict::UnknownEpoch => return MessageVerdict::Ignore,
        }
        // The system stops. Nobody waits for the verdict.
        if !watch.step(None) {
            return MessageVerdict::Ignore;
        }
        catch_unwind(AssertUnwindSafe(|| validator.validate(message))).unwrap_or_else(|_| {
            panics += 1;
            MessageVerdict::Ignore
        })
    });
    (verdicts.collect(), panics)
}
