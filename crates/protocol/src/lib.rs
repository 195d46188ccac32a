//! The pure cores of the actors: state and decisions, without I/O, clock or runtime.
