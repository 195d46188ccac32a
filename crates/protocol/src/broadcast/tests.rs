//! Tests of Broadcast's core: alone, and in a small network of cores.

mod network;
