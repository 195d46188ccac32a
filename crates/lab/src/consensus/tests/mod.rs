//! The consensus in a simulated network: random delays, reordering, deaths, an equivocating validator.

mod payloads;
mod scenarios;
mod world;
