//! Generated handlers: an actor lists the messages that it only passes on.

/// Handles messages by feeding each to the actor's core as one input.
///
/// Each line takes a message apart on the left, and builds the input on the right. A message that needs more than an
/// input (a reply to keep, bytes to hold) has a handler written out.
///
/// ```text
/// forward! {
///     PeerHeights {
///         OwnHeight(index) => Input::OwnHeight(index),
///         Pushed { peer, index } => Input::Pushed { peer, index },
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward {
    ($actor:ty { $($message:ident $fields:tt => $input:expr,)+ }) => {$(
        impl ::actix::Handler<$crate::Envelope<$message>> for $actor {
            type Result = ();

            fn handle(&mut self, envelope: $crate::Envelope<$message>, context: &mut ::actix::Context<Self>) {
                let $message $fields = envelope.message;
                $crate::Shell::feed(self, envelope.origin, $input, context);
            }
        }
    )+};
}

/// As [`forward!`](crate::forward), for messages with a field `reply`: the sender learns that the core has the input.
#[macro_export]
macro_rules! acknowledge {
    ($actor:ty { $($message:ident { $($field:ident),+ } => $input:expr,)+ }) => {$(
        impl ::actix::Handler<$crate::Envelope<$message>> for $actor {
            type Result = ();

            fn handle(&mut self, envelope: $crate::Envelope<$message>, context: &mut ::actix::Context<Self>) {
                let $message { $($field,)+ reply } = envelope.message;
                $crate::Shell::feed(self, envelope.origin, $input, context);
                reply.send(());
            }
        }
    )+};
}

/// Answers [`Observe`](crate::Observe) with the snapshot of the actor's core.
#[macro_export]
macro_rules! observe {
    ($actor:ty, $snapshot:ty) => {
        impl ::actix::Handler<$crate::Envelope<$crate::Observe<$snapshot>>> for $actor {
            type Result = ();

            fn handle(
                &mut self,
                envelope: $crate::Envelope<$crate::Observe<$snapshot>>,
                _: &mut ::actix::Context<Self>,
            ) {
                envelope.message.0.send($crate::Shell::host(self).snapshot());
            }
        }
    };
}

/// Handles [`Stop`](crate::Stop) by stopping at once: for an actor that has nothing to finish.
#[macro_export]
macro_rules! stop_at_once {
    ($actor:ty) => {
        impl ::actix::Handler<$crate::Envelope<$crate::Stop>> for $actor {
            type Result = ();

            fn handle(&mut self, envelope: $crate::Envelope<$crate::Stop>, context: &mut ::actix::Context<Self>) {
                ::actix::ActorContext::stop(context);
                envelope.message.0.send(());
            }
        }
    };
}
