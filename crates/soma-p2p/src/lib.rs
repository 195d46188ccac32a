//! Peer-to-peer sync for a Soma node: discovery, verified state sync and serving, as supervised actors behind one handle.
