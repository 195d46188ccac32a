//! One question to a handler: may this connection stay?

use crate::{Inbound, InboundHandler};
use std::sync::Arc;

/// The question. When it is dropped unanswered (out of time, or the dialler has gone), the connection is told as
/// closed, in case the handler has admitted it or still will.
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
