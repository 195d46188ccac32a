#![no_main]

soma_fuzz::target!("snapshot_manifest");
