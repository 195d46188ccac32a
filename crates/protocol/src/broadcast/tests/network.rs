//! A deterministic network of cores.
