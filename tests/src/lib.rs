//! Scenarios over the public API, and the checks that lint runs.
