//! Authenticated connections between peers: gRPC over mutual TLS 1.3, and the same interface in memory.
