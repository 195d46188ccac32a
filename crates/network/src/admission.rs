//! Asks the handler whether a new connection may stay.

use crate::{Inbound, InboundHandler};
use std::sync::Arc;

/// A pending admission. If it is dropped undecided (timeout, or the dialler has gone), it reports the connection as
/// closed, because the handler may have admitted it or may still do so.
pub(crate) struct Admission {
    handler: Arc<dyn InboundHandler>,
    inbound: Inbound,
    answered: bool,
}

impl Admission {
    pub(crate) fn new(handler: Arc<dyn InboundHandler>, inbound: Inbound) -> Self {
        Self { handler, inbound, answered: false }
    }

    pub(crate) async fn ask(mut self) -> bool {
        let admitted = self.handler.connected(self.inbound.clone()).await;
        self.answered = true;
        admitted
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.answered {
            self.handler.closed(self.inbound.id, self.inbound.peer);
        }
    }
}
