//! The actor that finds peers by gossip of signed node infos.
