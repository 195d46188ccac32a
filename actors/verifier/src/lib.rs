//! The actor that checks signatures on a CPU pool behind permits.
