#![no_main]

soma_fuzz::target!("broadcast_frame");
