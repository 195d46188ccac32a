//! What the gRPC adapter counts.

use crate::grpc_adapter::messages::Sent;
use metrics::counter;

/// A call was refused.
pub(crate) fn refused(reason: &'static str) {
    counter!("soma_calls_refused_total", "reason" => reason).increment(1);
}

/// A call ended.
pub(crate) fn answered(sent: Sent) {
    counter!("soma_calls_answered_total").increment(1);
    counter!("soma_blocks_sent_total").increment(sent.blocks);
    counter!("soma_bytes_sent_total").increment(sent.bytes);
}
