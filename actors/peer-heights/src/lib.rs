//! The actor that knows who has what and picks peers.
