//! Every check on what peers send: blocks, commits, certificates and node infos, as pure functions.
