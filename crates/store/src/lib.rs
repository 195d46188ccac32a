//! The durable chain store: one trait, an embedded implementation on disk and one in memory.
