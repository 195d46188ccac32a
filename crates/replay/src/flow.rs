//! Spans of `tracing` that follow one piece of work through the actors.

use std::{fmt, sync::Arc};
use tracing::{Span, debug_span, span::Entered};

/// Target of all spans of flows: a subscriber that wants them enables `p2p_flow=debug`.
///
/// It does not begin with `soma`, because a filter such as `soma=debug` enables every target that begins so.
pub const FLOW_TARGET: &str = "p2p_flow";

/// The longest chain of messages in a flow, each of which follows from the one before. Some work goes round and round,
/// such as a long sync: its flow ends here, so that its spans end, too.
const MAX_STEPS: usize = 64;

/// The work that a message belongs to, such as one call of a peer. It is nothing while no subscriber wants its spans.
///
/// A span is open until all that follows from it has ended.
#[derive(Clone, Default)]
pub struct Flow(Option<Arc<Step>>);

struct Step {
    span: Span,
    /// Messages before it.
    number: usize,
}

impl Flow {
    /// No flow.
    pub const NONE: Self = Self(None);

    /// Begins with a span of the target [`FLOW_TARGET`]. Nothing if no subscriber wants it.
    pub fn begin(span: Span) -> Self {
        Self((!span.is_disabled()).then(|| Arc::new(Step { span, number: 0 })))
    }

    /// Sets a field of its span that was left empty.
    pub fn record(&self, field: &'static str, value: impl tracing::Value) {
        if let Some(step) = &self.0 {
            step.span.record(field, value);
        }
    }

    /// Goes on with an actor that handles an input.
    #[must_use]
    pub fn handling(&self, actor: &'static str, input: &'static str) -> Self {
        let next = |step: &Arc<Step>| {
            let name = format_args!("{actor} {input}");
            let span = debug_span!(target: FLOW_TARGET, parent: &step.span, "handle", otel.name = %name, actor, input);
            // The target may have been turned off meanwhile.
            (!span.is_disabled()).then(|| Arc::new(Step { span, number: step.number + 1 }))
        };
        Self(self.0.as_ref().filter(|step| step.number < MAX_STEPS).and_then(next))
    }

    /// What is done until the answer is dropped is done in the span.
    pub fn enter(&self) -> Option<Entered<'_>> {
        self.0.as_ref().map(|step| step.span.enter())
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flow").field(&self.0.as_ref().map(|step| &step.span)).finish()
    }
}

/// Equal if both are the same step of the same flow, or nothing.
impl PartialEq for Flow {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Flow {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_without_a_subscriber_is_nothing() {
        let flow = Flow::begin(debug_span!(target: FLOW_TARGET, "call"));
        assert_eq!((flow.handling("actor", "Input"), flow), (Flow::default(), Flow::default()));
    }

    #[test]
    fn flow_ends_after_its_last_step() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let mut flow = Flow::begin(debug_span!(target: FLOW_TARGET, "call"));
            for _ in 0..MAX_STEPS {
                flow = flow.handling("actor", "Input");
                assert_ne!(flow, Flow::default());
            }
            assert_eq!(flow.handling("actor", "Input"), Flow::default());
        });
    }
}
