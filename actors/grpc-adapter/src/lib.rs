//! The actor that translates gRPC calls into actor messages.
