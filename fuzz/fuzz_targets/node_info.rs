#![no_main]

soma_fuzz::target!("node_info");
