//! How a connection ends.

use tokio_util::sync::CancellationToken;

/// The ends of a connection, as tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// Cancelling it ends the connection.
    pub(crate) hang_up: CancellationToken,
    /// Cancelled when the connection has ended.
    pub(crate) closed: CancellationToken,
    /// Cancelled before `closed` if the peer flooded the connection with frames that no honest peer sends.
    pub(crate) flooded: CancellationToken,
    /// Cancelled before `closed` if the peer did not read the responses that it requested.
    pub(crate) stalled: CancellationToken,
}
