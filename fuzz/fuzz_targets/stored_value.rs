#![no_main]

soma_fuzz::target!("stored_value");
