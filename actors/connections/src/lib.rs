//! The actor that dials, admits and tracks peers.
