//! For tests, localnet and benchmarks: a deterministic builder of valid chains, and peers that misbehave.
