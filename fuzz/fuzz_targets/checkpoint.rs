#![no_main]

soma_fuzz::target!("checkpoint");
